"""Puts records into the cache's file, whether a daemon has it open or not; the later stamp of each test stays."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lmdb
from msgspec import Struct

from fastscreen.cache import lmdb_file
from fastscreen.cache.size_limit import MAX_SIZE
from fastscreen.cache.stamps import Stamps, merged, pack_stamps, parse_stamps

_SLICE = 1000  # records a transaction: a worker's writer waits for it
# Longer than a worker keeps what it has not written yet (`cache.writer` writes each second).
SETTLED_SECONDS = 2.5


class MergeError(Exception):
    """The cache's file cannot be used; one line."""


class Merged(Struct):
    """How many records are new, were made later in some test, or had nothing to gain."""

    new: int = 0
    later: int = 0
    same: int = 0


def merge(
    path: Path,
    records: Mapping[bytes, Stamps],
    progress: Callable[[int], None],
    warn: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
    max_size: int = MAX_SIZE,
) -> Merged:
    """Merge them, in order of their keys. MergeError: also when the file would be larger than `max_size` bytes.

    A worker writes the clients of the last second without looking at the file again. So when others have it open, all
    is merged once more when that is over: what such a write undid is put back.
    """
    try:
        file = lmdb_file.open_file(path, max_size, time.time, warn)
    except lmdb_file.UnusableError as error:
        raise MergeError(f"cache: {path}: {error}") from None
    with contextlib.closing(file):
        environment = file.environment
        try:
            count = _all(environment, records, progress)
            if _others(environment):
                wait(SETTLED_SECONDS)
                _all(environment, records, lambda done: None)
            return count
        except lmdb.MapFullError:
            raise MergeError(f"cache: {path}: full with {max_size} bytes; raise cache.max_size") from None
        except lmdb.Error as error:
            raise MergeError(f"cache: {path}: {lmdb_file.reason(error)}") from None


def _all(environment: Any, records: Mapping[bytes, Stamps], progress: Callable[[int], None]) -> Merged:
    count = Merged()
    keys = sorted(records)
    for first in range(0, len(keys), _SLICE):
        part = keys[first : first + _SLICE]
        done = _followed(environment, [(key, records[key]) for key in part])
        count.new += done.new
        count.later += done.later
        count.same += done.same
        progress(first + len(part))
    return count


def _followed(environment: Any, records: Iterable[tuple[bytes, Stamps]]) -> Merged:
    """One slice, in a larger map when another process made the file larger."""
    while True:
        try:
            return _slice(environment, records)
        except lmdb.MapResizedError:
            environment.set_mapsize(0)


def _slice(environment: Any, records: Iterable[tuple[bytes, Stamps]]) -> Merged:
    count = Merged()
    with environment.begin(write=True) as transaction:
        for key, stamps in records:
            found = transaction.get(key)
            if found is None:
                count.new += 1
                transaction.put(key, pack_stamps(stamps))
                continue
            known = parse_stamps(found)
            best = merged(known, stamps)
            if best == known:
                count.same += 1
            else:
                count.later += 1
                transaction.put(key, pack_stamps(best))
    return count


def _others(environment: Any) -> bool:
    """Whether another process reads there; a worker does before it has anything to write."""
    table: str = environment.readers()
    return any(int(pid) != os.getpid() for pid in re.findall(r"(?m)^\s*([0-9]+) ", table))
