"""All log lines of postscreen and fastscreen, and lines that only look like them."""

import pytest

from fastscreen.core import Log
from fastscreen.report.lines import TEST_KINDS, VERBS, Kind, Row, pattern, reader

HEAD = b"Nov 22 08:06:46 mx1 postfix/postscreen[811]: "
CLIENT = b"[192.0.2.1]:51234"


def row(line: bytes, name: str = "") -> Row:
    (found,) = pattern(name).findall(line + b"\n")
    return tuple(found)


LINES = [
    (b"CONNECT from [192.0.2.1]:51234 to [198.51.100.7]:25", Kind.CONNECT, b"", b" to [198.51.100.7]:25"),
    (b"PASS NEW [192.0.2.1]:51234", Kind.PASS_NEW, b"", b""),
    (b"PASS OLD [192.0.2.1]:51234", Kind.PASS_OLD, b"", b""),
    (b"ALLOWLISTED [192.0.2.1]:51234", Kind.ALLOWLISTED, b"", b""),
    (b"WHITELISTED [192.0.2.1]:51234", Kind.ALLOWLISTED, b"", b""),
    (b"DENYLISTED [192.0.2.1]:51234", Kind.DENYLISTED, b"", b""),
    (b"BLACKLISTED [192.0.2.1]:51234", Kind.DENYLISTED, b"", b""),
    (b"ALLOWLIST VETO [192.0.2.1]:51234", Kind.VETO, b"", b""),
    (b"WHITELIST VETO [192.0.2.1]:51234", Kind.VETO, b"", b""),
    (b"BYPASSED [192.0.2.1]:51234", Kind.BYPASSED, b"", b""),
    (
        b"PREGREET 11 after 0.23 from [192.0.2.1]:51234: EHLO ylmf\\r\\n",
        TEST_KINDS["pregreet"],
        b"11",
        b": EHLO ylmf\\r\\n",
    ),
    (b"PREGREET 11 after 0 from [192.0.2.1]:51234: ", TEST_KINDS["pregreet"], b"11", b": "),
    (b"DNSBL rank 10 for [192.0.2.1]:51234", TEST_KINDS["dnsbl"], b"10", b""),
    (b"BARE NEWLINE from [192.0.2.1]:51234 after NOOP", TEST_KINDS["bare_newline"], b"", b" after NOOP"),
    (
        b"NON-SMTP COMMAND from [192.0.2.1]:51234 after CONNECT: GET / HTTP/1.1",
        TEST_KINDS["non_smtp_command"],
        b"",
        b" after CONNECT: GET / HTTP/1.1",
    ),
    (
        b"COMMAND PIPELINING from [192.0.2.1]:51234 after MAIL: RSET\\r\\n",
        TEST_KINDS["pipelining"],
        b"",
        b" after MAIL: RSET\\r\\n",
    ),
    (b"COMMAND TIME LIMIT from [192.0.2.1]:51234 after EHLO", Kind.TIME_LIMIT, b"", b" after EHLO"),
    (b"COMMAND COUNT LIMIT from [192.0.2.1]:51234 after NOOP", Kind.COUNT_LIMIT, b"", b" after NOOP"),
    (b"COMMAND LENGTH LIMIT from [192.0.2.1]:51234 after CONNECT", Kind.LENGTH_LIMIT, b"", b" after CONNECT"),
    (b"DATA without valid RCPT from [192.0.2.1]:51234", Kind.NO_RCPT, b"", b""),
    (b"BDAT without valid RCPT from [192.0.2.1]:51234", Kind.NO_RCPT, b"", b""),
    (
        b"HANGUP after 1.2 from [192.0.2.1]:51234 in tests before SMTP handshake",
        Kind.HANGUP,
        b"",
        b" in tests before SMTP handshake",
    ),
    (b"DISCONNECT [192.0.2.1]:51234", Kind.DISCONNECT, b"", b""),
    (
        b"NOQUEUE: reject: RCPT from [192.0.2.1]:51234: 550 5.7.1 x; from=<a>",
        Kind.REJECT_RCPT,
        b"",
        b": 550 5.7.1 x; from=<a>",
    ),
    (
        b"NOQUEUE: reject: CONNECT from [192.0.2.1]:51234: too many connections",
        Kind.REJECT_CONNECT,
        b"",
        b": too many connections",
    ),
    (
        b"reject: connect from [192.0.2.1]:51234: all screening ports busy",
        Kind.REJECT_CONNECT,
        b"",
        b": all screening ports busy",
    ),
    (
        b"CONTINUE from [192.0.2.1]:51234 to 127.0.0.1:10025: 250 2.1.5 Ok",
        Kind.CONTINUE,
        b"",
        b" to 127.0.0.1:10025: 250 2.1.5 Ok",
    ),
    (b"CONTINUE from [192.0.2.1]:51234 failed: timed out", Kind.CONTINUE, b"", b" failed: timed out"),
    (
        b"RELAY TIME LIMIT from [192.0.2.1]:51234 after 17 bytes in, 4 bytes out",
        Kind.RELAY_LIMIT,
        b"",
        b" after 17 bytes in, 4 bytes out",
    ),
    (
        b"SHADOW from [192.0.2.1]:51234: would have replied: 550 5.5.1 Protocol error",
        Kind.SHADOW,
        b"",
        b": would have replied: 550 5.5.1 Protocol error",
    ),
    (
        b"DEFERRED from [192.0.2.1]:51234: score 2: no_tls 1, helo_address 1",
        Kind.SCORE_DEFERRED,
        b"",
        b": score 2: no_tls 1, helo_address 1",
    ),
    (b"DOUBTFUL from [192.0.2.1]:51234 to 127.0.0.1:26: score 2", Kind.DOUBTFUL, b"", b" to 127.0.0.1:26: score 2"),
    (b"SLOWED from [192.0.2.1]:51234: score 2", Kind.SLOWED, b"", b": score 2"),
]


@pytest.mark.parametrize(("text", "kind", "number", "rest"), LINES, ids=[text[:24].decode() for text, *_ in LINES])
def test_each_line_about_a_client(text: bytes, kind: int, number: bytes, rest: bytes) -> None:
    found = row(HEAD + text)
    assert found[:3] == (b"Nov 22 08:06:46", b"", b"postscreen")
    assert VERBS[found[3]] == kind
    assert found[4:8] == (number, CLIENT, b"192.0.2.1", rest)
    assert not any(found[8:])


def test_a_list_s_answer() -> None:
    found = row(b"Nov 22 08:06:46 mx1 postfix/dnsblog[9]: addr 2001:db8::1 listed by domain zen.example as 127.0.0.2")
    assert found[8:] == (b"2001:db8::1", b"zen.example as 127.0.0.2", b"", b"", b"")


def test_a_warning_and_another_text() -> None:
    assert row(HEAD + b"warning: a: b")[10:] == (b"warning", b"a: b", b"")
    assert row(HEAD + b"entering STRESS mode with 9 connections")[12] == b"entering STRESS mode with 9 connections"


@pytest.mark.parametrize(
    ("stamp", "zone"),
    [
        (b"Nov  2 08:06:46", b""),
        (b"2026-11-02T08:06:46.123456+01:00", b"+01:00"),
        (b"2026-11-02T08:06:46.123456Z", b"Z"),
        (b"2026-11-02T08:06:46+0100", b"+0100"),  # journalctl -o short-iso
        (b"2026-11-02T08:06:46.123456-0530", b"-0530"),  # journalctl -o short-iso-precise
        (b"2026-11-02T08:06:46", b""),
    ],
)
def test_stamps(stamp: bytes, zone: bytes) -> None:
    found = row(stamp + b" mx1 postfix/postscreen[811]: DISCONNECT " + CLIENT)
    assert found[0] == stamp[:15] if zone == b"" and stamp[4:5] != b"-" else stamp[:19]
    assert (found[1], found[3]) == (zone, b"DISCONNECT")


@pytest.mark.parametrize(
    ("tag", "name", "program"),
    [
        ("postfix/postscreen", "", b"postscreen"),
        ("postfix-in/postscreen", "", b"postscreen"),  # a second instance
        ("postfix-mx-in/postscreen", "", b"postscreen"),
        ("postfix-mx.example.com/postscreen", "", b"postscreen"),
        ("postfix-a_b+c@d:e/dnsblog", "", b"dnsblog"),  # all that postmulti takes
        ("postfix/smtp/postscreen", "", b"postscreen"),  # a service with its own syslog_name
        ("mx/postscreen", "", b"postscreen"),  # and any syslog_name
        ("a/b/c/d/e/f/tlsproxy", "", b"tlsproxy"),
        ("x" * 190 + "/postscreen", "", b"postscreen"),
        ("fastscreen", "", b""),
        ("fastscreen/dnsblog", "", b"dnsblog"),
        ("mx", "mx", b""),
        ("mx/postscreen", "mx", b"postscreen"),
        ("mail/relay", "mail/relay", b""),
        ("mail/dnsblog", "mail/relay", b"dnsblog"),
        ("postfix/postscreen", "mx", b"postscreen"),
    ],
)
def test_idents_that_are_ours(tag: str, name: str, program: bytes) -> None:
    found = row(b"Nov 22 08:06:46 mx1 %b[811]: DISCONNECT %b" % (tag.encode(), CLIENT), name)
    assert (found[2], found[3]) == (program, b"DISCONNECT")


@pytest.mark.parametrize(
    "tag",
    [
        "postfix",
        "postfix/smtpd",
        "sshd",
        "postscreen",
        "/postscreen",
        "x[1]/postscreen",
        "mx/postscreens",
        "a b/postscreen",
    ],
)
def test_idents_that_are_not(tag: str) -> None:
    assert not any(row(b"Nov 22 08:06:46 mx1 %b[811]: DISCONNECT %b" % (tag.encode(), CLIENT)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\xff\x1b[31m",
        b"x" * 1_000_000,
        HEAD + b"PREGREET 9 after 0 from [192.0.2.1]:51234: " + HEAD + b"DISCONNECT [192.0.2.2]:25",
        HEAD + b"DNSBL rank 999999999999999 for [192.0.2.1]:1",
        HEAD + b"DISCONNECT [" + b"1" * 200 + b"]:1",
    ],
)
def test_hostile_lines_are_one_row_each(line: bytes) -> None:
    assert len(pattern().findall(line + b"\n" + HEAD + b"DISCONNECT " + CLIENT + b"\n")) == 2


def test_what_a_client_said_is_no_line_of_its_own() -> None:
    forged = b"NOQUEUE: reject: RCPT from [203.0.113.9]:1: 550 x; from=<postfix/postscreen[1]: PASS OLD [192.0.2.9]:1>"
    assert row(HEAD + b"PREGREET 100 after 0 from [192.0.2.1]:51234: " + forged)[3:7] == (
        b"PREGREET",
        b"100",
        CLIENT,
        b"192.0.2.1",
    )
    assert row(HEAD + b"client said " + forged)[3] == b""


@pytest.mark.parametrize("stamps", [False, True], ids=["traditional", "rfc3339"])
@pytest.mark.parametrize(("ident", "name"), [("postfix/postscreen", ""), ("fastscreen", ""), ("door", "door")])
def test_what_fastscreen_writes_is_read(stamps: bool, ident: str, name: str) -> None:
    log = Log(ident, rfc3339=stamps, host="mx1.example.com", pid=811)
    log.info("PASS OLD [2001:db8::1]:51234")
    log.warning("descriptors ran out")
    first, second = pattern(name).findall(log.lines())
    assert first[3:7] == (b"PASS OLD", b"", b"[2001:db8::1]:51234", b"2001:db8::1")
    assert second[10:12] == (b"warning", b"descriptors ran out")


@pytest.mark.parametrize("head", [b"", b"Nov 22 08:06:46 mx1 postfix/postscreen[811]: "], ids=["file", "syslog"])
@pytest.mark.parametrize(
    ("ident", "name"), [("postfix/postscreen", ""), ("fastscreen", ""), ("mail/relay", "mail/relay")]
)
def test_json_is_read_as_the_text_is(ident: str, name: str, head: bytes) -> None:
    log = Log(ident, json=True, host="mx1", pid=811)
    log.info('PREGREET 11 after 0.1 from [192.0.2.1]:51234: EHLO "\\x\\r\\n')
    log.warning("descriptors ran out")
    other = b"Nov 22 08:06:46 mx1 postfix/smtpd[9]: connect from x[192.0.2.1]\n"
    block = other.join(head + line for line in log.lines().splitlines(keepends=True))
    first, between, second = reader(name)(block)
    assert len(first[0]) == 19
    assert first[1] == b"+00:00"
    assert first[3:8] == (b"PREGREET", b"11", CLIENT, b"192.0.2.1", b': EHLO "\\x\\r\\n')
    assert not any(between)
    assert second[10:12] == (b"warning", b"descriptors ran out")


OBJECT = (
    b'{"time":"2026-11-22T08:06:46+00:00","host":"h","program":"fastscreen","pid":1,"message":"PASS OLD %b"}' % CLIENT
)


@pytest.mark.parametrize(
    "line",
    [
        HEAD + b"PREGREET 100 after 0 from [192.0.2.9]:1: " + OBJECT,
        b"Nov 22 08:06:46 mx1 postfix/smtpd[1]: said " + OBJECT,
        OBJECT.replace(b'"fastscreen"', b'"smtpd"'),
        OBJECT[:-1],
        OBJECT.replace(b'"pid":1', b'"pid":"1"'),
        OBJECT.replace(b'"host":"h",', b""),
        b'{"time":"' + b"[" * 60_000 + b"}",
    ],
)
def test_what_only_looks_like_our_json(line: bytes) -> None:
    (found,) = reader()(line + b"\n")
    assert found[3] in (b"", b"PREGREET")


def test_a_line_s_end_in_json_makes_no_second_line() -> None:
    forged = OBJECT.replace(b'"message":"', b'"message":"DISCONNECT [192.0.2.9]:1\\n')
    assert len(reader()(forged + b"\n")) == 1
