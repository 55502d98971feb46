"""Cache files of any size, like those that a screener has written over weeks."""

import shutil
import time
from itertools import islice
from pathlib import Path

import lmdb

from bench.micro.samples import present, records
from bench.programs import BenchError
from fastscreen.cache.lmdb_file import FORMAT, FORMAT_KEY

_BATCH = 500_000  # records a transaction
_ROOM = 250  # bytes of disk per record, including what LMDB leaves free: more than any file here took
_SECONDS = 120  # to build a file


def build(path: Path, entries: int) -> None:
    """Write a file with this many clients, in random order, so that its pages are as full as those of a real one.

    BenchError: no room for it, or it takes too long.
    """
    needed = entries * _ROOM
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise BenchError(
            f"a cache of {entries:,} entries needs {needed / 1e9:.1f} GB, {path.parent} has {free / 1e9:.1f}"
        )
    deadline = time.monotonic() + _SECONDS
    values = records()
    # Options that make building fast: nothing is on the disk before the end.
    environment = lmdb.open(str(path), subdir=False, map_size=1 << 34, sync=False, metasync=False, meminit=False)
    try:
        clients = present()
        with environment.begin(write=True) as transaction:
            transaction.put(FORMAT_KEY, FORMAT)
        while (missing := entries + 1 - environment.stat()["entries"]) > 0:
            if time.monotonic() > deadline:
                raise BenchError(f"a cache of {entries:,} entries was not built within {_SECONDS} s")
            batch = sorted(islice(clients, min(missing, _BATCH)))
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti((key, values[at % len(values)]) for at, key in enumerate(batch))
        environment.sync(True)
    finally:
        environment.close()
