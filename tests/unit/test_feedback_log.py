"""Following a log file through everything that happens to logs, and the journal through journalctl."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen.feedback import journal, log_file, source
from fastscreen.feedback.journal import Journal
from fastscreen.feedback.log_file import LogFile
from fastscreen.feedback.source import SourceError


class Follower:
    """A log in a folder, followed with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mail.log"
        self.now = 0.0
        self.log: LogFile

    def open(self) -> Follower:
        self.log = LogFile(str(self.path), lambda: self.now)
        return self

    def write(self, text: str | bytes, path: Path | None = None) -> None:
        with (path or self.path).open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def read(self) -> list[str]:
        """All that is there now."""
        found: list[bytes] = []
        while (more := self.log.read()) or self.log.behind:
            found += more
        return [line.decode("latin-1") for line in found]


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    made = Follower(tmp_path)
    made.write("old\n")
    yield made.open()
    made.log.close()


def test_new_lines_only(follower: Follower) -> None:
    follower.write("a\nb\n")
    assert follower.read() == ["a", "b"]
    assert follower.read() == []
    follower.write("c\n")
    assert follower.read() == ["c"]


def test_a_line_that_arrives_in_pieces(follower: Follower) -> None:
    for piece in ("hal", "f", " a line", "\nan"):
        follower.write(piece)
        found = follower.read()
    assert found == ["half a line"]
    follower.write("other\n")
    assert follower.read() == ["another"]


def test_the_rest_of_a_line_is_no_line(tmp_path: Path) -> None:
    """The log is opened while a line is being written: its end may be text of a client."""
    follower = Follower(tmp_path)
    follower.write("begin of a li")
    assert follower.open().read() == []
    follower.write("ne\nnext\n")
    assert follower.read() == ["next"]


def test_long_lines_are_truncated(follower: Follower) -> None:
    follower.write("x" * 3_000_000 + "\n" + "y" * 10_000 + "\nz\n")
    assert [(line[:1], len(line)) for line in follower.read()] == [("x", 4096), ("y", 4096), ("z", 1)]


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_the_end_of_a_long_line_is_no_line(follower: Follower, pieces: int) -> None:
    """A client knows how long lines may be: what it sends stands where a line of its own would begin."""
    limit = log_file.MAX_LINE
    forged = "Nov 30 15:57:11 mx postfix/smtpd[1]: forged ".ljust(limit, "x")
    text = "Nov 30 15:57:11 mx postfix/smtpd[2]: non-SMTP command: ".ljust(limit, "y") + forged * 3 + "\n"
    for at in range(pieces):
        follower.write(text[len(text) * at // pieces : len(text) * (at + 1) // pieces])
        found = follower.read()
    assert found == [text[:limit]]


def test_bytes_of_any_kind(follower: Follower) -> None:
    every = bytes(value for value in range(256) if value != 10)
    follower.write(every + b"\n")
    assert follower.read() == [every.decode("latin-1")]


def test_renamed_and_created_again(follower: Follower) -> None:
    """logrotate: syslogd goes on writing to the old file until it reopens its log."""
    follower.write("1\n")
    old = follower.path.rename(follower.path.with_suffix(".1"))
    assert follower.read() == ["1"]
    follower.write("2\n", old)
    assert follower.read() == ["2"]  # and the new one does not exist yet
    follower.write("4\n")
    assert follower.read() == []
    follower.now += 1
    follower.write("3\n", old)
    assert follower.read() == ["3"]
    assert follower.read() == []
    follower.now += log_file.GRACE_SECONDS
    assert follower.read() == []  # closes the old one
    assert follower.read() == ["4"]
    follower.write("5\n")
    assert follower.read() == ["5"]


def test_copied_and_truncated(follower: Follower) -> None:
    follower.write("1\n2\n")
    assert follower.read() == ["1", "2"]
    os.truncate(follower.path, 0)
    assert follower.read() == []
    follower.write("3\n")
    assert follower.read() == ["3"]


def test_truncated_and_grown_again_between_two_reads(follower: Follower) -> None:
    follower.write("1\n2\n")
    assert follower.read() == ["1", "2"]
    os.truncate(follower.path, 0)
    follower.write("".join(f"new {number}\n" for number in range(10)))
    assert follower.read() == [f"new {number}" for number in range(10)]


def test_truncated_in_the_middle_of_a_line(follower: Follower) -> None:
    follower.write("1\nhalf")
    assert follower.read() == ["1"]
    os.truncate(follower.path, 0)
    follower.write("2\n")
    assert follower.read() == ["2"]


def test_a_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    """All of it is new when it appears."""
    follower = Follower(tmp_path).open()
    with pytest.raises(SourceError, match=r"mail.log: cannot be read: No such file or directory"):
        follower.log.read()
    follower.write("1\n")
    assert follower.read() == ["1"]


def test_not_a_regular_file(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    os.mkfifo(follower.path)
    follower.open()
    with pytest.raises(SourceError, match=r"mail.log: not a regular file"):
        follower.log.read()
    follower.path.unlink()
    follower.path.mkdir()
    with pytest.raises(SourceError, match=r"mail.log: not a regular file"):
        follower.log.read()
    follower.path.rmdir()
    follower.write("old\n")
    assert follower.read() == []  # it was perhaps there all the time, so it is read from its end on


def test_a_log_that_may_not_be_read(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation with the wrong rights. What is in the new file is read once that is possible."""
    follower.path.rename(follower.path.with_suffix(".1"))
    follower.write("1\n")
    assert follower.read() == []
    follower.now += log_file.GRACE_SECONDS
    assert follower.read() == []

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with pytest.raises(SourceError, match=r"mail.log: cannot be read: Permission denied"):
            follower.log.read()
    assert follower.read() == ["1"]


def test_a_flood_is_read_in_turns(follower: Follower) -> None:
    line = "x" * 99 + "\n"
    follower.write(line * 20_000)
    first = follower.log.read()
    assert sum(len(each) + 1 for each in first) <= source.MAX_BYTES
    assert follower.log.behind == 2_000_000 - source.MAX_BYTES
    assert len(first) + len(follower.read()) == 20_000
    assert follower.log.behind == follower.log.skipped == 0


def test_what_is_far_behind_is_skipped(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BEHIND", 1_000_000)
    follower.write("".join(f"{number:099}\n" for number in range(20_000)))
    found = follower.read()
    assert found[-1] == f"{19_999:099}"
    assert all(len(line) == 99 for line in found)  # the first one is not the rest of a line
    assert follower.log.skipped == 2_000_000 - source.MAX_BYTES
    assert follower.log.behind == 0


# ---- the journal


def follow(code: str, *, everything: bool = False) -> Journal:
    """A journal for which another program stands in."""
    return Journal(everything=everything, command=(sys.executable, "-c", f"import sys, time\n{code}"))


def read(made: Journal) -> list[bytes]:
    """Wait for lines, or for the end."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if lines := made.read():
            return lines
        time.sleep(0.01)
    raise AssertionError("no line")


def test_entries_of_the_journal() -> None:
    made = follow('print(\'{"MESSAGE": "a"}\', flush=True)\ntime.sleep(60)')
    assert read(made) == [b'{"MESSAGE": "a"}']
    assert made.read() == []
    child = made._child
    made.close()
    assert child is not None
    assert child.returncode == -9


def test_an_endless_journal_is_read_in_turns() -> None:
    made = follow("while True: sys.stdout.write('x' * 99 + chr(10))")
    for _ in range(3):
        assert sum(len(line) + 1 for line in read(made)) <= source.MAX_BYTES + 100
    made.close()


def test_journalctl_ends() -> None:
    said = "sys.stderr.write('first\\nNo journal files were opened \\x1b\\n')"
    made = follow(f"print(1, flush=True)\n{said}\nsys.exit(1)")
    assert read(made) == [b"1"]
    with pytest.raises(SourceError, match=r"journal: journalctl has ended: No journal files were opened \\033"):
        read(made)
    assert made._child is None
    assert read(made) == [b"1"]  # it is started again
    made.close()


def test_journalctl_is_missing() -> None:
    made = Journal(everything=True, command=("/nonexistent/journalctl",))
    with pytest.raises(SourceError, match=r"journal: /nonexistent/journalctl cannot be started: No such file"):
        made.read()


def test_only_mail_unless_other_programs_give_verdicts() -> None:
    assert Journal(everything=False)._command[-1] == "SYSLOG_FACILITY=2"
    assert Journal(everything=True)._command == journal.COMMAND
