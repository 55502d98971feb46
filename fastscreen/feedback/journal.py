"""Follows systemd's journal, through `journalctl`."""

from __future__ import annotations

import os
import subprocess

from fastscreen.escaping import escape_bytes
from fastscreen.feedback.source import MAX_BYTES, SourceError, Splitter

MAX_LINE = 16384  # bytes of an entry in JSON; a longer one is not read
MAX_ERROR = 300  # bytes of what journalctl says
FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME"
COMMAND = ("journalctl", "--quiet", "--no-pager", "--follow", "--lines=0", "--output=json", f"--output-fields={FIELDS}")
MAIL = "SYSLOG_FACILITY=2"


class Journal:
    """The journal from now on. everything: also what is not of the facility `mail`, for verdicts of other programs.

    While nobody reads, journalctl waits with a full pipe, so `behind` is not known.
    """

    def __init__(self, *, everything: bool, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command if everything else (*command, MAIL)
        self._child: subprocess.Popen[bytes] | None = None
        self._splitter = Splitter(MAX_LINE)
        self.behind = 0
        self.skipped = 0

    def read(self) -> list[bytes]:
        """Return new entries, of at most MAX_BYTES."""
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None and child.stdout is not None
        lines: list[bytes] = []
        left = MAX_BYTES
        while left > 0:
            try:
                data = os.read(child.stdout.fileno(), min(left, 65536))  # what a pipe holds
            except BlockingIOError:
                return lines
            if not data:
                if lines:
                    return lines  # the next turn finds the end again
                self._ended(child)
            left -= len(data)
            lines += self._splitter.feed(data)
        return lines

    def _start(self) -> None:
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # the terminal's ^C is for fastscreen, which ends it
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise SourceError(f"journal: {self._command[0]} cannot be started: {error.strerror}") from None
        assert child.stdout is not None and child.stderr is not None
        os.set_blocking(child.stdout.fileno(), False)
        os.set_blocking(child.stderr.fileno(), False)
        self._child = child

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        try:
            said = os.read(child.stderr.fileno(), MAX_ERROR)
        except BlockingIOError:
            said = b""
        self.close()
        text = escape_bytes(said.strip().split(b"\n")[-1]) or f"exit code {child.returncode}"
        raise SourceError(f"journal: journalctl has ended: {text}")

    def close(self) -> None:
        """End journalctl."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()  # it has nothing to finish
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        self._splitter.reset()
