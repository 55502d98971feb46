"""How large the cache's file may become, and which records go when it is full.

The file never shrinks: LMDB uses the pages of deleted records again. Its map is as large as the file may become, so
LMDB itself refuses to pass the limit. Changing a record takes free pages (LMDB never writes in place), so records are
dropped before the last page is used: from `_HIGH` of the limit on.

Dropping goes around the file in the order of addresses, a chunk at a time. Of each chunk the expired records go, and of
the rest those that expire first, until an eighth of the chunk is gone. So it needs no list of all records, and a flood
of new ones in one network costs other networks no more than their share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastscreen.cache import lmdb_file

MAX_SIZE = 1 << 30  # bytes
_HIGH = 0.90  # of the limit: begin to drop
_LOW = 0.85  # enough was dropped
_STEP = 0.01  # of the limit: so much more must be in use before the next round, for a round may free no whole page
_SHARE = 8  # one record in so many is dropped in a round
CHUNK = 4096  # records that are compared with each other
_MIN_SIZE = 1 << 20  # bytes: a file that may not grow may still become this large
_SLACK = 16  # a file that may not grow keeps 1/16 more: without a free page no record could be dropped


class SizeLimit:
    """The limits of one cache file, as one process sees them. For the writer's thread.

    max_size: bytes. keep_free: percent of the file system that the cache leaves free; 0: no such limit.
    """

    def __init__(
        self,
        path: Path,
        max_size: int,
        keep_free: int,
        disk: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._path = path
        self._disk = disk
        self.max_size = max_size
        self.keep_free = keep_free
        self.is_short = False
        """Whether the file system has less free than it should, so that the file does not grow."""
        self._frozen_at = 0
        self._oversize = 0
        self._place = b""
        self._left = 0  # records to drop in this round
        self._floor = 0.0  # bytes in use at which the next round begins at the earliest

    def update(self, size: int) -> None:
        """Check the file system again. size: bytes of the file now; 0 before it is created."""
        if size > self.goal and not self._oversize:
            self._oversize = _with_slack(size)
        short = False
        if self.keep_free:
            try:
                found = self._disk(self._path.parent)
            except OSError:
                return
            share = self.keep_free + 1 if self.is_short else self.keep_free  # so that it does not flap
            short = found.f_bavail * 100 < share * found.f_blocks
        if short and not self.is_short:
            self._frozen_at = _with_slack(size)
        self.is_short = short

    @property
    def goal(self) -> int:
        """Bytes: how large the file may become, by the configuration and by the disk."""
        return min(self.max_size, self._frozen_at) if self.is_short else self.max_size

    @property
    def limit(self) -> int:
        """Bytes: the map's size. More than `goal` for a file that was larger before `max_size` was lowered."""
        return max(self.goal, self._oversize)

    def is_wanted(self, environment: Any) -> bool:
        """Whether records must go now. Begins a round when it is time for one."""
        used, goal = in_use(environment), self.goal
        if used <= _LOW * goal:
            self._left, self._floor = 0, 0.0
        elif self._left <= 0 and (used > goal or used > max(_HIGH * goal, self._floor)):
            self._left = environment.stat()["entries"] // _SHARE
            self._floor = used + _STEP * goal
        return self._left > 0

    def choose(self, records: Sequence[tuple[bytes, int]], now: float, *, share: int = _SHARE) -> list[bytes]:
        """Which of a chunk's records go: (key, s since 1970 when it expires)."""
        ordered = sorted(records, key=lambda record: record[1])
        expired = sum(end < now for _, end in ordered)
        return [key for key, _ in ordered[: max(expired, -(-len(ordered) // share))]]

    def dropped(self, count: int) -> None:
        """So many records of the round are gone."""
        self._left -= count

    def next_chunk(self, environment: Any, pause: Callable[[], bool], slice_size: int) -> list[tuple[bytes, bytes]]:
        """Records from where the last chunk ended; at the end of the file it begins again. `pause` is called between
        slices, outside of a transaction; True: no more is wanted."""
        found: list[tuple[bytes, bytes]] = []
        while len(found) < CHUNK:
            with environment.begin() as transaction, transaction.cursor() as cursor:
                there = cursor.set_range(self._place) if self._place else cursor.first()
                for _ in range(slice_size):
                    if not there:
                        break
                    key, value = cursor.item()
                    if len(key) <= lmdb_file.RECORD_KEY_MAX:
                        found.append((key, value))
                    there = cursor.next()
                self._place = cursor.key() if there else b""
            if not self._place or pause():
                break
        return found


def _with_slack(size: int) -> int:
    return max(_MIN_SIZE, size + size // _SLACK)


def in_use(environment: Any) -> int:
    """Bytes of the pages that hold records; the rest of the file is free to be used again."""
    found = environment.stat()
    pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
    return int(pages * found["psize"])
