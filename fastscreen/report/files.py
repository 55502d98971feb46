"""Finds and sorts log files, and reads them in blocks of whole lines."""

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
from fastscreen.report.formats import normalize
from fastscreen.report.lines import FIRST_STAMP
from fastscreen.report.timestamps import Clock

DEFAULT_NAMES = ("mail.log*", "maillog*")
"""The names in /var/log on Debian and Red Hat, with rotated files."""

STANDARD_INPUT = "-"
BLOCK = 1 << 17  # bytes; the rows parsed from it take ten times as much and should stay in the processor's cache
MAX_LINE = 1 << 16  # bytes; longer lines are not log lines

_COMPRESSIONS: tuple[tuple[bytes, Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file))),
    (b"\xfd7zXZ\0", lambda file: cast(BinaryIO, lzma.LZMAFile(file))),  # noqa: SIM115
    (b"BZh", lambda file: cast(BinaryIO, bz2.BZ2File(file))),
)
"""The first bytes of a compressed file, and the function that decompresses it."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_MAX_MAGIC = 6
_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

Report = Callable[[int], None]


class LogError(Exception):
    """A file cannot be read. The message is one line with the file and the reason."""


def default_files(folder: Path, since: float) -> list[str]:
    """The log files of a folder that were written after `since`. Raises LogError if all are missing."""
    found: dict[str, float] = {}
    for path in (path for name in DEFAULT_NAMES for path in sorted(folder.glob(name))):
        with suppress(FileNotFoundError):  # rotated in the meantime
            known = path.stat()
            if stat.S_ISREG(known.st_mode):
                found[str(path)] = known.st_mtime
    if not found:
        raise LogError(
            f"{folder}: {' and '.join(DEFAULT_NAMES)} are missing; name the log files, or - for standard input"
        )
    return [name for name, written in found.items() if written >= since]


class LogFile:
    """A log file or standard input. Compressed files are recognized by their first bytes.

    identity: device and inode of a regular file, otherwise None.
    """

    def __init__(self, name: str, stream: BinaryIO | None = None) -> None:
        """stream: what to read instead of the file. Raises LogError."""
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
            raise LogError(f"{printable(name)}: is a folder; expected a log file")
        regular = stat.S_ISREG(known.st_mode)
        self.identity = (known.st_dev, known.st_ino) if regular else None
        self.size = known.st_size if regular else 0
        self.written = known.st_mtime if regular else time.time()
        self.clock = Clock(self.written)
        self._first = b""
        self._failed: LogError | None = None  # raised by blocks(), so that other files can still be read
        magic = b""
        self._read: Callable[[int], bytes] = opened.read
        try:
            magic = opened.read(_MAX_MAGIC)
            unpack = next((unpack for begin, unpack in _COMPRESSIONS if magic.startswith(begin)), None)
            if unpack is None:
                self._first = magic
            else:
                self._read = unpack(cast(BinaryIO, io.BufferedReader(_Prefixed(magic, opened)))).read
            self._first += self._read(BLOCK)
        except _ERRORS as error:
            self._failed = self._wrong(error)
        if magic.startswith(_ZSTD):
            self._failed = LogError(
                f"{printable(name)}: is compressed with zstd; use zstdcat, and - for standard input"
            )
            self._first = b""

    def begins(self) -> float:
        """The time of the first log line, s since 1970; infinity if the first block does not contain any."""
        for found in FIRST_STAMP.finditer(normalize(self._first)):
            second = self.clock.second(found[1], found[2] or b"")
            if second is not None:
                return second
        return float("inf")

    def blocks(self, read: Report) -> Iterator[bytes]:
        """The lines, in blocks that end with a newline. Raises LogError after the readable part.

        read: called with the number of bytes read from the file, before decompression. Lines longer than MAX_LINE are
        omitted, to limit memory.
        """
        rest = b""
        dropping = False
        block = self._first
        self._first = b""
        reported = 0
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
            if len(rest) > MAX_LINE:
                rest = b""
                dropping = True
            if self.size:
                at = min(self._raw.tell(), self.size)
                read(at - reported)
                reported = at
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
        """Close the file."""
        if self.name != STANDARD_INPUT:
            self._raw.close()

    def _wrong(self, error: Exception) -> LogError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return LogError(f"{printable(self.name)}: cannot be read: {why}")


class _Prefixed(io.RawIOBase):
    """A file whose first bytes were already read, from its beginning."""

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


def open_sorted(names: Sequence[str]) -> list[LogFile]:
    """Open files in the order of their first lines, because the tally needs the lines of a client in order.

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
