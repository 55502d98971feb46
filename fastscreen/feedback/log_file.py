"""Follows a log file, through its rotation: renamed and created again, or copied and truncated."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from fastscreen.escaping import escape_text
from fastscreen.feedback.source import MAX_BYTES, SourceError, Splitter

MAX_LINE = 4096  # bytes
MAX_BEHIND = 64 << 20  # bytes; when more are waiting, all but the last MAX_BYTES are skipped
GRACE_SECONDS = 2.0  # after the file was renamed: syslogd writes to it until it is told to reopen it
_TAIL = 64  # bytes before the position, by which a file is recognized that was truncated and has grown again


class LogFile:
    """One file, by its name. It is read from its end on, or from its begin if it appears later. timer: s, monotonic."""

    def __init__(self, path: str, timer: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._name = escape_text(path)
        self._timer = timer
        self._descriptor = -1
        self._position = 0
        self._tail = b""
        self._looked: tuple[int, int] | None = None  # size and time of the last change, when the tail was compared
        self._from_end = True
        self._renamed_at: float | None = None
        self._splitter = Splitter(MAX_LINE)
        self.behind = 0
        self.skipped = 0
        with contextlib.suppress(OSError, SourceError):  # `read` reports it
            self._open()  # now, so that what is written from now on is new

    def read(self) -> list[bytes]:
        """Return new lines, of at most MAX_BYTES."""
        try:
            if self._descriptor < 0:
                self._open()
            found = os.fstat(self._descriptor)
            self._check_truncated(found)
            self._skip(found.st_size)
            data = os.pread(self._descriptor, MAX_BYTES, self._position)
            self._advance(data)
            self.behind = max(0, found.st_size - self._position)
            if not data and self._is_replaced(found):
                self.close()
        except OSError as error:
            self.close()
            raise SourceError(f"{self._name}: cannot be read: {error.strerror}") from None
        return self._splitter.feed(data) if data else []

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except FileNotFoundError:
            self._from_end = False  # all of a file that appears later is new
            raise
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise SourceError(f"{self._name}: not a regular file")
        self._position = found.st_size if self._from_end else 0
        self._tail = os.pread(self._descriptor, _TAIL, max(0, self._position - _TAIL)) if self._from_end else b""
        self._splitter.reset(in_line=self._tail[-1:] not in (b"", b"\n"))
        self._from_end = False
        self._looked = self._renamed_at = None

    def _check_truncated(self, found: os.stat_result) -> None:
        looked = (found.st_size, found.st_mtime_ns)
        if looked == self._looked:
            return
        self._looked = looked
        at = self._position - len(self._tail)
        if found.st_size < self._position or os.pread(self._descriptor, len(self._tail), at) != self._tail:
            self._splitter.reset()
            self._position, self._tail = 0, b""

    def _skip(self, size: int) -> None:
        if size - self._position > MAX_BEHIND:
            self.skipped += size - MAX_BYTES - self._position
            self._position, self._tail = size - MAX_BYTES, b""
            self._splitter.reset(in_line=True)

    def _advance(self, data: bytes) -> None:
        if data:
            self._position += len(data)
            self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]
            self._renamed_at = None

    def _is_replaced(self, found: os.stat_result) -> bool:
        """Whether another file has the name, and nothing more has come for a while."""
        try:
            now_there = Path(self._path).stat()
        except OSError:
            return False  # renamed, and not created yet
        if (now_there.st_dev, now_there.st_ino) == (found.st_dev, found.st_ino):
            self._renamed_at = None
            return False
        if self._renamed_at is None:
            self._renamed_at = self._timer()
        return self._timer() >= self._renamed_at + GRACE_SECONDS

    def close(self) -> None:
        """Close the file; the next one is read from its begin."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._splitter.reset()
        self.behind = 0
