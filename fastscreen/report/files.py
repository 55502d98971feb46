"""Log files: which ones, in what order, and their content in blocks of whole lines."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from fastscreen.escaping import printable
from fastscreen.report.forms import usual
from fastscreen.report.lines import FIRST_STAMP
from fastscreen.report.stamps import Clock

USUAL = ("mail.log*", "maillog*")
"""Debian's and Red Hat's names, in /var/log; rotated ones too."""

STANDARD_INPUT = "-"
BLOCK = 1 << 17  # what is made of it is ten times as much, and should stay in the processor's cache
LONGEST = 1 << 16  # octets of a line; what is longer is no log line

_PACKED: tuple[tuple[bytes, Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file))),
    (b"\xfd7zXZ\0", lambda file: cast(BinaryIO, lzma.LZMAFile(file))),  # noqa: SIM115
    (b"BZh", lambda file: cast(BinaryIO, bz2.BZ2File(file))),
)
"""What a compressed file begins with, and what reads it."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_LONGEST_MARK = 6
_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

Report = Callable[[int], None]


class LogError(Exception):
    """A file that cannot be read. The text is one line: which, why."""


def usual_files(folder: Path, since: float) -> list[str]:
    """The log files of a folder that were written to after `since`. LogError: there is none at all."""
    found: dict[str, float] = {}
    for path in (path for name in USUAL for path in sorted(folder.glob(name))):
        with suppress(FileNotFoundError):  # it was rotated away since
            known = path.stat()
            if stat.S_ISREG(known.st_mode):
                found[str(path)] = known.st_mtime
    if not found:
        raise LogError(f"no {' or '.join(USUAL)} in {folder}; name the log files, or - for standard input")
    return [name for name, written in found.items() if written >= since]


class LogFile:
    """One file, or standard input; a compressed one is known by its first octets. Open it, read its blocks, close it.

    identity: device and inode of a regular file; None for any other.
    """

    def __init__(self, name: str, stream: BinaryIO | None = None) -> None:
        """stream: what to read, when it is no file of that name. Raises LogError."""
        self.name = name
        try:
            if name == STANDARD_INPUT and sys.stdin is None:
                raise LogError("standard input is closed")
            opened: BinaryIO = stream or (sys.stdin.buffer if name == STANDARD_INPUT else Path(name).open("rb"))  # noqa: SIM115
            self._raw = opened
            known = os.fstat(opened.fileno())
        except OSError as error:
            raise self._wrong(error) from error
        if stat.S_ISDIR(known.st_mode):
            opened.close()
            raise LogError(f"{printable(name)}: is a folder")
        regular = stat.S_ISREG(known.st_mode)
        self.identity = (known.st_dev, known.st_ino) if regular else None
        self.size = known.st_size if regular else 0
        self.written = known.st_mtime if regular else time.time()
        self.clock = Clock(self.written)
        self._first = b""
        self._failed: LogError | None = None  # told by blocks: the other files are worth a report
        mark = b""
        self._read: Callable[[int], bytes] = opened.read
        try:
            mark = opened.read(_LONGEST_MARK)
            unpack = next((unpack for begin, unpack in _PACKED if mark.startswith(begin)), None)
            if unpack is None:
                self._first = mark
            else:
                self._read = unpack(cast(BinaryIO, io.BufferedReader(_Beginning(mark, opened)))).read
            self._first += self._read(BLOCK)
        except _ERRORS as error:
            self._failed = self._wrong(error)
        if mark.startswith(_ZSTD):
            self._failed = LogError(f"{printable(name)}: is compressed by zstd: zstdcat it, and - for standard input")
            self._first = b""

    def begins(self) -> float:
        """When its first log line was written, s since 1970; infinity when its first block has none."""
        for found in FIRST_STAMP.finditer(usual(self._first)):
            second = self.clock.second(found[1], found[2] or b"")
            if second is not None:
                return second
        return float("inf")

    def blocks(self, read: Report) -> Iterator[bytes]:
        """Its lines, a BLOCK at a time, each block ended by a newline. Raises LogError behind what could be read.

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
                block = b"" if self._failed else self._read(BLOCK)
            except _ERRORS as error:
                self._failed = self._wrong(error)
                block = b""
        if rest:
            yield rest + b"\n"
        if self._failed:
            raise self._failed

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
        data = self._first[: len(buffer)] or self._rest.read(len(buffer))
        self._first = self._first[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def in_order(names: Sequence[str]) -> list[LogFile]:
    """Open files, the one with the oldest line first: what became of a client is told by lines in their order.

    A file that has two names (a link) is read once.
    """
    opened: list[LogFile] = []
    try:
        for name in dict.fromkeys(names):
            file = LogFile(name)
            if file.identity and any(file.identity == other.identity for other in opened):
                file.close()
            else:
                opened.append(file)
    except LogError:
        for file in opened:
            file.close()
        raise
    return sorted(opened, key=LogFile.begins)
