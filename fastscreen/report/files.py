"""Log files: which ones, in what order, and their content in blocks of whole lines."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from fastscreen.escape import printable
from fastscreen.report.lines import FIRST_STAMP
from fastscreen.report.stamps import Clock

USUAL = ("mail.log*", "maillog*")
"""Debian's and Red Hat's names, in /var/log; rotated ones too."""

STANDARD_INPUT = "-"
BLOCK = 1 << 17  # what is made of it is ten times as much, and should stay in the processor's cache
LONGEST = 1 << 16  # octets of a line; what is longer is no log line

Report = Callable[[int], None]


class LogError(Exception):
    """A file that cannot be read. The text is one line: which, why."""


def usual_files(folder: Path, since: float) -> list[str]:
    """The log files of a folder that were written to after `since`. LogError: there is none at all."""
    found = [path for name in USUAL for path in sorted(folder.glob(name)) if path.is_file()]
    if not found:
        raise LogError(f"no {' or '.join(USUAL)} in {folder}; name the log files, or - for standard input")
    return [str(path) for path in found if path.stat().st_mtime >= since]


class LogFile:
    """One file, or standard input; .gz is known by its first octets. Open it, read its blocks, close it."""

    def __init__(self, name: str) -> None:
        """Raises LogError."""
        self.name = name
        try:
            opened: BinaryIO = sys.stdin.buffer if name == STANDARD_INPUT else Path(name).open("rb")  # noqa: SIM115
            self._raw = opened
            known = os.fstat(opened.fileno())
        except OSError as error:
            raise self._wrong(error) from error
        if stat.S_ISDIR(known.st_mode):
            opened.close()
            raise LogError(f"{printable(name)}: is a folder")
        self.size = known.st_size if stat.S_ISREG(known.st_mode) else 0
        self.written = known.st_mtime if stat.S_ISREG(known.st_mode) else time.time()
        self.clock = Clock(self.written)
        self._first = b""
        self._read: Callable[[int], bytes] = opened.read
        try:
            self._first = opened.read(2)
            if self._first == b"\x1f\x8b":
                whole = _Beginning(self._first, opened)
                self._read = gzip.GzipFile(fileobj=cast(BinaryIO, io.BufferedReader(whole))).read
                self._first = b""
            self._first += self._read(BLOCK)
        except (OSError, EOFError, zlib.error) as error:
            raise self._wrong(error) from error

    def begins(self) -> float:
        """When its first log line was written, s since 1970; infinity when its first block has none."""
        for found in FIRST_STAMP.finditer(self._first):
            second = self.clock.second(found[1], found[2] or b"")
            if second is not None:
                return second
        return float("inf")

    def blocks(self, read: Report) -> Iterator[bytes]:
        """Its lines, a BLOCK at a time, each block ended by a newline. Raises LogError.

        read: is told of octets of the file that were read (of a compressed one: compressed). A line longer than LONGEST
        is left out, so that what is no log takes no memory.
        """
        rest = b""
        dropping = False
        block = self._first
        self._first = b""
        told = 0
        while block:
            end = block.rfind(b"\n") + 1
            if dropping:
                start = block.find(b"\n") + 1
                dropping = start == 0
                block, end = block[start:], max(0, end - start)
                if dropping:
                    block = b""
            if end:
                yield rest + block[:end] if rest else block[:end]
                rest = block[end:]
            else:
                rest += block
            if len(rest) > LONGEST:
                rest = b""
                dropping = True
            if self.size:
                at = min(self._raw.tell(), self.size)
                read(at - told)
                told = at
            try:
                block = self._read(BLOCK)
            except (OSError, EOFError, zlib.error) as error:
                raise self._wrong(error) from error
        if rest:
            yield rest + b"\n"

    def close(self) -> None:
        """Let go of it."""
        if self.name != STANDARD_INPUT:
            self._raw.close()

    def _wrong(self, error: Exception) -> LogError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return LogError(f"{printable(self.name)}: cannot be read: {why}")


class _Beginning(io.RawIOBase):
    """A file of which some octets were read already, from its beginning."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._first or self._rest.read(len(buffer))
        self._first = b""
        buffer[: len(data)] = data
        return len(data)


def in_order(names: Sequence[str]) -> list[LogFile]:
    """Open files, the one with the oldest line first: what became of a client is told by lines in their order."""
    opened: list[LogFile] = []
    try:
        for name in dict.fromkeys(names):
            opened.append(LogFile(name))
    except LogError:
        for file in opened:
            file.close()
        raise
    return sorted(opened, key=LogFile.begins)
