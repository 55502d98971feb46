"""Feedback from the MTA's log: which lines count, which session they belong to, and what the memory learns of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

import pytest

from fastscreen.config.model import Feedback as Settings
from fastscreen.feedback import feedback as module
from fastscreen.feedback import handoffs, mta_sessions
from fastscreen.feedback.feedback import Feedback
from fastscreen.feedback.handoffs import Unknown
from fastscreen.feedback.source import SourceError
from fastscreen.process.conditions import SIZE, Conditions, Kind

HEAD = "Nov 30 15:57:11 mx handoff/"
VICTIM, FORGER = "192.0.2.1", "198.51.100.66"
PORT = 53675
DATE = "Nov 30 15:57:11 mx "
ACCEPTED = (0, 2)
REJECTED = (256, 0)
ONCE = (128, 0)
WEAK = (0, 1)
SPAM = r"rspamd\[\d+\]: .*?; spam; queue (?P<queue>\w+)$"
SPAM_OF_CLIENT = r"spamfilter\[\d+\]: spam from \[(?P<address>[^\]]*)\]:(?P<port>\d+)$"


def packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


class Log:
    """A log in memory, as a source. error: what reading it ends with."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.behind = self.skipped = 0
        self.error = ""
        self.closed = 0

    def read(self) -> list[bytes]:
        if self.error:
            raise SourceError(self.error)
        found, self.waiting = self.waiting, []
        return found

    def close(self) -> None:
        self.closed += 1


class Bench:
    """Feedback with a clock of its own, and what the memory has learned."""

    def __init__(self, spam: str = "", log: str = "/var/log/mail.log") -> None:
        self.now = 1000.0
        self.log = Log()
        self.learned: dict[bytes, list[tuple[int, int]]] = {}
        self.said: list[str] = []
        self.conditions = Conditions(memoryview(bytearray(SIZE)), lambda: 1.0)
        self.feedback = Feedback(
            Settings(log=log, spam=spam),
            self.conditions,
            self._note,
            info=self.said.append,
            warn=self.said.append,
            timer=lambda: self.now,
            source=lambda settings: self.log,
        )

    def _note(self, found: dict[bytes, tuple[int, int]]) -> None:
        for address, conduct in found.items():
            self.learned.setdefault(address, []).append(conduct)

    def hand_off(self, address: str = VICTIM, port: int = PORT, good: int = 1, may_be_bad: bool = True) -> None:
        session: Unknown = (packed(address), port, good, may_be_bad)
        self.feedback.add([session])

    def write(self, *lines: str | bytes) -> None:
        """Log lines; of Postfix's smtpd if they do not say whose they are."""
        for line in lines:
            self.log.waiting.append(line if isinstance(line, bytes) else line.encode("latin-1"))
        self.feedback.turn()

    def wait(self, seconds: float = mta_sessions.JOIN_SECONDS) -> None:
        self.now += seconds
        self.feedback.turn()

    def of(self, address: str = VICTIM) -> list[tuple[int, int]]:
        return self.learned.get(packed(address), [])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def smtpd(text: str, pid: int = 8013) -> str:
    return f"{HEAD}smtpd[{pid}]: {text}"


def session(counters: str, *between: str, address: str = VICTIM, port: int | None = PORT, pid: int = 8013) -> list[str]:
    """A session of Postfix. between: lines, in which {client} stands for the client."""
    client = f"unknown[{address}]" + (f":{port}" if port is not None else "")
    texts = ["connect from {client}", *between, "disconnect from {client} " + counters]
    texts = [text.replace("{client}", client) for text in texts]
    return [text if text.startswith(DATE) else smtpd(text, pid) for text in texts]


DELIVERED = "ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"
NO_RELAY = "NOQUEUE: reject: RCPT from {client}: 554 5.7.1 <x@y.test>: Relay access denied; from=<a@b> to=<x@y.test>"
LATER = "NOQUEUE: reject: RCPT from {client}: 450 4.2.0 <x@y.test>: Recipient address rejected: Greylisted; from=<a@b>"
CLIENT = "8112321C895: client={client}"
CLEANUP = DATE + "postfix/cleanup[8015]: 8112321C895: "
OF_MILTER = CLEANUP + "milter-reject: END-OF-MESSAGE from {client}: 5.7.1 Spam; from=<a@b.test> to=<c@d.test>"
OF_CHECKS = CLEANUP + "reject: header Subject: forbidden from {client}; from=<a@b.test>: 5.7.1 no"
QUEUED = DATE + "postfix/qmgr[8004]: 8112321C895: from=<a@b.test>, size=210, nrcpt=1 (queue active)"


@pytest.mark.parametrize("port", [PORT, None], ids=["with ports", "without ports"])
@pytest.mark.parametrize(
    ("counters", "between", "expected"),
    [
        (DELIVERED, [], ACCEPTED),
        ("ehlo=1 mail=2 rcpt=2 data=2 commands=7", [], ACCEPTED),
        (DELIVERED, [CLIENT, QUEUED], ACCEPTED),
        ("ehlo=1 mail=1 rcpt=1 bdat=1 quit=1 commands=5", [CLIENT, QUEUED], ACCEPTED),
        ("ehlo=1 mail=1 rcpt=1 bdat=1 commands=4", [CLIENT], None),  # perhaps not the last chunk
        ("ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4", [NO_RELAY], ONCE),
        ("ehlo=1 mail=1 rcpt=0/3 quit=1 commands=3/6", [NO_RELAY] * 3, REJECTED),
        ("ehlo=1 mail=1 rcpt=3/6 data=1 commands=8", [NO_RELAY] * 3, REJECTED),
        ("ehlo=1 mail=1 rcpt=4/7 data=1 commands=8", [NO_RELAY] * 3, ACCEPTED),
        ("ehlo=1 mail=1 rcpt=1/2 data=1 commands=5/6", [NO_RELAY], ACCEPTED),
        ("ehlo=1 mail=1 rcpt=0/5 commands=2/7", [LATER] * 5, None),  # greylisted
        ("ehlo=1 quit=1 commands=2", [], None),
        ("ehlo=1 mail=1 rcpt=1 data=0/1 commands=4/5", [CLIENT, OF_MILTER], ONCE),
        ("ehlo=1 mail=1 rcpt=1 data=0/1 commands=4/5", [CLIENT, OF_MILTER.replace("5.7.1", "4.7.1")], None),
        ("ehlo=1 mail=1 rcpt=1 data=0/1 commands=4/5", [CLIENT, OF_CHECKS], ONCE),
        (DELIVERED, [CLIENT, OF_CHECKS.replace("reject", "discard", 1)], None),
        (DELIVERED, [CLIENT, OF_CHECKS.replace("reject", "hold", 1)], None),
        (DELIVERED, ["NOQUEUE: discard: RCPT from {client}: <c@d.test>: Recipient address triggers DISCARD"], None),
        (DELIVERED, ["NOQUEUE: reject_warning: RCPT from {client}: 554 5.7.1 Service unavailable"], ACCEPTED),
        ("ehlo=1 mail=0/1 commands=1/2", ["NOQUEUE: milter-reject: MAIL from {client}: 550 5.7.1 no; from=<a>"], ONCE),
        ("ehlo=1 mail=1 rcpt=1 data=0/1 commands=4", ["proxy-reject: END-OF-MESSAGE: 554 5.7.0 Reject; from=<>"], ONCE),
    ],
)  # fmt: skip
def test_outcomes(
    bench: Bench, port: int | None, counters: str, between: list[str], expected: tuple[int, int] | None
) -> None:
    """None: neither good nor bad, though a hand-off alone would have been good."""
    bench.hand_off()
    bench.write(*session(counters, *between, port=port))
    assert bench.of() == []
    bench.wait()
    assert bench.of() == ([] if expected is None else [expected])
    bench.wait(handoffs.WAIT_SECONDS)  # and nothing more comes of this hand-off
    assert bench.of() == ([] if expected is None else [expected])


def test_without_an_outcome_a_session_counts_as_without_feedback(bench: Bench) -> None:
    bench.hand_off()
    bench.hand_off(FORGER, good=0)
    bench.wait(handoffs.WAIT_SECONDS - 1)
    assert bench.learned == {}
    bench.wait(1)
    assert bench.of() == [WEAK]
    assert bench.of(FORGER) == []
    assert bench.feedback.stats().unknown == 2


@pytest.mark.parametrize("first", ["record", "log"])
def test_the_record_may_come_after_the_log(bench: Bench, first: str) -> None:
    for what in (["record", "log"], ["log", "record"])[first == "log"]:
        if what == "record":
            bench.hand_off()
        else:
            bench.write(*session(DELIVERED))
        bench.wait(1)
    bench.wait(1)
    assert bench.of() == [ACCEPTED]


def test_a_client_that_was_not_handed_off_gets_nothing(bench: Bench) -> None:
    bench.hand_off(port=PORT + 1)
    bench.write(*session(DELIVERED), *session(DELIVERED, address=FORGER, pid=2))
    bench.wait()
    assert bench.learned == {}
    assert bench.feedback.stats().foreign == 2
    bench.hand_off()  # too late: this is another session
    bench.wait(3)
    assert bench.learned == {}


def test_one_session_gets_one_outcome(bench: Bench) -> None:
    bench.hand_off()
    for _ in range(3):
        bench.write(*session("ehlo=1 mail=1 rcpt=0/3 commands=5", *[NO_RELAY] * 3), *session(DELIVERED))
        bench.wait()
    assert bench.of() == [REJECTED]


def test_without_ports_an_address_with_several_sessions_gets_nothing(bench: Bench) -> None:
    bench.hand_off()
    bench.hand_off(port=PORT + 1)
    bench.write(*session(DELIVERED, port=None))
    bench.wait()
    assert bench.learned == {}
    assert bench.feedback.stats().ambiguous == 1
    bench.write(*session(DELIVERED))
    bench.wait()
    assert bench.of() == [ACCEPTED]


def test_without_ports_a_later_session_is_another_one(bench: Bench) -> None:
    bench.write(*session("ehlo=1 mail=1 rcpt=0/3 commands=5", *[NO_RELAY] * 3, port=None))
    bench.wait(handoffs.LATE_SECONDS + 0.1)
    bench.hand_off()
    bench.wait()
    assert bench.learned == {}


def test_clients_that_are_permitted_are_never_bad(bench: Bench) -> None:
    bench.hand_off(may_be_bad=False)
    bench.write(*session("ehlo=1 mail=1 rcpt=0/3 commands=5", *[NO_RELAY] * 3))
    bench.wait()
    assert bench.learned == {}
    bench.hand_off(may_be_bad=False)
    bench.write(*session("ehlo=1 mail=1 rcpt=1/4 data=1 commands=5", *[NO_RELAY] * 3))
    bench.wait()
    assert bench.of() == [ACCEPTED]


@pytest.mark.parametrize("address", ["2001:db8::1", "::ffff:192.0.2.7"])
def test_ipv6(bench: Bench, address: str) -> None:
    bench.hand_off(address.removeprefix("::ffff:"))
    bench.write(*session(DELIVERED, address=address))
    bench.wait()
    assert bench.of(address.removeprefix("::ffff:")) == [ACCEPTED]


def test_processes_and_their_clients_are_told_apart(bench: Bench) -> None:
    """Lines of several smtpds alternate; one of them is replaced by another process with the same number."""
    bench.hand_off()
    bench.hand_off(FORGER)
    good = session(DELIVERED)
    bad = session("ehlo=1 mail=1 rcpt=0/3 commands=5", *[NO_RELAY] * 3, address=FORGER, pid=9)
    bench.write(bad[0], good[0], *bad[1:-1], good[1], bad[-1])
    bench.wait()
    assert (bench.of(), bench.of(FORGER)) == ([ACCEPTED], [REJECTED])
    bench.hand_off()
    bench.hand_off(FORGER)
    bad = session("ehlo=1 mail=1 rcpt=0/3 commands=5", *[NO_RELAY] * 3, address=FORGER)
    bench.write(*bad[:-1], *good)  # the first one was killed
    bench.wait()
    assert bench.of() == [ACCEPTED] * 2


# ---- spam verdicts


def verdict(queue: str = "8112321C895", program: str = "rspamd[77]") -> str:
    return f"{DATE}{program}: <abc>; spam; queue {queue}"


@pytest.mark.parametrize("when", ["before", "while it waits", "afterwards"])
def test_verdict_by_queue_id(when: str) -> None:
    bench = Bench(SPAM)
    bench.hand_off()
    lines = session(DELIVERED, CLIENT, QUEUED)
    if when == "before":
        lines.insert(2, verdict())
    bench.write(*lines)
    bench.wait()
    bench.wait()
    if when == "while it waits":
        assert bench.of() == []
        bench.write(verdict())
    elif when == "afterwards":
        bench.wait(module.SPAM_SECONDS)
        bench.write(verdict())
    assert bench.of() == [*([ACCEPTED] if when == "afterwards" else []), REJECTED]
    bench.write(verdict())
    bench.wait(module.SPAM_SECONDS)
    assert bench.of()[-1:] == [REJECTED]
    assert len(bench.of()) == 1 + (when == "afterwards")
    assert bench.feedback.stats().spam == 1


def test_accepted_mail_waits_for_a_verdict() -> None:
    bench = Bench(SPAM)
    bench.hand_off()
    bench.write(*session(DELIVERED, CLIENT, QUEUED))
    bench.wait()
    bench.wait(module.SPAM_SECONDS - 2.1)
    assert bench.of() == []
    bench.wait(0.2)
    assert bench.of() == [ACCEPTED]


@pytest.mark.parametrize("when", ["before", "afterwards", "no end"])
def test_verdict_by_address_and_port(when: str) -> None:
    bench = Bench(SPAM_OF_CLIENT)
    bench.hand_off()
    line = f"{DATE}spamfilter[1]: spam from [{VICTIM}]:{PORT}"
    if when != "afterwards":
        bench.write(line)
    if when != "no end":
        bench.write(*session(DELIVERED, port=None))
    bench.wait()
    if when == "afterwards":
        bench.write(line)
    if when == "no end":
        bench.wait(handoffs.WAIT_SECONDS)
    assert bench.of() == [REJECTED]


@pytest.mark.parametrize(
    "line",
    [
        verdict("8112321C896"),
        verdict(program="sshd[1]: rspamd[77]"),
        f"{DATE}sshd[1]: Invalid user {verdict().removeprefix(DATE)}",
        f"{DATE}spamfilter[1]: spam from [{FORGER}]:{PORT}",
    ],
)
def test_verdicts_about_others(line: str) -> None:
    """Another message; and text of a peer in a line of another program."""
    bench = Bench(SPAM)
    bench.hand_off()
    bench.write(*session(DELIVERED, CLIENT, QUEUED), line)
    bench.wait(module.SPAM_SECONDS)
    bench.wait(module.SPAM_SECONDS)
    assert bench.of() == [ACCEPTED]


def test_address_and_queue_id_must_belong_together() -> None:
    bench = Bench(r"rspamd\[\d+\]: ip (?P<address>\S+) queue (?P<queue>\w+)$")
    bench.hand_off()
    bench.write(*session(DELIVERED, CLIENT, QUEUED))
    bench.wait()
    bench.write(f"{DATE}rspamd[1]: ip {FORGER} queue 8112321C895")
    assert bench.of() == []
    bench.write(f"{DATE}rspamd[1]: ip {VICTIM} queue 8112321C895")
    assert bench.of() == [REJECTED]


def test_a_slow_expression_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponential in the length of a line: no line takes longer than allowed, all of a turn neither."""
    bench = Bench(r"rspamd\[\d+\]: (?:(?:a|aa)+)+(?P<queue>b)$")
    bench.hand_off()
    bench.write(*[f"{DATE}rspamd[1]: {'a' * 2000}c"] * 200, *session(DELIVERED))
    assert bench.feedback.stats().slow == 200
    assert [line for line in bench.said if line.startswith("feedback.spam: ")] == [
        "feedback.spam: the expression needs more than 5 ms for a line, or too long for all of them: "
        "such lines do not match"
    ]
    bench.wait(module.SPAM_SECONDS)
    bench.wait(module.SPAM_SECONDS)
    assert bench.of() == [ACCEPTED]


# ---- forged lines

REJECT = f"NOQUEUE: reject: RCPT from unknown[{VICTIM}]:{PORT}: 554 5.7.1 no; from=<a> to=<b>"
GOODBYE = f"disconnect from unknown[{VICTIM}]:{PORT} ehlo=1 mail=1 rcpt=0/3 quit=1 commands=3/6"
TEXTS = [
    REJECT,
    GOODBYE,
    f"x\n{HEAD}smtpd[8013]: {GOODBYE}",
    f"> {HEAD}smtpd[8013]: {GOODBYE}",
    f"8112321C895: reject: header Subject: x from unknown[{VICTIM}]:{PORT}; from=<>: 5.7.1 no",
    f"x]: 554 5.7.1 unknown[{VICTIM}]:{PORT}: 554 5.7.1",
    f"unknown[{VICTIM}]:{PORT}",
    f"8112321C895: client=unknown[{VICTIM}]:{PORT}",
    "x (queue active)",
    verdict(),
]
"""What a client sends as a name, an address or a header."""

FORGERY = f"unknown[{FORGER}]:40000"
OF_FORGER = DATE + "postfix/cleanup[1]: 7AAAAAAAAAA: "
FIELDS = "from=<{text}> to=<{text}> proto=ESMTP helo=<{text}>"
PLACES = [
    f"connect from {FORGERY} {{text}}",
    f"NOQUEUE: reject: RCPT from {FORGERY}: 554 5.7.1 <{{text}}>: Relay access denied; {FIELDS}",
    f"NOQUEUE: reject: EHLO from {FORGERY}: 504 5.5.2 <{{text}}>: Helo command rejected; {FIELDS}",
    f"improper command pipelining after EHLO from {FORGERY}: {{text}}",
    f"non-SMTP command from {FORGERY}: {{text}}",
    f"warning: {FORGERY}: SASL LOGIN authentication failed: {{text}}",
    f"warning: Illegal address syntax from {FORGERY} in RCPT command: <{{text}}>",
    f"too many errors after {{text}} from {FORGERY}",
    f"NOQUEUE: filter: RCPT from {FORGERY}: <{{text}}>: Sender address triggers FILTER x; {FIELDS}",
    OF_FORGER + "message-id=<{text}>",
    OF_FORGER + f"reject: header Subject: {{text}} from {FORGERY}; {FIELDS}: 5.7.1 no",
    OF_FORGER + f"warning: header Subject: {{text}} from {FORGERY}; {FIELDS}",
    DATE + "postfix/qmgr[1]: 7AAAAAAAAAA: from=<{text}>, size=210, nrcpt=1 (queue active)",
    DATE + "postfix/smtp[1]: 7AAAAAAAAAA: to=<{text}>, relay=none, status=bounced (host said: {text})",
    DATE + f"sshd[1]: Invalid user {{text}} from {FORGER}",
    DATE + f"named[1]: client {FORGER}#1 ({{text}}): query",
    DATE + "{text}",
]  # fmt: skip
"""Where programs write what peers sent."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("port", [PORT, None], ids=["with ports", "without ports"])
def test_text_of_a_client_harms_no_other_client(port: int | None, text: str, place: str) -> None:
    """A client puts the lines of others into all that it sends, while a good client is there."""
    bench = Bench(SPAM)
    bench.hand_off()
    bench.hand_off(FORGER, 40000)
    # Postfix replaces control characters by "?", syslogd escapes them.
    line = place.format(text=text.replace("\n", "?"))
    forged = line if line.startswith(DATE) else smtpd(line, 66)
    lines = session(DELIVERED, CLIENT, QUEUED, port=port)
    bench.write(forged, lines[0], forged, *lines[1:-1], forged, lines[-1], forged)
    bench.wait()
    bench.wait(module.SPAM_SECONDS)
    assert bench.of() == [ACCEPTED]
    assert all(good < 2 for _, good in bench.of(FORGER))


@pytest.mark.parametrize("text", [REJECT, GOODBYE])
def test_a_long_line_is_not_divided(text: str) -> None:
    """The end of a line that is too long is no line of its own."""
    bench = Bench()
    bench.hand_off()
    bench.write(smtpd(f"non-SMTP command from unknown[{FORGER}]:1: " + "x" * 5000 + f"{HEAD}smtpd[1]: {text}"))
    bench.wait()
    assert bench.learned == {}


def test_a_line_of_a_local_user_is_bounded(bench: Bench) -> None:
    """Whoever can write to the log can say anything, but only of a session that is there, and once of each: not about
    others, and an accepted message is the most that it can claim."""
    for _ in range(100):
        bench.write(*session(DELIVERED), *session("rcpt=0/3", *[NO_RELAY] * 3), *session("data=999999999"))
        bench.wait()
    assert bench.learned == {}
    bench.hand_off()
    bench.hand_off(FORGER)
    for _ in range(100):
        bench.write(*session("data=999999999", "8112321C895: client={client}", *[QUEUED] * 50))
        bench.wait()
    assert bench.learned == {packed(VICTIM): [ACCEPTED]}


@pytest.mark.parametrize(
    "line",
    [
        "connect from unknown[]:1",
        "connect from unknown[999.1.1.1]",
        f"connect from unknown[{VICTIM}]:99999",
        f"disconnect from unknown[{VICTIM}]:{PORT} data=1; rcpt",
        f"disconnect from a b[{VICTIM}]:{PORT} data=1",
        f"disconnect from unknown[{VICTIM}]:{PORT} data=1 {'x=1 ' * 100}",
        f"disconnect from unknown[fe80::1%eth0]:{PORT} data=1",
        f" disconnect from unknown[{VICTIM}]:{PORT} data=1",
        f"disconnect from unknown[{VICTIM}]:{PORT} data=1\0",
        f"disconnect from \xff[{VICTIM}]:{PORT} data=1",
    ],
)
def test_lines_that_are_not_of_postfix(bench: Bench, line: str) -> None:
    bench.hand_off()
    bench.write(smtpd(line))
    bench.wait()
    assert bench.learned == {}


@pytest.mark.parametrize(
    "head",
    [
        "Nov  1 00:00:00 mx postfix/smtpd[1]: ",
        "2026-11-30T15:57:11.123456+01:00 mx.example.test postfix/smtpd[1]: ",
        "2026-11-30T15:57:11Z mx smtpd[1]: ",
        "Nov 30 15:57:11 mx postfix/submission/smtpd[1234567]: ",
    ],
)
def test_headers(bench: Bench, head: str) -> None:
    bench.hand_off()
    bench.write(f"{head}disconnect from mail.example.test[{VICTIM}]:{PORT} {DELIVERED}")
    bench.wait()
    assert bench.of() == [ACCEPTED]


@pytest.mark.parametrize(
    "head", ["", "postfix/smtpd[1]: ", "Nov 30 mx postfix/smtpd[1]: ", "x Nov 30 15:57:11 mx smtpd[1]: "]
)
def test_lines_without_a_header(bench: Bench, head: str) -> None:
    bench.hand_off()
    bench.write(f"{head}disconnect from mail.example.test[{VICTIM}]:{PORT} {DELIVERED}")
    bench.wait()
    assert bench.learned == {}


def entry(text: object, program: object = "postfix/smtpd", **fields: object) -> bytes:
    found = {"MESSAGE": text, "SYSLOG_IDENTIFIER": program, "_HOSTNAME": "mx", "_PID": "8013", **fields}
    return json.dumps(found).encode()


@pytest.mark.parametrize("form", [str, lambda text: list(text.encode())])
def test_journal(form: Callable[[str], object]) -> None:
    """Text, and the list of bytes that the journal makes of what is not UTF-8."""
    bench = Bench(SPAM, log="journal")
    bench.hand_off()
    bench.hand_off(FORGER)
    bench.write(
        *(entry(form(line.split("]: ", 1)[1])) for line in session("rcpt=0/3", *[NO_RELAY] * 3)),
        *(entry(form(line.split("]: ", 1)[1]), _PID="9") for line in session(DELIVERED, CLIENT, address=FORGER)),
        entry(form("<abc>; spam; queue 8112321C895"), "rspamd"),
    )
    bench.wait()
    assert (bench.of(), bench.of(FORGER)) == ([REJECTED], [REJECTED])


@pytest.mark.parametrize(
    "raw",
    [
        b"x" * 30,
        b"[" * 5000,
        b'{"MESSAGE": null, "SYSLOG_IDENTIFIER": "postfix/smtpd"}',
        b'{"MESSAGE": [1, 2, 300], "SYSLOG_IDENTIFIER": ["a", "b"]}',
        b'{"MESSAGE": {"a": 1}, "x": "0123456789"}',
        b'["0123456789012345678901234567890"]',
        entry("x" * 100, "postfix/smtpd", _PID="-1", SYSLOG_PID="99999999999999"),
        entry("\ud800" * 20),
    ],
)
def test_entries_that_say_nothing(raw: bytes) -> None:
    bench = Bench(log="journal")
    bench.write(raw)
    assert bench.feedback.stats().lines == 1
    assert bench.feedback.stats().problem == ""


# ---- bounds, faults, the end


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench()
    bench.feedback._hand_offs = handoffs.HandOffs(10)
    bench.feedback._sessions = mta_sessions.MtaSessions(10)
    yield bench


def test_tables_are_bounded(small: Bench) -> None:
    for at in range(100):
        small.hand_off(port=1000 + at)
        client = f"unknown[{VICTIM}]:{at + 1}"
        small.write(smtpd(f"connect from {client}", at), smtpd(f"{at:06}: client={client}", at))
    assert small.feedback.stats().waiting == 10
    assert small.feedback.stats().unknown == 90
    assert len(small.feedback._sessions._open) == len(small.feedback._sessions._queue) == 10
    small.write(*(line for at in range(100) for line in session(DELIVERED, port=at + 1)))
    assert len(small.feedback._sessions.ended) == 10
    assert small.of() == [WEAK] * 90
    small.wait(handoffs.WAIT_SECONDS + 1)
    assert not small.feedback._sessions._queue


def test_an_unreadable_log_is_a_condition(bench: Bench) -> None:
    bench.hand_off()
    bench.log.error = "/var/log/mail.log: cannot be read: Permission denied"
    for _ in range(10):
        bench.wait(1)
    assert [found.text for found in bench.conditions.read()] == [
        "feedback.log: /var/log/mail.log: cannot be read: Permission denied; outcomes of sessions are not known"
    ]
    assert bench.said == ["feedback.log: /var/log/mail.log: cannot be read: Permission denied; retried automatically"]
    assert bench.feedback.stats().problem
    bench.log.error = ""
    bench.wait(module.RETRY_SECONDS)
    assert bench.said[1:] == ["feedback.log: is read again"]
    assert bench.conditions.read() == []
    bench.write(*session(DELIVERED))
    bench.wait()
    assert bench.of() == [ACCEPTED]


def test_an_error_of_ours_is_a_condition_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.log, "read", lambda: 1 / 0)
    bench.wait()
    assert [found.kind for found in bench.conditions.read()] == [Kind.FEEDBACK]


def test_skipped_lines_are_reported_once_a_minute(bench: Bench) -> None:
    for _ in range(5):
        bench.log.skipped += 3 << 20
        bench.wait(20)
    assert bench.said == [
        "feedback.log: 3.1 MB skipped: the log grows faster than it can be read",
        "feedback.log: 9.4 MB skipped: the log grows faster than it can be read",
    ]


def test_another_configuration(bench: Bench) -> None:
    """Sessions that wait are kept; the log is opened again only if something has changed."""
    bench.hand_off()
    bench.feedback.configure(Settings(log="/var/log/mail.log"))
    assert bench.log.closed == 0
    bench.log.error = "gone"
    bench.wait(1)
    bench.log.error = ""
    bench.feedback.configure(Settings(log="/var/log/maillog", spam=SPAM))
    assert bench.log.closed == 1
    assert bench.conditions.read() == []
    bench.write(*session("rcpt=0/3", *[NO_RELAY] * 3))
    bench.wait()
    assert bench.of() == [REJECTED]


def test_at_the_end_nothing_is_lost() -> None:
    bench = Bench(SPAM)
    for port, address in ((PORT, VICTIM), (PORT, FORGER), (PORT, "192.0.2.3")):
        bench.hand_off(address, port)
    bench.write(*session(DELIVERED))
    bench.wait(10)
    bench.log.waiting = [line.encode() for line in session("rcpt=0/3", *[NO_RELAY] * 3, address=FORGER)]
    bench.feedback.close()
    assert (bench.of(), bench.of(FORGER), bench.of("192.0.2.3")) == ([ACCEPTED], [REJECTED], [WEAK])
    assert bench.log.closed == 1


# ---- the expressions of the page

PAGE = Path(__file__).resolve().parents[2] / "docs/score.md"
OF_RSPAMD, OF_AMAVIS = re.findall(r"^ *spam = '(.+)'$", PAGE.read_text(), re.MULTILINE)
RSPAMD = (
    "rspamd[612]: <8f2c1a>; task; rspamd_task_write_log: id: <{id}>, qid: <{queue}>, ip: {address}, from: <{sender}>, "
    "(default: T (add header): [7.10/15.00] [BAYES_SPAM(5.10){{99.99%;}},R_SPF_FAIL(1.00)]), len: 2211, time: 130.1ms"
)
AMAVIS = (
    "amavis[4711]: (04711-03) Blocked SPAM {{DiscardedInbound,Quarantined}}, [{address}]:{port} [{address}] <{sender}> "
    "-> <c@d.test>, quarantine: x, Queue-ID: {queue}, Message-ID: <{id}>, mail_id: x, Hits: 16.2, size: 2211, 1301 ms"
)


@pytest.mark.parametrize(("expression", "line"), [(OF_RSPAMD, RSPAMD), (OF_AMAVIS, AMAVIS)])
def test_expressions_of_the_page(expression: str, line: str) -> None:
    plain = {"address": VICTIM, "port": PORT, "queue": "8112321C895", "id": "x@y", "sender": "a@b.test"}
    ham = line.replace("T (add header)", "F (no action)").replace("Blocked SPAM", "Passed CLEAN")
    lie = f"a>, qid: <8112321C895>, ip: {FORGER}, from: <(default: T (add header), [{VICTIM}]:{PORT} "
    bench = Bench(expression)
    bench.hand_off()
    bench.write(*session(DELIVERED, CLIENT, QUEUED))
    bench.wait()
    bench.write(DATE + ham.format(**plain))
    assert bench.of() == []
    of_another = {**plain, "address": FORGER, "queue": "7AAAAAAAAAA", "id": lie, "sender": lie}
    bench.write(DATE + line.format(**of_another))
    assert bench.of() == []
    bench.write(DATE + line.format(**plain))
    assert bench.of() == [REJECTED]
