"""What hosts share of their memory of offenses: the server has one record per network, in the format of the memory.

A host that stores a record merges it with the one in the server first (`offense_merge`), so that the record is what all
hosts know; if another host was faster, it does so again. A host that looks up a client's pass reads the records of its
network in the same batch. What it finds goes to the recorder, which merges it into the local memory: workers read
nothing else. Merging a record twice changes nothing, so a host's own offenses may come back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from fastscreen.cache.interfaces import Network
from fastscreen.cluster.forgotten import Forgotten
from fastscreen.cluster.link import StoreError
from fastscreen.cluster.local_cache import LocalDeletions
from fastscreen.cluster.records import (
    DAY,
    LONGEST,
    Reason,
    offenses_name,
    sign_offenses,
    verify_offenses,
)
from fastscreen.cluster.secrets import MAC_SIZE, Secrets
from fastscreen.cluster.store import Backoff, Replacement, Store
from fastscreen.cluster.tombstones import Tombstone
from fastscreen.core import OffenseRules, offense_merge, offense_summary
from fastscreen.offenses.networks import NUMBER_SIZES, keys_of_client
from fastscreen.offenses.packets import Record

GATHER = 0.5  # s, for more records before a batch is stored
BATCH = 200  # records
BATCH_BYTES = 64 << 10
QUEUE_MAX = 2000  # records
RECENT = 0.5  # s, in which a network is looked up once
REMEMBERED = 60.0  # s, in which a record that has not changed is not given to the recorder again
KNOWN_MAX = 20_000  # such records
SETTLED = 5  # s: after a deletion, records with what was deleted may still be on their way from the recorder
_HALF_LIVES_MAX = 8  # until the heaviest weight has decayed
_LAST_DAY = 0xFFFF
_UNKNOWN = (b"", -math.inf)


class _Waiting(Struct):
    """A record to be stored. made: s since 1970, by the server's clock."""

    record: bytes
    made: float


class OffenseSharing:
    """One host's part. name: of this host. local: deletes from the local memory.

    learn: gives records to the recorder. resend: asks it for those that changed since a day. ignore: counts a record
    that is not used. is_ready: whether the server can be used. clock: the server's (s since 1970); timer: s, monotonic.
    """

    def __init__(
        self,
        store: Store,
        secrets: Secrets,
        name: str,
        rules: OffenseRules,
        local: LocalDeletions,
        *,
        learn: Callable[[list[Record]], object],
        resend: Callable[[int], object],
        ignore: Callable[[Reason], object],
        is_ready: Callable[[], bool],
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        self.rules = rules
        self.shares = False
        self.accepts = False
        self.local = local
        self._store = store
        self._secrets = secrets
        self._name = name
        self._learn = learn
        self._resend = resend
        self._ignore = ignore
        self._is_ready = is_ready
        self._clock = clock
        self._timer = timer
        self.forgotten = Forgotten()
        self._recently_forgotten = Forgotten()  # with the time up to which the recorder may not know of it
        self._withheld = False  # something for that reason: the recorder is asked for it once it knows
        self._queue: dict[bytes, _Waiting] = {}
        self._lost_since = math.inf  # days since 1970: records that changed then or later had no room in the queue
        self._asked: set[bytes] = set()  # networks that were looked up since then (s, monotonic)
        self._asked_since = -math.inf
        self._known: dict[bytes, tuple[bytes, float]] = {}  # MAC of the record that the recorder got, and when
        self._wanted = asyncio.Event()
        self.stored = 0
        """Records that the server has taken."""
        self.found = 0
        """Records of other hosts that the recorder got."""
        self.dropped = 0
        """Records for which the queue had no room."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def most_seconds(self) -> int:
        """How long a record may stay in the server."""
        return min(_HALF_LIVES_MAX * self.rules.half_life + DAY, LONGEST)

    @property
    def _today(self) -> int:
        return min(max(0, int(self._clock()) // DAY), _LAST_DAY)

    # ---- look-ups

    def wanted(self, clients: Sequence[bytes]) -> list[bytes]:
        """The records to be read when these clients are looked up, by their keys in the cache."""
        now, asked = self._timer(), self._asked
        if now - self._asked_since >= RECENT:
            asked.clear()
            self._asked_since = now
        found = []
        for client in clients:
            for key in (b"4" + client[:3],) if len(client) == 4 else keys_of_client(client):
                if key not in asked:
                    asked.add(key)
                    found.append(key)
        return found

    def missed(self, keys: Sequence[bytes]) -> None:
        """They could not be read."""
        self._asked.difference_update(keys)

    def take(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """What the server has for them; None where there is nothing."""
        found = []
        for key, value in zip(keys, values, strict=True):
            if value is not None and not self._is_known(key, value):
                record = self._usable(key, value)
                if record is not None:
                    found.append((key, record))
        self._give(found)

    def _is_known(self, key: bytes, value: bytes) -> bool:
        """Whether the recorder has got this record a moment ago, or it comes from here."""
        mac, since = self._known.get(key, _UNKNOWN)
        return mac == value[-MAC_SIZE:] and self._timer() - since < REMEMBERED

    def _note(self, key: bytes, value: bytes) -> None:
        self._known.pop(key, None)
        self._known[key] = value[-MAC_SIZE:], self._timer()
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _usable(self, key: bytes, value: bytes) -> bytes | None:
        """What of a value in the server may be used."""
        sealed = verify_offenses(self._secrets, key, value, now=self._clock())
        if isinstance(sealed, Reason):
            self._ignore(sealed)
            return None
        self._note(key, value)
        record = self.forgotten.left_of(key, sealed.body, sealed.stored)
        if record is None:
            self._ignore(Reason.DELETED)
        return record

    def _give(self, records: list[Record]) -> None:
        if records and self.accepts:
            self.found += len(records)
            self._learn(records)

    # ---- storing

    def keep(self, records: Sequence[Record]) -> None:
        """The recorder has changed these records."""
        if not self.shares:
            return
        now = self._clock()
        for key, record in records:
            self._queue.pop(key, None)
            self._queue[key] = _Waiting(record, now)
        while len(self._queue) > QUEUE_MAX:
            oldest = next(iter(self._queue))
            self._lost_since = min(self._lost_since, self._queue.pop(oldest).made // DAY)
            self.dropped += 1
        if self._queue:
            self._wanted.set()

    def find_gap(self, shared: float) -> None:
        """The server may lack records. shared: those up to then were stored in it (s since 1970); 0: none."""
        if self.shares:
            self._lost_since = min(self._lost_since, max(0, shared // DAY - 1))

    def connected(self) -> None:
        """The server can be used."""
        self._wanted.set()

    async def run(self) -> None:
        """Store what waits, until it is cancelled."""
        backoff = Backoff()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(GATHER)
            while self._is_ready() and self._queue:
                batch = self._take_batch()
                try:
                    await self._store_batch(batch)
                except StoreError:
                    self._put_back(batch)
                    await asyncio.sleep(backoff.pause())
                else:
                    backoff.reset()
                    await asyncio.sleep(GATHER)
            if self._is_ready() and self._lost_since < math.inf:
                since, self._lost_since = self._lost_since, math.inf
                self._resend(int(since))

    def _take_batch(self) -> dict[bytes, _Waiting]:
        batch: dict[bytes, _Waiting] = {}
        size = 0
        while self._queue and len(batch) < BATCH and size < BATCH_BYTES:
            key = next(iter(self._queue))
            batch[key] = self._queue.pop(key)
            size += len(batch[key].record)
        return batch

    def _put_back(self, batch: dict[bytes, _Waiting]) -> None:
        """They come first again, unless they have changed since."""
        self._queue = {**batch, **self._queue}

    async def _store_batch(self, batch: dict[bytes, _Waiting]) -> None:
        """Merge each record with what the server has, and store it. StoreError."""
        values = await self._store.get_to_replace([offenses_name(key) for key in batch])
        writes: dict[bytes, Replacement] = {}
        news = []
        for (key, waiting), value in zip(batch.items(), values, strict=True):
            theirs = None
            if value is not None:
                is_known = self._is_known(key, value)
                theirs = self._usable(key, value)
                if theirs is not None and not is_known:
                    news.append((key, theirs))
            record = self._merged(key, waiting, theirs)
            if record is not None and record != theirs:
                writes[key] = self._replacement(key, record, value or b"")
        self._give(news)
        if not writes:
            return
        for (key, write), is_stored in zip(writes.items(), await self._store.replace([*writes.values()]), strict=True):
            if is_stored:
                self.stored += 1
                self._note(key, write.value)
            else:  # another host was faster: merge with what it has stored
                self._queue.setdefault(key, batch[key])

    def _merged(self, key: bytes, waiting: _Waiting, theirs: bytes | None) -> bytes | None:
        """What all hosts know. None: nothing."""
        ours = self._recently_forgotten.left_of(key, waiting.record, waiting.made)
        self._withheld = self._withheld or ours != waiting.record
        if ours is None:
            return None
        merged = offense_merge(theirs, ours, NUMBER_SIZES[key[:1]], self._today, self.rules)
        return merged[0] if merged is not None else None

    def _replacement(self, key: bytes, record: bytes, before: bytes) -> Replacement:
        now = self._clock()
        seconds = self._seconds_of(record)
        value = sign_offenses(self._secrets, key, record, expiry=int(now) + seconds, host=self._name, stored=now)
        return Replacement(offenses_name(key), value, seconds, before[-MAC_SIZE:])

    def _seconds_of(self, record: bytes) -> int:
        """How long it takes until all of a record has decayed."""
        summary = offense_summary(record, self._today, self.rules)
        heaviest = summary[2] if summary is not None else 0.0
        half_lives = max(0.0, math.log2(max(heaviest, 1 / 16) * 16))
        return min(int(half_lives * self.rules.half_life) + DAY, self.most_seconds)

    # ---- deletions

    def forget(self, tombstone: Tombstone, value: bytes, *, is_new: bool) -> bool:
        """What is known of a network was deleted. is_new: the recorder may not know it yet. False: it is known."""
        if not self.forgotten.add(tombstone, value):
            return False
        self._known.clear()
        if is_new:
            until = int(max(self._clock(), tombstone.time)) + SETTLED
            self._recently_forgotten.add(Tombstone(tombstone.network, until, tombstone.host, True), b"")
        return True

    def delete_locally(self, network: Network) -> None:
        """Another host has deleted it."""
        self.local.delete(network, lambda _: False)

    def expire(self) -> None:
        """Forget old deletions; due every few seconds."""
        now = self._clock()
        self.forgotten.expire(now - self.most_seconds)
        self._recently_forgotten.expire(now)
        if self._withheld and not len(self._recently_forgotten):
            self._withheld = False
            self._lost_since = min(self._lost_since, self._today)
            self._wanted.set()
