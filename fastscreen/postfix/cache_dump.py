"""Reads postscreen's cache, as text or LMDB, into fastscreen's records (reference 7.1)."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import lmdb
from msgspec import Struct

from fastscreen.cache import keys, lmdb_file
from fastscreen.cache.stamps import DISABLED, POSTSCREEN_TESTS, TESTS, Stamps, merged
from fastscreen.config.model import Prefix
from fastscreen.escaping import escape_text, quoted

LAST_CLEANUP_KEY = "_LAST_CACHE_CLEANUP_COMPLETED_"
MAX_LINE = 4096  # characters
_MAX_EXAMPLES = 5  # damaged lines that are shown
_VALUE = re.compile(r"[0-9]{1,18}(?:;[0-9]{1,18})*", re.ASCII)
_SUFFIXES = {"btree": ".db", "hash": ".db", "lmdb": ".lmdb"}
_PROGRESS_INTERVAL = 10_000  # records
_BATCH = 10_000  # records of an LMDB file that are read under one lock


class SourceError(Exception):
    """postscreen's cache cannot be read. The message is one line."""


class ParsedCache(Struct):
    """records: by fastscreen's keys. expired: number of records without a valid stamp. damaged: number of damaged
    lines. examples: the first of them.
    """

    records: dict[bytes, Stamps]
    expired: int = 0
    damaged: int = 0
    examples: list[str] = []


def parse(lines: Iterable[str], now: float, prefix: Prefix, progress: Callable[[int], None]) -> ParsedCache:
    """Parse `KEY VALUE` lines as `postmap -s` prints them. now: s since 1970. progress gets the number of lines read.

    For equal keys, and for clients that share a record because of `prefix`, the later stamp of each test is kept.
    """
    parsed = ParsedCache({})
    for number, line in enumerate(lines, 1):
        if number % _PROGRESS_INTERVAL == 0:
            progress(number)
        if len(line) > MAX_LINE:
            _add_damaged(parsed, number, "longer than any record")
            continue
        key, _, value = line.strip().partition("\t" if "\t" in line else " ")
        if not key or key.upper() == LAST_CLEANUP_KEY:  # postmap folds keys
            continue
        stamps = _stamps(value.strip())
        try:
            address = ipaddress.ip_address(key)
            if stamps is None or "%" in key:  # a zone is meaningless on another machine
                raise ValueError
        except ValueError:
            _add_damaged(parsed, number, quoted(line.rstrip("\n"), 60))
            continue
        if max(stamps) <= max(now, DISABLED):
            parsed.expired += 1
            continue
        record = keys.of_client(ipaddress.ip_network(address), prefix)
        known = parsed.records.get(record)
        parsed.records[record] = merged(known, stamps) if known else stamps
    return parsed


def _stamps(value: str) -> Stamps | None:
    """The stamps; missing ones are 1, additional ones are ignored (reference 7.1). None: not a record."""
    if not _VALUE.fullmatch(value):
        return None
    found = tuple(int(part) for part in value.split(";")[:POSTSCREEN_TESTS])
    return (*found, *(DISABLED,) * (TESTS - len(found)))


def _add_damaged(parsed: ParsedCache, number: int, what: str) -> None:
    parsed.damaged += 1
    if len(parsed.examples) < _MAX_EXAMPLES:
        parsed.examples.append(f"line {number}: {what}")


def postmap_program() -> str | None:
    return shutil.which("postmap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def read_lines(source: str, postmap: str | None) -> Iterator[str]:
    """The records of `TYPE:PATH` as lines. postmap: the program, or None if it is missing. Raises SourceError."""
    source = source.removeprefix("proxy:")  # proxymap cannot list a table, but the file itself can be read
    kind, colon, name = source.partition(":")
    if not colon or not name:
        raise SourceError(f"{escape_text(source)}: not TYPE:PATH; expected e.g. lmdb:/var/lib/postfix/postscreen_cache")
    if kind == "memcache":
        raise SourceError(
            f"{escape_text(source)}: memcache cannot list its records; import the backup table that is named in this "
            "file, if any"
        )
    path = Path(f"{name}{_SUFFIXES.get(kind, '')}")
    with contextlib.suppress(OSError):  # reported when the file is opened
        if path.is_fifo():  # opening it would block until there is a writer
            raise SourceError(
                f"{escape_text(str(path), 500)}: is a pipe; expected a file, or lines of postmap -s on standard input"
            )
    if kind in ("btree", "hash"):
        _check_free(path, source)
    if postmap is not None:
        read = 0
        try:
            for line in _read_with_postmap(postmap, source):
                read += 1
                yield line
        except SourceError:
            # postmap fails without Debian's separate package for LMDB, or with a main.cf that it rejects
            if read or kind != "lmdb":
                raise
        else:
            return
    if kind == "lmdb":
        yield from _read_lmdb(path)
    else:
        raise SourceError(
            f"{escape_text(source)}: postmap is missing on this machine; run `postmap -s {escape_text(source)} > dump` "
            "on the machine with Postfix, and `fastscreen cache import < dump` here"
        )


def _check_free(path: Path, source: str) -> None:
    """Raise SourceError if postscreen holds the file locked, which it does while it runs: postmap would wait for it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SourceError(
            f"{escape_text(source)}: in use by postscreen; disable postscreen in master.cf first (postfix reload), or "
            "import a copy of the file"
        ) from None
    except OSError as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {error.strerror}") from None


def truncated_lines(stream: IO[str]) -> Iterator[str]:
    """The lines of a stream. A line that is too long for a record is cut where `parse` can still tell that it is."""
    while line := stream.readline(MAX_LINE + 1):
        rest = line
        while not rest.endswith("\n") and (rest := stream.readline(MAX_LINE + 1)):
            pass
        yield line


def _read_with_postmap(postmap: str, source: str) -> Iterator[str]:
    with (
        tempfile.TemporaryFile() as errors,  # a pipe could fill up before the records end
        subprocess.Popen(
            [postmap, "-s", source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        yield from truncated_lines(process.stdout)
        code = process.wait()
        errors.seek(max(0, os.fstat(errors.fileno()).st_size - MAX_LINE))
        messages = errors.read().decode("utf-8", "replace").strip().splitlines()
    if code:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise SourceError(escape_text(messages[-1] if messages else f"{source}: postmap ended with {ended}", 500))


def _read_lmdb(path: Path) -> Iterator[str]:
    """Read in batches, so that postscreen can write between them and never waits for long."""
    last = b""
    try:
        while found := _read_lmdb_batch(path, last):
            if found[-1][0] <= last:
                raise SourceError(f"{escape_text(str(path), 500)}: damaged: its keys are not in order")
            last = found[-1][0]
            yield from (f"{_text(key)}\t{_text(value)}" for key, value in found)
    except lmdb.Error as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {lmdb_file.reason(error)}") from None
    except OSError as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {error.strerror}") from None


def _read_lmdb_batch(path: Path, last: bytes) -> list[tuple[bytes, bytes]]:
    """The records after a key. Postfix locks the file itself for each access, and does not use LMDB's lock file."""
    with path.open("rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)  # Postfix uses one of the two, depending on its build; Debian's uses this one
        fcntl.flock(file, fcntl.LOCK_SH)
        # Closing any descriptor of the file releases the first lock, so nothing else may open the file during a batch.
        with contextlib.closing(lmdb.open(str(path), subdir=False, readonly=True, lock=False)) as environment:
            if (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] > os.fstat(file.fileno()).st_size:
                raise SourceError(f"{escape_text(str(path), 500)}: truncated")
            with environment.begin() as transaction, transaction.cursor() as cursor:
                if not cursor.set_range(last) or (cursor.key() == last and not cursor.next()):
                    return []
                return list(itertools.islice(cursor, _BATCH))


def _text(data: bytes) -> str:
    """Keys and values in Postfix's files end with a NUL."""
    return data[: MAX_LINE + 1].removesuffix(b"\0").decode("latin-1")
