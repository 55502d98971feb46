"""Forms that lines come in elsewhere: each is read as the line of the log file that it would have been."""

import json
from pathlib import Path

import pytest
from reportlog import NOON

from fastscreen.report.files import open_sorted
from fastscreen.report.formats import MAX_REPEATED, normalize
from fastscreen.report.lines import reader
from fastscreen.report.summary import summarize
from fastscreen.report.tally import Tally
from fastscreen.report.timestamps import Clock

TEXT = b"PREGREET 11 after 0.1 from [192.0.2.1]:5: EHLO <22>1 x\\r\\n"
LISTED = b"addr 192.0.2.1 listed by domain bl.example as 127.0.0.2"
ROW = (b"PREGREET", b"11", b"[192.0.2.1]:5", b"192.0.2.1", b": EHLO <22>1 x\\r\\n")


def entry(**fields: object) -> bytes:
    known: dict[str, object] = {
        "__CURSOR": "s=1",
        "MESSAGE": TEXT.decode(),
        "SYSLOG_IDENTIFIER": "postfix/postscreen",
        "_PID": "811",
        "__REALTIME_TIMESTAMP": "1795766401123456",
        "_HOSTNAME": "mx1",
    }
    return json.dumps({name: value for name, value in (known | fields).items() if value is not None}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"<22>1 2026-11-27T08:00:01.123456+00:00 mx1 postfix/postscreen 811 - -  %b" % TEXT,
        b"<22>1 2026-11-27T08:00:01Z mx1 postfix/postscreen - ID47 - \xef\xbb\xbf%b" % TEXT,
        b'<22>1 2026-11-27T08:00:01+00:00 mx1 postfix/postscreen 811 - [a b="\\"\\] c"][d] %b' % TEXT,
        b"<22>2026-11-27T08:00:01+0000 mx1 postfix/postscreen[811]: %b" % TEXT,
        b"2026-11-27T08:00:01+0000 mx1 postfix/postscreen[811]: %b\r" % TEXT,
        entry(),
        entry(SYSLOG_PID="811", _PID=None, _HOSTNAME=None),
        entry(MESSAGE=list(TEXT)),
    ],
)
def test_forms(line: bytes) -> None:
    other = b"2026-11-27T08:00:00Z mx1 cron[1]: x"
    for lines in ((line,), (other, line), (line, other)):
        rows = reader()(b"\n".join(lines) + b"\n")
        found = rows.pop(lines.index(line))
        assert not any(field for row in rows for field in row)
        assert found[0] == b"2026-11-27T08:00:01"
        assert found[3:8] == ROW


@pytest.mark.parametrize(
    "line",
    [
        entry(MESSAGE=None),
        entry(__REALTIME_TIMESTAMP="soon"),
        entry(__REALTIME_TIMESTAMP="9" * 40),
        entry(MESSAGE=[256]),
        b'{"__REALTIME_TIMESTAMP"}',
        b"<22>1 2026-11-27T08:00:01Z mx1 postfix/smtpd 811 - - NOQUEUE: <22>1 2026-11-27T08:00:01Z mx1 "
        b"postfix/postscreen 811 - - " + TEXT,
        b"2026-11-27T08:00:01Z mx1 x[1]: " + entry(),
        b"2026-11-27T08:00:01Z mx1 x[1]: postfix/postscreen[811]: message repeated 3 times: [ " + TEXT + b"]",
    ],
)
def test_what_only_looks_like_one(line: bytes) -> None:
    assert [any(row[2:]) for row in reader()(line + b"\n")] == [False]


LOGS = Path(__file__).parent.parent / "logs"
TOTALS = {"connect": 3, "disconnect": 2, "pass_new": 1, "pregreet": 2, "dnsbl": 1, "hangup": 1, "reject_rcpt": 1}
PLAIN = (LOGS / "multi-dash.log").read_bytes()
ZONED = "2026-11-28T10:00:00.123456789"


def totals(content: bytes) -> dict[str, int]:
    tally = Tally()
    tally.add(reader()(content), Clock(NOON))
    tally.finish()
    return {kind: count for kind, count in summarize(tally, host="", period="").totals.items() if count}


@pytest.mark.parametrize("name", ["multi-dash", "compose", "cri", "docker-json", "busybox"])
def test_files_of_containers_and_small_systems(name: str) -> None:
    """Samples of Docker Compose, Kubernetes, Docker and Alpine; and one of an instance with dashes in its name."""
    assert totals((LOGS / f"{name}.log").read_bytes()) == TOTALS


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        f"{ZONED}Z ",  # docker logs -t
        f"{ZONED}+01:00 stderr F ",
        f"postfix-1  | {ZONED}Z ",  # docker compose logs -t
        "mail.example.com-postfix_1 | ",
        "[pod/mail-0/postfix] ",  # kubectl logs --prefix
        f"[pod/mail-0/postfix] {ZONED}Z ",
        "<22>",
    ],
)
@pytest.mark.parametrize(
    ("stamp", "to"),
    [
        ("Nov 28 10:00:00 server ", "Nov 28 10:00:00 server "),
        ("Nov 28 10:00:00 server ", "2026-11-28T10:00:00.5+01:00 server "),
        ("Nov 28 10:00:00 server ", "Nov 28 10:00:00 server mail.info "),
        ("Nov 28 10:00:00 server ", "Sat Nov 28 10:00:00 2026 mail.info "),  # OpenWrt's logread
    ],
)
def test_prefixes(prefix: str, stamp: str, to: str) -> None:
    lines = PLAIN.replace(stamp.encode(), to.encode()).splitlines(keepends=True)
    assert totals(b"".join(prefix.encode() + line for line in lines)) == TOTALS


@pytest.mark.parametrize("form", ["json", "text"])
def test_own_lines_in_a_container(form: str) -> None:
    text = (
        b'{"time":"2026-11-28T10:00:00Z","host":"m","program":"fastscreen","pid":1,"message":"PASS OLD [192.0.2.1]:5"}'
        if form == "json"
        else b"2026-11-28T10:00:00+00:00 mx fastscreen[17]: PASS OLD [192.0.2.1]:5"
    )
    docker = json.dumps({"log": text.decode() + "\n", "stream": "stderr", "time": ZONED}).encode()
    for line in (text, b"mx-1 | " + text, b"%bZ stdout F %b" % (ZONED.encode(), text), docker.replace(b": ", b":", 1)):
        assert totals(line + b"\n") == {"pass_old": 1}, line


@pytest.mark.parametrize(
    "line",
    [
        b"Nov 28 10:00:00 mx x[1]: y | Nov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1",
        b"Nov 28 10:00:00 mx x[1]: %bZ stdout F Nov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1"
        % ZONED.encode(),
        b'{"log":"Nov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1',
        b'{"log":"x\\nNov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1\\n"}',
        b'{"log":17,"x":"Nov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1"}',
        b"Nov 28 10:00:00 mx sshd[1]: x mail.info postfix/postscreen[1]: PASS OLD [192.0.2.1]:1",
        b"postfix/postscreen[1]: PASS OLD | Nov 28 10:00:00 mx postfix/postscreen[1]: PASS OLD [192.0.2.1]:1",
    ],
)
def test_what_only_looks_like_a_container_s(line: bytes) -> None:
    assert totals(line + b"\n") == {}


def test_a_journal_s_message_of_two_lines_is_one() -> None:
    assert len(reader()(entry(MESSAGE="a\nDISCONNECT [192.0.2.9]:1") + b"\n")) == 1


def test_a_line_that_was_counted_instead_of_written() -> None:
    head = b"Nov 27 08:00:01 mx1 postfix/dnsblog[811]: "
    rows = reader()(head + LISTED + b"\n" + head + b"message repeated 3 times: [ " + LISTED + b"]\n")
    assert [row[8:10] for row in rows] == [(b"192.0.2.1", b"bl.example as 127.0.0.2")] * 4


def test_how_often_is_bounded() -> None:
    line = b"Nov 27 08:00:01 mx1 postfix/dnsblog[811]: message repeated 999999999 times: [ x]\n"
    assert normalize(line).count(b"\n") == MAX_REPEATED


def test_they_are_put_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(entry() + b"\n")
    (tmp_path / "b").write_bytes(b"<22>1 2026-11-26T08:00:01Z mx1 postfix/postscreen 811 - - " + TEXT + b"\n")
    opened = open_sorted([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [Path(log.name).name for log in opened] == ["b", "a"]
    for log in opened:
        log.close()
