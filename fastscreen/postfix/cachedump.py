"""postscreen's cache as text or LMDB, read into records of fastscreen's (reference 7.1)."""

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
from fastscreen.cache.stamps import DISABLED, TESTS, Stamps, merged
from fastscreen.config.model import Prefix
from fastscreen.escaping import escape_text, quoted

HOUSEKEEPING = "_LAST_CACHE_CLEANUP_COMPLETED_"
LONGEST = 4096  # characters of a line
_NAMED = 5  # damaged lines that are named
_VALUE = re.compile(r"[0-9]{1,18}(?:;[0-9]{1,18})*", re.ASCII)
_SUFFIXES = {"btree": ".db", "hash": ".db", "lmdb": ".lmdb"}
_TOLD_EVERY = 10_000  # records
_SLICE = 10_000  # records of an LMDB file that are read under one lock


class SourceError(Exception):
    """postscreen's cache cannot be read; one line."""


class Taken(Struct):
    """records: by fastscreen's keys. expired: without a valid stamp. damaged: how many lines; named: the first ones."""

    records: dict[bytes, Stamps]
    expired: int = 0
    damaged: int = 0
    named: list[str] = []


def parse(lines: Iterable[str], now: float, prefix: Prefix, progress: Callable[[int], None]) -> Taken:
    """Lines `KEY VALUE`, as `postmap -s` prints them. now: s since 1970; progress is told how many were read.

    Of clients that share a record by `prefix`, and of equal keys, the later stamp of each test stays.
    """
    taken = Taken({})
    for number, line in enumerate(lines, 1):
        if number % _TOLD_EVERY == 0:
            progress(number)
        if len(line) > LONGEST:
            _name(taken, number, "longer than a record can be")
            continue
        key, _, value = line.strip().partition("\t" if "\t" in line else " ")
        if not key or key.upper() == HOUSEKEEPING:  # postmap folds keys
            continue
        stamps = _stamps(value.strip())
        try:
            address = ipaddress.ip_address(key)
            if stamps is None or "%" in key:  # a zone is of another machine
                raise ValueError
        except ValueError:
            _name(taken, number, quoted(line.rstrip("\n"), 60))
            continue
        if max(stamps) <= max(now, DISABLED):
            taken.expired += 1
            continue
        place = keys.of_client(ipaddress.ip_network(address), prefix)
        known = taken.records.get(place)
        taken.records[place] = merged(known, stamps) if known else stamps
    return taken


def _stamps(value: str) -> Stamps | None:
    """The five stamps; missing ones are 1, further ones ignored (reference 7.1). None: it is no record."""
    if not _VALUE.fullmatch(value):
        return None
    found = tuple(int(part) for part in value.split(";")[:TESTS])
    return (*found, *(DISABLED,) * (TESTS - len(found)))


def _name(taken: Taken, number: int, what: str) -> None:
    taken.damaged += 1
    if len(taken.named) < _NAMED:
        taken.named.append(f"line {number}: {what}")


def postmap_program() -> str | None:
    return shutil.which("postmap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def lines_of(source: str, postmap: str | None) -> Iterator[str]:
    """The records of `TYPE:PATH` as lines. postmap: the program, None: there is none. Raises SourceError."""
    source = source.removeprefix("proxy:")  # proxymap lists nothing; the file itself can be read
    kind, colon, name = source.partition(":")
    if not colon or not name:
        raise SourceError(f"{escape_text(source)}: no cache; example: lmdb:/var/lib/postfix/postscreen_cache")
    if kind == "memcache":
        raise SourceError(
            f"{escape_text(source)}: memcache cannot list what it has; import the table that its file names as backup, "
            "if there is one"
        )
    path = Path(f"{name}{_SUFFIXES.get(kind, '')}")
    with contextlib.suppress(OSError):  # told by what opens it
        if path.is_fifo():  # who opens that waits for somebody to write
            raise SourceError(f"{escape_text(str(path), 500)}: is a pipe; postmap -s lines can come on standard input")
    if kind in ("btree", "hash"):
        _check_free(path, source)
    if postmap is not None:
        read = 0
        try:
            for line in _of_postmap(postmap, source):
                read += 1
                yield line
        except SourceError:
            # Debian has LMDB in a package of its own; without it, or with a main.cf that it refuses, postmap reads none
            if read or kind != "lmdb":
                raise
        else:
            return
    if kind == "lmdb":
        yield from _of_lmdb(path)
    else:
        raise SourceError(
            f"{escape_text(source)}: there is no postmap here to read it; where Postfix is: "
            f"postmap -s {escape_text(source)} > dump, and here: fastscreen cache import < dump"
        )


def _check_free(path: Path, source: str) -> None:
    """postscreen locks such a file as long as it runs, and postmap would wait for that."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SourceError(
            f"{escape_text(source)}: postscreen is using it; take it out of master.cf first (postfix reload), or "
            "import a copy of the file"
        ) from None
    except OSError as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {error.strerror}") from None


def bounded(stream: IO[str]) -> Iterator[str]:
    """A stream's lines; of one that is no record, only so much that `parse` sees it."""
    while line := stream.readline(LONGEST + 1):
        rest = line
        while not rest.endswith("\n") and (rest := stream.readline(LONGEST + 1)):
            pass
        yield line


def _of_postmap(postmap: str, source: str) -> Iterator[str]:
    with (
        tempfile.TemporaryFile() as errors,  # a pipe could be full before the records end
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
        yield from bounded(process.stdout)
        code = process.wait()
        errors.seek(max(0, os.fstat(errors.fileno()).st_size - LONGEST))
        told = errors.read().decode("utf-8", "replace").strip().splitlines()
    if code:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise SourceError(escape_text(told[-1] if told else f"{source}: postmap ended with {ended}", 500))


def _of_lmdb(path: Path) -> Iterator[str]:
    """Slice by slice: postscreen may write between two of them, and is never kept waiting for long."""
    last = b""
    try:
        while found := _slice_of_lmdb(path, last):
            if found[-1][0] <= last:
                raise SourceError(f"{escape_text(str(path), 500)}: damaged: its keys are in no order")
            last = found[-1][0]
            yield from (f"{_text(key)}\t{_text(value)}" for key, value in found)
    except lmdb.Error as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {lmdb_file.reason(error)}") from None
    except OSError as error:
        raise SourceError(f"{escape_text(str(path), 500)}: {error.strerror}") from None


def _slice_of_lmdb(path: Path, last: bytes) -> list[tuple[bytes, bytes]]:
    """The records behind a key. Postfix locks the file itself for each access; LMDB's own lock file is not there."""
    with path.open("rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)  # one of the two, as Postfix was built: Debian's takes this one
        fcntl.flock(file, fcntl.LOCK_SH)
        # Closing any descriptor of the file ends the first lock: nothing else may open it until the slice is read.
        with contextlib.closing(lmdb.open(str(path), subdir=False, readonly=True, lock=False)) as environment:
            if (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] > os.fstat(file.fileno()).st_size:
                raise SourceError(f"{escape_text(str(path), 500)}: truncated")
            with environment.begin() as transaction, transaction.cursor() as cursor:
                if not cursor.set_range(last) or (cursor.key() == last and not cursor.next()):
                    return []
                return list(itertools.islice(cursor, _SLICE))


def _text(octets: bytes) -> str:
    """A NUL ends keys and values in Postfix's files."""
    return octets[: LONGEST + 1].removesuffix(b"\0").decode("latin-1")
