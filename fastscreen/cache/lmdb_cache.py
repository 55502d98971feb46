"""The cache of clients that passed tests: which tests, and until when (reference section 7). LMDB with msgpack values.

Two threads of a process use it. The event loop's thread calls all methods here, and never waits for the disk. The
writer thread (`writer.CacheWriter`) writes every second and maintains the file. They share the records that are not
written yet (`pending`) and the open file (`shared_file`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lmdb

from fastscreen.cache import keys
from fastscreen.cache.pending import DELETED, PendingRecords
from fastscreen.cache.shared_file import SharedFile
from fastscreen.cache.size_limit import MAX_SIZE
from fastscreen.cache.stamps import Stamps, pack_stamps, parse_stamps
from fastscreen.cache.writer import CacheWriter, Lines
from fastscreen.process.conditions import SIZE as CONDITIONS_SIZE
from fastscreen.process.conditions import Conditions


class LmdbCache:
    """The cache of one process: a `StampCache`. Construct and `open` it after fork.

    warn, log: get one line of text each, on the loop's thread only. wake(callback): has that thread call back
    (`loop.call_soon_threadsafe`). enabled: for each test, whether it is on (reference 2.4), which decides
    what cleanup keeps. cleanup_interval (0: none), retention: s. clock: s since 1970. max_size: bytes. keep_free:
    percent of the file system (0: no such limit). mark: of `use_mark.SIZE` bytes. look_over: for
    `lmdb_file.open_file`. first: of several processes, the one that logs problems with the file (the others see the
    same), cleans up, and drops records before the file is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warn: Callable[[str], object],
        log: Callable[[str], object],
        wake: Callable[[Callable[[], None]], object],
        enabled: tuple[bool, ...] = (True,),
        cleanup_interval: int = 12 * 3600,
        retention: int = 7 * 86400,
        clock: Callable[[], float] = time.time,
        max_size: int = MAX_SIZE,
        keep_free: int = 0,
        mark: memoryview | None = None,
        look_over: bool = True,
        first: bool = True,
        conditions: Conditions | None = None,
        disk: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self.path = Path(path)
        self._shared = SharedFile(self.path, mark)
        self._mark = self._shared.mark
        self._pending = PendingRecords()
        self._lines = Lines(warn, log, wake)
        self._writer = CacheWriter(
            self._shared,
            self._pending,
            self._lines,
            clock=clock,
            max_size=max_size,
            keep_free=keep_free,
            look_over=look_over,
            first=first,
            conditions=conditions if conditions is not None else Conditions(memoryview(bytearray(CONDITIONS_SIZE))),
            disk=disk,
        )
        self.configure(enabled, cleanup_interval, retention)
        self._get: Callable[[bytes], bytes | None] | None = None  # of the batch's read transaction
        self._transaction: Any = None

    def configure(
        self,
        enabled: tuple[bool, ...],
        cleanup_interval: int,
        retention: int,
        max_size: int | None = None,
        keep_free: int | None = None,
    ) -> None:
        """Take over the settings of a reload; None: unchanged."""
        cleanup, size_limit = self._writer.cleanup, self._writer.size_limit
        cleanup.enabled = tuple(index for index, is_on in enumerate(enabled) if is_on)
        cleanup.interval, cleanup.retention = cleanup_interval, retention
        if max_size is not None:
            size_limit.max_size = max_size
        if keep_free is not None:
            size_limit.keep_free = keep_free

    def open(self) -> None:
        """Open the file. Never fails: without a usable file every client is new, and it is tried again later."""
        self._writer.open()
        self._lines.flush()

    def start(self) -> None:
        """Start the writer's thread."""
        self._writer.start()

    def turn(self) -> None:
        """What the writer thread does every second, for a caller that has not started it."""
        self._writer.turn()

    def write_through(self) -> None:
        """For a minute, write each record at once: another process looks for the same clients in the file."""
        self._writer.write_through()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.end_batch()
        self._writer.close()
        self._lines.flush()

    # ---- look-ups

    def record(self, key: bytes) -> bytes | None:
        """Return a client's record, or None. The first look-up of a batch opens its read transaction."""
        pending = self._pending
        value = pending.unwritten.get(key) or pending.being_written.get(key)
        if value is None:
            get = self._get
            if get is None and (self._shared.environment is None or (get := self._begin_batch()) is None):
                return None
            mark = self._mark
            mark[0] = 1
            try:
                value = get(key)
                mark[0] = 0  # use_mark.LOOP
            except lmdb.Error as error:
                self._shared.note(error)
                return None
        elif value is DELETED:
            return None
        return value

    def lookup(self, key: bytes) -> Stamps | None:
        """Return a client's stamps, or None."""
        value = self.record(key)
        return parse_stamps(value) if value is not None else None

    def _begin_batch(self) -> Callable[[bytes], bytes | None] | None:
        shared = self._shared
        shared.reading.acquire()
        try:
            if shared.environment is not None:
                self._mark[0] = 1
                self._transaction = shared.environment.begin()
                self._mark[0] = 0
                self._get = self._transaction.get
                return self._get
        except lmdb.MapResizedError:
            shared.was_resized = True  # the writer follows
        except lmdb.Error as error:
            shared.note(error)
        self._mark[0] = 0
        shared.reading.release()
        return None

    def end_batch(self) -> None:
        """End the read transaction, if a look-up opened one. The core calls this after each batch of events."""
        if self._get is not None:
            self._get = None
            transaction, self._transaction = self._transaction, None
            try:
                transaction.abort()
            finally:
                self._shared.reading.release()  # or the next batch would wait for it for ever

    # ---- changes

    def keep(self, key: bytes, record: bytes) -> None:
        """Store a client's record. Look-ups find it at once; it is written to the file 1 s later at most."""
        if self._shared.was_open:
            self._pending.add(key, record)
            if self._writer.writes_through:
                self._writer.wake()

    def store(self, key: bytes, stamps: Stamps) -> None:
        """Remember a client's stamps."""
        self.keep(key, pack_stamps(stamps))

    def pending(self, key: bytes) -> Stamps | None:
        """Stamps that are perhaps not in the file yet."""
        value = self._pending.find(key)
        return None if value is None or value is DELETED else parse_stamps(value)

    def forget(self, first: bytes, last: bytes) -> int:
        """Another process deletes the records of the addresses `first` to `last`: delete those that are pending.

        Return how many.
        """
        pending = self._pending
        doomed = [key for key in (*pending.unwritten, *pending.being_written) if keys.within(key, first, last)]
        pending.delete(doomed)
        return len(doomed)

    def replace(self, records: Iterable[tuple[bytes, Stamps]]) -> int:
        """Another process has stored these: what is pending must not undo that. Return how many were pending."""
        newer = {key: pack_stamps(stamps) for key, stamps in records if self._pending.find(key) is not None}
        self._pending.replace(newer)
        return len(newer)
