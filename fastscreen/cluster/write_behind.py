"""Records that are still to be stored in the server, and what is done about those that were dropped.

The queue is bounded in bytes and age. A batch stays in it until the server has acknowledged it, so that it is sent
again after a reconnect. When records were dropped, or the server has lost some, the local cache has them: `Resync`
sends those that are newer than what the server acknowledged last.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from fastscreen.cache.interfaces import Entry
from fastscreen.cache.stamps import Stamps, merged

BYTES_MAX = 16 << 20
AGE_MAX = 600.0  # s
BATCH = 200  # records
OVERHEAD = 400  # bytes of memory for a record, besides its key and stamps
_STAMP = 32  # bytes of memory


class Pass(NamedTuple):
    """A client's passes. made: s since 1970. first: when it was queued first; everything older was taken before."""

    key: bytes
    stamps: Stamps
    made: float
    first: float


class _Entry(Struct):
    stamps: Stamps
    made: float
    queued: float  # s, monotonic: first
    first: float  # s since 1970: the first `made` of this key here


class WriteQueue:
    """clock: s, monotonic."""

    def __init__(self, clock: Callable[[], float], bytes_max: int = BYTES_MAX) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._entries: dict[bytes, _Entry] = {}  # the oldest first
        self._sent: dict[bytes, _Entry] = {}
        self.bytes = 0
        self.dropped = 0
        """Records that were dropped: too old, or too many."""
        self.dropped_since = math.inf
        """When the first record was made that has been dropped since `forgive` (s since 1970)."""

    def __len__(self) -> int:
        return len(self._entries) + len(self._sent)

    @property
    def waiting(self) -> int:
        """Records that are not on their way."""
        return len(self._entries)

    @property
    def age(self) -> float:
        """Of the oldest record (s); 0: the queue is empty."""
        oldest = [next(iter(some.values())).queued for some in (self._sent, self._entries) if some]
        return self._clock() - min(oldest) if oldest else 0.0

    @property
    def first(self) -> float:
        """When the oldest record was made (s since 1970); inf: the queue is empty."""
        return min((next(iter(some.values())).first for some in (self._sent, self._entries) if some), default=math.inf)

    def put(self, key: bytes, stamps: Stamps, made: float) -> None:
        """Add a record. If one of this client waits, the later stamp of each test stays, and its place in the queue."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.stamps, entry.made = merged(entry.stamps, stamps), max(entry.made, made)
            return
        self._entries[key] = _Entry(stamps, made, self._clock(), made)
        self.bytes += _size(key, stamps)
        while self.bytes > self._bytes_max and self._entries:
            self._drop(next(iter(self._entries)))

    def expire(self) -> None:
        """Drop what is too old; due every second."""
        before = self._clock() - AGE_MAX
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.queued > before:
                return
            self._drop(key)

    def take(self, batches: int = 1) -> list[list[Pass]]:
        """The next records, which are on their way from now on: `acknowledge` or `put_back` follows."""
        found: list[list[Pass]] = []
        while self._entries and len(found) < batches:
            batch: list[Pass] = []
            while self._entries and len(batch) < BATCH:
                key = next(iter(self._entries))
                if key in self._sent:  # it changed while it was on its way: after that is over
                    break
                entry = self._sent[key] = self._entries.pop(key)
                batch.append(Pass(key, entry.stamps, entry.made, entry.first))
            if not batch:
                break
            found.append(batch)
        return found

    def acknowledge(self) -> None:
        """What was taken is stored."""
        for key, entry in self._sent.items():
            self.bytes -= _size(key, entry.stamps)
        self._sent.clear()

    def put_back(self) -> None:
        """What was taken is perhaps not stored: it comes first again."""
        newer, self._entries = self._entries, self._sent
        self._sent = {}
        for key, entry in newer.items():
            older = self._entries.get(key)
            if older is None:
                self._entries[key] = entry
            else:
                self.bytes -= _size(key, entry.stamps)
                older.stamps, older.made = merged(older.stamps, entry.stamps), max(older.made, entry.made)

    def remove(self, is_deleted: Callable[[bytes, float], bool]) -> int:
        """Remove records that were deleted: is_deleted(key, made). Return how many."""
        gone = [key for key, entry in self._entries.items() if is_deleted(key, entry.made)]
        for key in gone:
            self.bytes -= _size(key, self._entries.pop(key).stamps)
        return len(gone)

    def forgive(self) -> float:
        """Records since when have been dropped (inf: none); from now on they are the caller's concern."""
        since, self.dropped_since = self.dropped_since, math.inf
        return since

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self.bytes -= _size(key, entry.stamps)
        self.dropped += 1
        self.dropped_since = min(self.dropped_since, entry.first)


def _size(key: bytes, stamps: Stamps) -> int:
    return OVERHEAD + len(key) + _STAMP * len(stamps)


Slice = Callable[[bytes], Awaitable[tuple[list[Entry], bool]]]
"""Records of the local cache after a key, and whether there may be more. OSError, or one line for the operator."""


class Resync:
    """Sends the local cache's passes again, in the background: a batch every PAUSE seconds.

    read: from the local cache. send: stores a batch; ConnectionError: the server is gone. choose: of the records read,
    those to send. pause: waits.
    """

    PAUSE = 0.05  # s

    def __init__(
        self,
        read: Slice,
        send: Callable[[Sequence[Pass]], Awaitable[None]],
        choose: Callable[[Iterable[Entry], float], list[Pass]],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read = read
        self._send = send
        self._choose = choose
        self._pause = pause
        self.sent = 0
        self.is_running = False

    async def run(self, since: float) -> None:
        """Send all passes that were made after `since` (s since 1970; -inf: all). ConnectionError: no server."""
        self.is_running = True
        try:
            after, more = b"", True
            while more:
                entries, more = await self._read(after)
                if entries:
                    after = entries[-1][0]
                chosen = self._choose(entries, since)
                for first in range(0, len(chosen), BATCH):
                    batch = chosen[first : first + BATCH]
                    await self._send(batch)
                    self.sent += len(batch)
                    await self._pause(self.PAUSE)
                if not chosen:
                    await self._pause(self.PAUSE)
        finally:
            self.is_running = False
