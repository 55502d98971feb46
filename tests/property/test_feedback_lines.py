"""The MTA's log, with random input: pieces, bytes, texts of clients, and everything that can happen to a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastscreen.feedback import postfix, syslog
from fastscreen.feedback.log_file import GRACE_SECONDS, LogFile
from fastscreen.feedback.postfix import Client, Disconnected, Queued, Refused
from fastscreen.feedback.source import Splitter

DATE = "Nov 30 15:57:11 mx "
FORGER = Client(bytes([198, 51, 100, 66]), 40000)
WORDS = (
    "disconnect from ", "connect from ", "unknown[192.0.2.1]:53675", " data=0/1", "NOQUEUE: ", "reject: ",
    "milter-reject: ", "RCPT from ", "END-OF-MESSAGE from ", ": 554 5.7.1 ", "8112321C895", ": client=", "[", "]", ": ",
    " ", "\0", "?", "\xff", DATE, "mx postfix/smtpd[1]: ", "; from=<", "(queue active)", "header ",
    ">, size=1, nrcpt=1 (queue active)",
)  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(WORDS), st.text("\0ab01.:[]<>=/ \xff", max_size=5)), max_size=12).map("".join)
"""What a client sends, made of the pieces of the lines that count. Line ends are escaped by Postfix and syslogd."""


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10), st.integers(1, 50))
def test_pieces_make_no_difference(data: bytes, cuts: list[int], most: int) -> None:
    whole = Splitter(most).feed(data)
    splitter = Splitter(most)
    found, at = [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += splitter.feed(data[at:cut])
        at = max(at, cut)
    assert found == whole == [line[:most] for line in data.split(b"\n")[:-1]]


@given(st.one_of(st.binary(max_size=300), TEXT.map(lambda text: (DATE + text).encode("latin-1"))))
def test_no_line_is_an_error(raw: bytes) -> None:
    postfix.read(syslog.of_file(raw))
    if (line := syslog.of_journal(raw)) is not None:
        postfix.read(line)


@given(
    st.sampled_from(["smtpd", "cleanup", "qmgr", "smtp", "postscreen"]),
    st.one_of(TEXT, st.text(max_size=50), st.from_regex(r"(dis)?connect from .*", fullmatch=True)),
)
def test_no_text_is_an_error(program: str, text: str) -> None:
    found = postfix.read(syslog.Line("mx", f"postfix/{program}", 1, text))
    assert found is None or program in ("smtpd", "cleanup", "qmgr")


@given(TEXT, TEXT, st.sampled_from(["RCPT", "MAIL", "EHLO", "DATA", "END-OF-MESSAGE"]), st.sampled_from(["554", "450"]))
def test_a_reject_line_is_about_its_client(name: str, address: str, command: str, code: str) -> None:
    """Whatever a client sends as its name and its addresses."""
    text = f"NOQUEUE: reject: {command} from unknown[198.51.100.66]:40000: {code} 5.7.1 <{address}>: no; helo=<{name}>"
    found = postfix.read(syslog.of_file(f"{DATE}postfix/smtpd[1]: {text}".encode("latin-1")))
    assert found == (Refused(FORGER) if code == "554" else None)


@given(TEXT, st.sampled_from(["reject", "discard", "hold", "warning", "info", "filter"]))
def test_a_header_is_about_its_message(header: str, action: str) -> None:
    text = f"7AAAAAAAAAA: {action}: header Subject: {header} from unknown[198.51.100.66]:40000; from=<a>: 5.7.1 no"
    found = postfix.read(syslog.of_file(f"{DATE}postfix/cleanup[1]: {text}".encode("latin-1")))
    if action in ("reject", "discard", "hold"):
        assert found == Refused(queue="7AAAAAAAAAA", discarded=action != "reject")
    else:
        assert found is None


@given(TEXT)
def test_other_lines_with_text_of_clients(text: str) -> None:
    """Lines of an smtpd that have text of a client at their end, and that do not count."""
    for begin in (
        "improper command pipelining after EHLO from unknown[198.51.100.66]:40000: ",
        "non-SMTP command from unknown[198.51.100.66]:40000: ",
        "warning: unknown[198.51.100.66]:40000: SASL LOGIN authentication failed: ",
        "lost connection after ",
        "fatal: ",
    ):
        assert postfix.read(syslog.of_file(f"{DATE}postfix/smtpd[1]: {begin}{text}".encode("latin-1"))) is None


@given(
    st.ip_addresses(),
    st.integers(0, 65535),
    st.integers(0, 10**9 - 1),
    st.integers(0, 10**9 - 1),
    st.lists(st.sampled_from(["ehlo=1", "mail=2", "quit=1", "auth=0/1", "unknown=0/3", "commands=12/34"]), max_size=6),
)
def test_counters(address: object, port: int, done: int, total: int, others: list[str]) -> None:
    text = " ".join([f"disconnect from unknown[{address}]:{port}", *others, f"rcpt={done}/{total}", f"data={done}"])
    found = postfix.read(syslog.of_file(f"{DATE}smtpd[1]: {text}".encode()))
    client = postfix.client_of(str(address), str(port))
    assert client is not None
    assert found == Disconnected(client, done, total)


@given(st.from_regex(r"[0-9A-F]{6,12}|[0-9A-Za-z]{10,16}", fullmatch=True), TEXT)
def test_queue_ids(queue: str, rest: str) -> None:
    text = f"{queue}: client=unknown[198.51.100.66]:40000"
    for line in (text, f"{text}, sasl_method=PLAIN, sasl_username={rest}"):
        found = postfix.read(syslog.of_file(f"{DATE}smtpd[1]: {line}".encode("latin-1")))
        assert found == Queued(FORGER, queue)


# ---- a file


class LogMachine(RuleBasedStateMachine):
    """A log that is written, rotated and truncated at any moment. Each line is read once, in order, unless it was gone
    before anybody could read it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "mail.log"
        self.path.touch()
        self.now = 0.0
        self.log = LogFile(str(self.path), lambda: self.now)
        self.log.read()
        self.number = self.rotated = 0
        self.begun = b""
        self.missing: list[bytes] = []
        """Lines that were written and not read."""
        self.found: list[bytes] = []

    @rule(count=st.integers(1, 5), half=st.booleans())
    def write(self, count: int, half: bool) -> None:
        lines = [f"line {self.number + at}".encode() for at in range(count)]
        self.number += count
        text = self.begun[5:] + b"\n" if self.begun else b""  # the rest of a line that was begun
        text += b"".join(line + b"\n" for line in lines)
        with self.path.open("ab") as file:
            file.write(text)
            if self.begun:
                self.missing.append(self.begun)
            self.missing += lines
            self.begun = b""
            if half:
                self.number += 1
                self.begun = f"line {self.number - 1}".encode()
                file.write(self.begun[:5])

    @rule()
    def rename(self) -> None:
        """With all that was written before: syslogd writes whole lines."""
        self._finish()
        self.read()
        self.path.rename(self.path.with_name(f"mail.log.{self.rotated}"))
        self.rotated += 1
        self.path.touch()
        self.read()
        self.now += GRACE_SECONDS
        self.read()

    @rule()
    def truncate(self) -> None:
        """What was not read yet is lost, as copytruncate has it."""
        self._finish()
        self.read()
        os.truncate(self.path, 0)

    def _finish(self) -> None:
        if self.begun:
            with self.path.open("ab") as file:
                file.write(self.begun[5:] + b"\n")
            self.missing.append(self.begun)
            self.begun = b""

    @rule()
    def read(self) -> None:
        for _ in range(2):
            self.found += self.log.read()

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def each_line_once(self) -> None:
        assert self.missing[: len(self.found)] == self.found
        del self.missing[: len(self.found)]
        self.found.clear()

    def teardown(self) -> None:
        for _ in range(3):
            self.now += GRACE_SECONDS
            self.read()
        self.each_line_once()
        assert self.missing == []
        self.log.close()
        self.folder.cleanup()


TestLogFile = LogMachine.TestCase
