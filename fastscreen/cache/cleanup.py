"""Records that leave the cache's file, in the writer's thread: expired ones, and the first to expire when it is full.

Cleanup is described in reference 7.4. The interpreter is given back after each slice, so that the loop is never held
longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import lmdb
import msgspec

from fastscreen.cache import lmdb_file
from fastscreen.cache.size_limit import SizeLimit
from fastscreen.cache.stamps import first_expiry, is_retained, parse_stamps

CLEANED_KEY = b"_LAST_CACHE_CLEANUP_COMPLETED_"
ROOM_SECONDS = 0.5  # of a turn, for dropping records of a full file
SLICE = 128  # records
SLICE_PAUSE = 0.002  # s
DROP_BATCH = 4096  # records in one write transaction, which makes other workers' writers wait


class FileAccess(Protocol):
    """What is needed of the writer."""

    @property
    def environment(self) -> Any: ...
    def begin_write(self) -> Any: ...
    def write_when_due(self) -> None: ...
    def is_pending(self, key: bytes) -> bool: ...
    def note_full(self) -> None: ...
    def pause(self, seconds: float) -> bool: ...


class Cleanup:
    """clock: s since 1970. first: this process cleans up for all."""

    def __init__(self, access: FileAccess, size_limit: SizeLimit, clock: Callable[[], float], first: bool) -> None:
        self._access = access
        self._size_limit = size_limit
        self._clock = clock
        self._first = first
        self.enabled: tuple[int, ...] = ()
        """Tests by index."""
        self.interval = 0
        """s; 0: no cleanup."""
        self.retention = 0
        """s."""

    # ---- expired records

    def is_due(self) -> bool:
        """Whether the interval has passed since the last cleanup; also if that was in the future (a changed clock)."""
        return self.interval > 0 and not self._last() <= self._clock() < self._last() + self.interval

    def _last(self) -> int:
        """When a cleanup was last completed, in s since 1970."""
        with self._access.environment.begin() as transaction:
            value = transaction.get(CLEANED_KEY)
        return parse_stamps(value)[0] if value is not None else 0

    def run(self, log: Callable[[str], object]) -> None:
        """Drop each record in which a pass of an enabled test expired longer ago than the retention time.

        A record that changed since it was read is kept. log: takes postscreen's line about it.
        """
        enabled, oldest = self.enabled, int(self._clock()) - self.retention
        retained = dropped = 0
        place: bytes | None = b""
        is_complete = False
        try:
            while place is not None:
                victims: list[bytes] = []
                while place is not None and len(victims) < DROP_BATCH:
                    place, kept = self._scan(place, enabled, oldest, victims)
                    retained += kept
                    if self._access.pause(SLICE_PAUSE):
                        return
                    self._access.write_when_due()
                deleted = self._drop(victims, enabled, oldest)
                dropped += deleted
                retained += len(victims) - deleted
            with self._access.begin_write() as transaction:
                transaction.put(CLEANED_KEY, msgspec.msgpack.encode([int(self._clock())]))
            is_complete = True
        finally:
            kind = "full" if is_complete else "partial"
            log(f"{kind} cleanup: retained={retained} dropped={dropped} entries")

    def _scan(
        self, place: bytes, enabled: tuple[int, ...], oldest: int, victims: list[bytes]
    ) -> tuple[bytes | None, int]:
        """Look at one slice from `place` on; return where the next one begins, and how many records stay."""
        kept = 0
        with self._access.environment.begin() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(place) if place else cursor.first()
            for _ in range(SLICE):
                if not found:
                    return None, kept
                key, value = cursor.item()
                if len(key) <= lmdb_file.RECORD_KEY_MAX:
                    if is_retained(value, enabled, oldest):
                        kept += 1
                    else:
                        victims.append(key)
                found = cursor.next()
            return (cursor.key() if found else None), kept

    def _drop(self, victims: list[bytes], enabled: tuple[int, ...], oldest: int) -> int:
        """Delete those that are still to be dropped, in one transaction; return how many."""
        if not victims:
            return 0
        dropped = 0
        try:
            with self._access.begin_write() as transaction:
                for number, key in enumerate(victims, 1):
                    value = transaction.get(key)
                    if (
                        value is not None
                        and not is_retained(value, enabled, oldest)
                        and not self._access.is_pending(key)
                    ):
                        transaction.delete(key)
                        dropped += 1
                    if number % SLICE == 0:
                        self._access.pause(SLICE_PAUSE)
            return dropped
        except lmdb.MapFullError:
            return self._delete(victims)

    # ---- a full file

    def make_room(self) -> None:
        """Drop records before the file is full, for part of this turn. One process does it for all."""
        deadline = time.monotonic() + ROOM_SECONDS
        while self._first and self._size_limit.is_wanted(self._access.environment) and time.monotonic() < deadline:
            if not self.drop_chunk():
                return

    def drop_chunk(self, share: int = 8) -> int:
        """Of the next records in the file, drop the expired ones and those that expire first. Return how many."""
        now = self._clock()
        chunk = self._size_limit.next_chunk(self._access.environment, lambda: self._access.pause(SLICE_PAUSE), SLICE)
        victims = self._size_limit.choose(
            [(key, first_expiry(value, self.enabled)) for key, value in chunk], now, share=share
        )
        dropped = self._delete(victims)
        self._size_limit.dropped(dropped)
        if dropped:
            self._access.note_full()
        return dropped

    def _delete(self, keys: list[bytes]) -> int:
        """Delete them in as few transactions as a full file has pages for. Return how many were there."""
        deleted = at = 0
        size = max(1, len(keys))
        while at < len(keys):
            try:
                with self._access.begin_write() as transaction:
                    some = [key for key in keys[at : at + size] if not self._access.is_pending(key)]
                    found = sum(transaction.delete(key) for key in some)
                deleted += found
                at += size
                self._access.pause(SLICE_PAUSE)
            except lmdb.MapFullError:
                if size == 1:
                    return deleted
                size = max(1, size // 8)
        return deleted
