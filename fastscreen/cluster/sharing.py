"""What the cluster process does with the server: looks passes up, stores them, and makes deletions everywhere.

The memory of offenses is in offense_sharing.py; its deletions are made here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec import UNSET, Struct

from fastscreen.cache import keys
from fastscreen.cache.interfaces import Entry, Network
from fastscreen.cache.stamps import Stamps
from fastscreen.cluster import deletion_file, records, tombstones
from fastscreen.cluster.deletion_file import DamagedError, DeletionFile
from fastscreen.cluster.link import StoreError
from fastscreen.cluster.local_cache import LocalCache, LocalDeletions
from fastscreen.cluster.lookups import Answer, Lookups, Refused
from fastscreen.cluster.offense_sharing import OffenseSharing
from fastscreen.cluster.records import (
    CHECK_LABEL,
    Lifetimes,
    Reason,
    SharedPass,
    offenses_name,
    offenses_names,
    record_key,
    record_name,
)
from fastscreen.cluster.secrets import Secrets
from fastscreen.cluster.servers import Servers
from fastscreen.cluster.store import AWAY_SECONDS, HOSTS_SECONDS, PEERS_MAX, Backoff, HostEntry, Store, Write
from fastscreen.cluster.tombstones import Tombstone, Tombstones
from fastscreen.cluster.write_behind import Pass, Resync, WriteQueue
from fastscreen.config.model import ClusterConfig
from fastscreen.core import OffenseRules, read_record, write_record
from fastscreen.escaping import one_line
from fastscreen.offenses.networks import keys_around, network_of
from fastscreen.offenses.packets import Record

GATHER = 0.05  # s, for more records before a batch is sent
PARALLEL = 4  # batches on their way
REFRESH_SECONDS = 5.0
SLACK = 60.0  # s: passes are sent again from so long before the last acknowledged one
RESCORE = 600.0  # s: deletions are made again from so long before the last one: servers' clocks differ, too
SETTLED_SECONDS = 2.5  # until workers have written to the local cache what they have told this process
RECENT_DELETIONS = 100  # that are looked at with every refresh, in case a message was lost
TURN = 100  # deletions that are made before anything else has its turn
FORCED_MAX = 10_000  # records that are to be replaced
CHECK_SECONDS = 60
PREDECESSOR_SECONDS = 60.0  # after the start, for which a former process of this host may be there
CLOCK_SECONDS = 300.0  # by which this host's clock and the server's may differ
SCAN_PAUSE = 0.005  # s
DELETIONS_SHOWN = 5
REMOVAL_SECONDS = 3600.0
REMOVALS_MAX = 10  # networks whose records are removed from the server at a time

Found = tuple[bytes, bytes]
"""A cache key and a cache record."""


class Offenses(Struct, frozen=True):
    """What the cluster process has for the memory of offenses. local: deletes from the file. deletions: as of passes.

    learn: gives records to the recorder. resend: asks it for those that changed since a day (days since 1970).
    """

    rules: OffenseRules
    local: LocalDeletions
    deletions: DeletionFile | None
    learn: Callable[[list[Record]], object]
    resend: Callable[[int], object]


class _Deletions(Struct):
    """Deletions of one kind that the server does not have yet. file: keeps them. are_kept: they are in the file."""

    file: DeletionFile | None
    unpublished: dict[Network, tuple[Tombstone, bytes]]
    are_kept: bool
    trouble: str = ""


class Sharing:
    """One host's part in a cluster.

    name: of this host. deletions: the file with deletions to be sent; None: there is none.
    deliver(worker, found): for a worker that asked. deleted(tombstone): another host deleted a
    network's passes. info, warn: log one line. clock: s since 1970; timer: s, monotonic.

    Hosts' clocks differ. Everything that hosts compare (when a pass was stored, deleted, acknowledged) is in the
    server's time, as `_clock` has it. Stamps are in the time of the host that made them.
    """

    def __init__(
        self,
        cluster: ClusterConfig,
        name: str,
        version: str,
        servers: Servers,
        secrets: Secrets,
        lifetimes: Lifetimes,
        local: LocalCache,
        deletions: DeletionFile | None,
        *,
        deliver: Callable[[int, list[Found]], object],
        deleted: Callable[[Tombstone], object],
        info: Callable[[str], object],
        warn: Callable[[str], object],
        clock: Callable[[], float],
        timer: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        offenses: Offenses | None = None,
    ) -> None:
        self.lifetimes = lifetimes
        self._name = name
        self._version = version
        self._secrets = secrets
        self._local = local
        self._deliver_to = deliver
        self._deleted = deleted
        self._info = info
        self._warn = warn
        self._own_clock = clock
        self._timer = timer
        self.store = Store(servers, cluster.prefix, self, clock=clock)
        self.lookups = Lookups(self._fetch, self._deliver, lambda: self._is_ready, cluster.budget, timer, loop)
        self.queue = WriteQueue(timer)
        self.resync = Resync(local.read, self._store_again, self._choose)
        self.tombstones = Tombstones()
        self._removed = Tombstones()  # not yet applied to the queue
        self.hits = 0
        self.stored = 0
        self.ignored: Counter[Reason] = Counter()
        self.bad_mac_at = -math.inf
        """When a record's MAC was wrong last (s since 1970, by this host's clock)."""
        self.peers: Mapping[str, HostEntry] = {}
        self._seen: Mapping[str, float] = {}  # when each of them was seen last (s, monotonic)
        self.acknowledged = 0.0
        """All of this host's passes up to then are in the server (s since 1970)."""
        self._id = uuid.uuid4().hex
        self._started = timer()
        self._strange_entries = 0  # in a row
        self.namesake_at = -math.inf
        """When another host with this host's name was noticed last (s, monotonic)."""
        self.is_superseded = False
        """After a restart: the successor on this host has its name, too."""
        self._is_ready = False  # connected, and deletions are known
        self._is_new = True  # this process has not been connected yet
        self._has_caught_up = False  # on this connection
        self._has_entry = False  # in the server, as far as this connection knows
        self._is_emptied = False  # somebody has deleted all from the server while it was connected
        self._resync_from = math.inf  # passes that were made after this are perhaps not in the server
        self._deleted_score = 0.0  # deletions up to this score have been made here
        self._unverified_score = math.inf  # of the first deletion after them that was not, but may be after a restart
        self._trouble = ""  # with the local cache
        files = (deletions, offenses.deletions if offenses is not None else None)
        self._of_passes, self._of_offenses = (_Deletions(file, {}, file is not None) for file in files)
        self._forced: OrderedDict[bytes, None] = OrderedDict()
        self._wanted = asyncio.Event()
        self._loop = loop
        self._tasks: list[asyncio.Task[None]] = []
        self._session: asyncio.Task[None] | None = None
        self._removals: list[asyncio.Task[None]] = []
        self.offenses: OffenseSharing | None = None
        """None: this host has no memory of offenses."""
        if offenses is not None:
            self.offenses = OffenseSharing(
                self.store,
                secrets,
                name,
                offenses.rules,
                offenses.local,
                learn=offenses.learn,
                resend=offenses.resend,
                ignore=self._ignore,
                is_ready=lambda: self._is_ready,
                clock=self._clock,
                timer=timer,
            )
        self.configure(cluster)

    def configure(self, cluster: ClusterConfig) -> None:
        """Follow a new configuration as far as this does not need a restart."""
        self.lookups.budget = cluster.budget
        self.shares, self.accepts = "passes" in cluster.share, "passes" in cluster.accept
        if self.offenses is not None:
            shared, self.offenses.shares = self.offenses.shares, "offenses" in cluster.share
            if not shared and self._is_ready:
                self.offenses.find_gap(0)
                self.offenses.connected()
            self.offenses.accepts = "offenses" in cluster.accept

    def _clock(self) -> float:
        """The server's time (s since 1970), as far as this host knows it."""
        return self._own_clock() + self.store.ahead

    def start(self) -> None:
        """Connect, and work from now on."""
        for deletions in (self._of_passes, self._of_offenses):
            self._restore_deletions(deletions)
        tasks = [self.store.run(), self._write(), self._refresh(), self._local.run()]
        if self.offenses is not None:
            tasks += [self.offenses.run(), self.offenses.local.run()]
        for task in tasks:
            self._tasks.append(self._loop.create_task(task))

    async def close(self, seconds: float) -> None:
        """Store what is in the queue, if that takes no longer than this, and end."""
        by = self._loop.time() + seconds
        while self._is_ready and self._has_waiting() and self._loop.time() < by:
            self._wanted.set()
            await asyncio.sleep(0.02)
        self._is_ready = False
        self.lookups.close()
        tasks = [*self._tasks, *self._removals, *([self._session] if self._session is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for deletions, command in ((self._of_passes, "cache"), (self._of_offenses, "reputation")):
            self._show_unsent(deletions, command)
            if deletions.file is not None:
                deletions.file.close()
        self._local.close()
        if self.offenses is not None:
            self.offenses.local.close()

    def _has_waiting(self) -> bool:
        return bool(len(self.queue)) or (self.offenses is not None and bool(len(self.offenses)))

    def _show_unsent(self, deletions: _Deletions, command: str) -> None:
        if not deletions.unpublished or (deletions.are_kept and self.is_superseded):
            return
        shown = ", ".join(map(str, [*deletions.unpublished][:DELETIONS_SHOWN]))
        more = ", …" if len(deletions.unpublished) > DELETIONS_SHOWN else ""
        if deletions.are_kept:
            self._info(f"cluster: deletions are sent to the server after the next start: {shown}{more}")
        else:
            self._warn(
                "cluster: deletions were not sent to the server, so other hosts keep these clients: "
                f"{shown}{more}; run `fastscreen {command} delete` again when the server is back"
            )

    def failed(self) -> BaseException | None:
        """Why one of the tasks has ended, which none should; None: all of them work."""
        for task in (*self._tasks, *self._removals, self._session):
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    # ---- for workers

    def look_up(self, worker: int, wanted: Iterable[bytes]) -> None:
        """A worker asks for these cache keys."""
        if self.accepts or (self.offenses is not None and self.offenses.accepts):
            self.lookups.ask(worker, wanted)

    def keep(self, key: bytes, record: bytes) -> bool:
        """A worker has a client's new record. False: it is malformed."""
        stamps = read_record(record)
        if stamps is None:
            return False
        if self.shares:
            self._remove_waiting()
            self.queue.put(key, stamps, self._clock())
            self._wanted.set()
        return True

    def expire(self) -> None:
        """Drop what is too old; due every second."""
        self.lookups.expire()
        self.queue.expire()

    # ---- look-ups

    async def _fetch(self, wanted: Sequence[bytes]) -> Sequence[object]:
        offenses = self.offenses if self.offenses is not None and self.offenses.accepts else None
        names = [record_name(key) for key in wanted] if self.accepts else []
        networks = offenses.wanted(wanted) if offenses is not None else []
        count = len(names)
        names += offenses_names(networks)
        if not names:
            return [None] * len(wanted)
        try:
            values = await self.store.get(names)
        except StoreError as error:
            if offenses is not None:
                offenses.missed(networks)
            if error.refused:
                raise Refused from None
            raise
        if offenses is not None:
            offenses.take(networks, values[count:])
        return values[:count] if count else [None] * len(wanted)

    def _deliver(self, answers: list[Answer]) -> None:
        found: dict[int, list[Found]] = {}
        for workers, key, value in answers:
            shared = self._verified(key, value)
            if isinstance(shared, SharedPass):
                self.hits += 1
                record = write_record(shared.stamps)
                for worker in workers:
                    found.setdefault(worker, []).append((key, record))
        for worker, some in found.items():
            self._deliver_to(worker, some)

    def _verified(self, key: bytes, value: object) -> SharedPass | Reason:
        shared = records.verify_pass(
            self._secrets,
            key,
            value,
            self.lifetimes,
            now=self._clock(),
            deleted=self.tombstones.deleted_at(key),
        )
        if isinstance(shared, Reason):
            self._ignore(shared)
            # By a clock that is slow, good records are from the future.
            is_slow = shared is Reason.FUTURE and self.store.difference > CLOCK_SECONDS
            if shared.is_replaced and not is_slow:
                self._forced[key] = None
                if len(self._forced) > FORCED_MAX:
                    self._forced.popitem(last=False)
        return shared

    def _ignore(self, reason: Reason) -> None:
        self.ignored[reason] += 1
        if reason is Reason.BAD_MAC:
            self.bad_mac_at = self._own_clock()

    async def get(self, key: bytes) -> SharedPass | Reason | None:
        """What the server has for a client. StoreError."""
        [value] = await self.store.get([record_name(key)])
        return None if value is None else self._verified(key, value)

    async def check(self) -> float:
        """Store and read a record; return how long that took (s). StoreError."""
        name = b"c:" + self._name.encode()
        now = self._clock()
        expiry = int(now) + CHECK_SECONDS
        value = records.seal(self._secrets, CHECK_LABEL, name, b"", expiry=expiry, stored=now, host=self._name)
        seconds, found = await self.store.round_trip(name, value, CHECK_SECONDS)
        if isinstance(records.unseal(self._secrets, CHECK_LABEL, name, found), Reason):
            raise StoreError("the server does not return what was stored", refused=True)
        return seconds

    # ---- storing

    async def _write(self) -> None:
        backoff = Backoff()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(GATHER)
            while self._is_ready and self.queue.waiting:
                self._remove_waiting()
                batches = self.queue.take(PARALLEL)
                results = await asyncio.gather(*map(self._store, batches), return_exceptions=True)
                error = next((result for result in results if isinstance(result, BaseException)), None)
                if error is None:
                    self.queue.acknowledge()
                    backoff.reset()
                    continue
                self.queue.put_back()
                if not isinstance(error, StoreError):
                    raise error
                await asyncio.sleep(backoff.pause())

    async def _store(self, batch: Sequence[Pass]) -> None:
        """Store passes of the queue, which come in order."""
        acknowledged = max(self.acknowledged, min(batch[-1].first, self._resync_from, self.queue.dropped_since))
        await self._put(batch, acknowledged)
        self.acknowledged = max(self.acknowledged, acknowledged)

    async def _store_again(self, batch: Sequence[Pass]) -> None:
        """Store passes of the local cache."""
        await self._put(batch, self.acknowledged)

    async def _put(self, batch: Sequence[Pass], acknowledged: float) -> None:
        now = self._clock()
        writes = []
        for key, stamps, made, _ in batch:
            expiry = min(max(stamps), records.TIME_MAX)
            if expiry > now and made > self.tombstones.deleted_at(key):
                value = records.sign_pass(self._secrets, key, stamps, host=self._name, stored=made)
                writes.append(Write(record_name(key), value, key in self._forced))
        shared = now if self.offenses is not None and self.offenses.shares else UNSET
        entry = HostEntry(self._own_clock(), self._version, acknowledged, self._deleted_score, self._id, shared)
        _, is_new = await self.store.put(writes, records.most_seconds(self.lifetimes), self._name, entry)
        if is_new and self._has_entry:
            self._is_emptied = True
        self._has_entry = True
        self.stored += len(writes)
        for key, *_ in batch:
            self._forced.pop(key, None)

    def _choose(self, entries: Iterable[Entry], since: float) -> list[Pass]:
        """Of the local cache's records, those that were made after a time and are still valid."""
        now, ahead = self._clock(), self.store.ahead
        found = []
        for key, stamps in entries:
            made = records.earliest_pass(stamps, self.lifetimes) + ahead
            if (
                max(stamps) > now
                and records.latest_pass(stamps, self.lifetimes) + ahead >= since
                and made > self.tombstones.deleted_at(key)
            ):
                found.append(Pass(key, stamps, min(made, now), made))
        return found

    # ---- the connection

    def connected(self) -> None:
        status = self.store.status()
        self._info(f"cluster: connected to {status.server}, {status.role}")
        self._has_entry = self._has_caught_up = False
        self._session = self._loop.create_task(self._catch_up())

    def disconnected(self, why: str) -> None:
        self._is_ready = False
        if self._session is not None:
            self._session.cancel()
            self._session = None

    async def _catch_up(self) -> None:
        """After a connect: learn of deletions, then send what the server does not have."""
        try:
            try:
                known = await self.store.hosts(self._name)
            except StoreError as error:
                if error.refused:  # what this host claims from now on must be right all the same
                    self._find_gap(None)
                raise
            own = known.get(self._name) if not self._is_emptied else None
            # Before anything can be refused: afterwards, a new entry of this host may be there.
            self._find_gap(own)
            self._is_emptied = False
            await self._learn_deletions(own)
            self._has_caught_up = True
            self._begin()
            await self._say_hello()
            await self._resync()
        except StoreError as error:
            if error.refused:
                # Look-ups work; after a refresh that is not refused, the rest is tried again.
                self._begin()

    def _begin(self) -> None:
        """Ask and store from now on."""
        self._is_ready = True
        self.lookups.connected()
        self._wanted.set()
        if self.offenses is not None:
            self.offenses.connected()

    def _find_gap(self, own: HostEntry | None) -> None:
        """Find out since when the server lacks passes of this host: it, or this process, may have been replaced."""
        before, now = self.acknowledged, self._clock()
        self.acknowledged = min(own.acknowledged, now) if own is not None else 0.0
        if own is None:
            self._resync_from = -math.inf
        elif self._is_new or self.acknowledged < before:
            self._resync_from = min(self._resync_from, self.acknowledged - SLACK)
        if self.offenses is not None and (own is None or self._is_new or not own.offenses):
            self.offenses.find_gap(min(own.offenses or 0.0, now) if own is not None else 0.0)
        self._is_new = False

    async def _resync(self) -> None:
        """Send the local cache's passes that the server may lack. StoreError."""
        self._resync_from = min(self._resync_from, self.queue.forgive() - SLACK)
        if self._resync_from == math.inf or not self.shares:
            return
        started = self._clock()
        await asyncio.sleep(SETTLED_SECONDS)
        try:
            await self.resync.run(self._resync_from)
        except StoreError:
            raise
        except Exception as error:
            trouble, self._trouble = self._trouble, one_line(error)
            if trouble != self._trouble:
                self._warn(f"cluster: passes of the local cache cannot be sent again: {self._trouble}; retried")
            return
        self._trouble = ""
        if self._is_emptied:  # meanwhile
            return
        self._resync_from = math.inf
        self.acknowledged = max(self.acknowledged, min(started, self.queue.first - 1, self.queue.dropped_since))
        await self._say_hello()

    async def _refresh(self) -> None:
        """Every few seconds: say that this host is there, look who else is, and whether something was missed."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if not self._is_ready:
                continue
            try:
                await self.store.keep_alive()
                await self._look_around()
                await self._say_hello()
                await self._publish_again()
                await self._learn_recent_deletions()
            except StoreError:
                continue  # the store's status has it
            session = self._session
            if session is None or not session.done() or session.cancelled() or session.exception() is not None:
                continue
            if self._is_emptied or not self._has_caught_up:
                self._session = self._loop.create_task(self._catch_up())
            elif self._has_gap():
                self._session = self._loop.create_task(self._repair())

    def _has_gap(self) -> bool:
        return self._resync_from < math.inf or (self.queue.dropped_since < math.inf and not self.queue.waiting)

    async def _repair(self) -> None:
        with contextlib.suppress(StoreError):  # tried again after the next refresh
            await self._resync()

    async def _say_hello(self) -> None:
        await self._put((), self.acknowledged)

    def present_peers(self) -> list[tuple[str, HostEntry, bool]]:
        """Other hosts, by name: what they say, and whether they have been silent for long."""
        before = self._timer() - AWAY_SECONDS
        others = sorted((name, entry) for name, entry in self.peers.items() if name != self._name)
        return [(name, entry, self._seen[name] < before) for name, entry in others[:PEERS_MAX]]

    def _find_namesake(self, own: HostEntry | None) -> None:
        """own: this host's entry, before it is written again."""
        if own is None or own.id == self._id:
            self._strange_entries = 0
        elif self.is_superseded:
            self._id = own.id  # the successor finds nothing strange
        else:
            self._strange_entries += 1
            now = self._timer()
            if self._strange_entries > 1 and now > self._started + PREDECESSOR_SECONDS:
                self.namesake_at = now

    async def _look_around(self) -> None:
        """Find out who is there, and forget hosts that have not been for days. StoreError."""
        found = dict(await self.store.hosts(self._name))
        self._find_namesake(found.get(self._name))
        before = self._clock() - HOSTS_SECONDS
        gone = [name for name, entry in found.items() if entry.time < before and name != self._name]
        if gone:
            await self.store.forget_hosts(gone)
            for name in gone:
                del found[name]
        # Of too many hosts, only a part is known at a time.
        self._take_peers({} if self.store.is_crowded else found)

    def _take_peers(self, found: Mapping[str, HostEntry]) -> None:
        """A host is there while its entry changes, whatever its clock says."""
        before, now = self._seen, self._timer()
        long_ago = self._clock() - AWAY_SECONDS - records.SKEW
        seen: dict[str, float] = {}
        for name, entry in found.items():
            known = self.peers.get(name)
            if known is None:
                seen[name] = now if entry.time > long_ago else -math.inf
            else:
                seen[name] = before[name] if known.time == entry.time else now
        self.peers, self._seen = found, seen

    # ---- deletions

    @property
    def _most_seconds(self) -> int:
        """How long anything may stay in the server."""
        most = records.most_seconds(self.lifetimes)
        return max(most, self.offenses.most_seconds) if self.offenses is not None else most

    async def forget(self, network: Network) -> bool:
        """Delete what is remembered of a network everywhere but in the local memory. False: when the server is back."""
        if self.offenses is None:
            raise ValueError("this host has no memory of offenses")
        tombstone = Tombstone(network, int(self._clock()), self._name, True)
        value = tombstones.sign(self._secrets, tombstone, self._most_seconds)
        self._learn(tombstone, value, is_new=True)
        try:
            await self._publish(
                value, [offenses_name(key) for key in keys_around(network) if network_of(key) == network]
            )
        except StoreError:
            await self._keep_deletion(tombstone, value)
            return False
        return True

    async def delete(self, network: Network) -> bool:
        """Delete a network's passes everywhere but in the local cache. False: when the server is back."""
        tombstone = Tombstone(network, int(self._clock()), self._name)
        value = tombstones.sign(self._secrets, tombstone, records.most_seconds(self.lifetimes))
        self._learn(tombstone, value)
        try:
            await self._publish(value, [record_name(keys.of_network(network))])
        except StoreError:
            await self._keep_deletion(tombstone, value)
            return False
        if network.prefixlen < network.max_prefixlen:
            self._removals = [task for task in self._removals if not task.done()]
            if len(self._removals) < REMOVALS_MAX:
                self._removals.append(self._loop.create_task(self._remove(network)))
        return True

    async def _remove(self, network: Network) -> None:
        """Remove a network's records from the server, slowly. The deletion holds without that, but for the records of
        hosts whose clock is ahead of the server's, as long as they have not noticed.
        """
        by = self._timer() + REMOVAL_SECONDS  # a server might never end
        digits = network.network_address.packed.hex()[: network.prefixlen // 4]
        cursor = b"0"
        with contextlib.suppress(StoreError):
            while True:
                cursor, found = await self.store.scan(cursor, b"p:" + digits.encode())
                gone = [name for name in found if (key := record_key(name)) and tombstones.covers(network, key)]
                if gone:
                    await self.store.remove(gone)
                if cursor == b"0" or self._timer() > by:
                    return
                await asyncio.sleep(SCAN_PAUSE)

    async def _publish(self, value: bytes, names: Sequence[bytes] = ()) -> None:
        await self.store.add_deletion(value, names, self._most_seconds, tombstones.MOST)

    async def _publish_again(self) -> None:
        sent: list[Tombstone] = []
        try:
            for tombstone, value in [*self._of_passes.unpublished.values(), *self._of_offenses.unpublished.values()]:
                await self._publish(value)
                sent.append(tombstone)
        finally:
            await self._forget_deletions(sent)

    # ---- deletions that the server does not have yet

    def _deletions_like(self, tombstone: Tombstone) -> _Deletions:
        return self._of_offenses if tombstone.of_offenses else self._of_passes

    def _restore_deletions(self, deletions: _Deletions) -> None:
        """Those that a former process could not send."""
        if deletions.file is None:
            return
        try:
            found = deletions.file.read()
        except (OSError, DamagedError) as error:
            self._warn_of_file(deletions, error)
            return
        now, most = self._clock(), self._most_seconds
        for network, time in found.items():
            time = min(time, int(now + records.SKEW))
            tombstone = Tombstone(network, time, self._name, deletions is self._of_offenses)
            value = tombstones.sign(self._secrets, tombstone, most)
            self._learn(tombstone, value)
            deletions.unpublished[network] = tombstone, value

    async def _keep_deletion(self, tombstone: Tombstone, value: bytes) -> None:
        """StoreError: there are too many."""
        network, deletions = tombstone.network, self._deletions_like(tombstone)
        if len(deletions.unpublished) >= deletion_file.MOST and network not in deletions.unpublished:
            raise StoreError(f"{deletion_file.MOST} deletions already wait for the server")
        deletions.unpublished[network] = tombstone, value
        if deletions.file is not None:
            await self._change(deletions, deletions.file.add((network, tombstone.time)))

    async def _forget_deletions(self, sent: Sequence[Tombstone]) -> None:
        """The server has these."""
        for deletions in (self._of_passes, self._of_offenses):
            gone = [tombstone for tombstone in sent if self._deletions_like(tombstone) is deletions]
            for tombstone in gone:
                known = deletions.unpublished.get(tombstone.network)
                if known is not None and known[0].time <= tombstone.time:
                    del deletions.unpublished[tombstone.network]
            if deletions.file is not None and gone:
                change = deletions.file.remove((tombstone.network, tombstone.time) for tombstone in gone)
                await self._change(deletions, change)

    async def _change(self, deletions: _Deletions, change: Awaitable[None]) -> None:
        """Await a change of the file."""
        try:
            await change
        except (OSError, DamagedError) as error:
            self._warn_of_file(deletions, error)
            deletions.are_kept = deletions.are_kept and isinstance(error, DamagedError)
        else:
            deletions.are_kept, deletions.trouble = True, ""

    def _warn_of_file(self, deletions: _Deletions, error: Exception) -> None:
        text = one_line(error)
        if text != deletions.trouble:
            deletions.trouble = text
            self._warn(f"cluster: {text}; deletions that the server does not have yet may be lost at a restart")

    def published(self, value: bytes) -> None:
        """The server has sent a deletion."""
        self._take_deletion(value, is_new=True)

    def _take_deletion(self, value: bytes, *, is_new: bool = False) -> Tombstone | Reason:
        """is_new: whatever waits to be stored was made before it, whatever the clocks say."""
        now = self._clock()
        found = tombstones.verify(self._secrets, value, now)
        if isinstance(found, Reason):
            if found is not Reason.EXPIRED:
                self._ignore(found)
            return found
        if found.of_offenses:
            self._take_forgotten(found, value)
            return found
        # One that is not has perhaps been published again by somebody.
        is_recent = found.time > min(now, self._own_clock() + self.store.difference) - records.SKEW
        if self._learn(found, value, is_new=is_new and is_recent):
            self._local.delete(found.network, partial(self._is_later, found.time))
            if found.host != self._name:
                self._info(f"cluster: {found.host} deleted {found.network}")
            if is_recent:  # what workers have not written yet was made later than an old one
                self._deleted(found)
        return found

    def _take_forgotten(self, found: Tombstone, value: bytes) -> None:
        """What is remembered of a network was deleted. A host without a memory ignores it."""
        if self.offenses is not None and self._learn(found, value, is_new=True) and found.host != self._name:
            self.offenses.delete_locally(found.network)
            self._info(f"cluster: {found.host} deleted what is remembered of {found.network}")

    def _is_later(self, deleted: float, stamps: Stamps) -> bool:
        """Whether a record of the local cache was made after a deletion, however much clocks differ."""
        made = records.earliest_pass(stamps, self.lifetimes) + min(self.store.ahead, self.store.difference)
        return made > deleted + records.SKEW

    def _learn(self, tombstone: Tombstone, value: bytes, *, is_new: bool = False) -> bool:
        """False: it is known."""
        if tombstone.of_offenses:
            return self.offenses is not None and self.offenses.forget(tombstone, value, is_new=is_new)
        if not self.tombstones.add(tombstone, value):
            return False
        if len(self.queue):
            if not len(self._removed):
                self._loop.call_soon(self._remove_waiting)
            when = tombstones.ALWAYS if is_new else tombstone.time
            self._removed.add(Tombstone(tombstone.network, when, tombstone.host), b"")
        return True

    def _remove_waiting(self) -> None:
        """Remove deleted passes from the queue: once for all deletions that were read together, as it may be long.

        Due before anything is added to the queue, or taken from it.
        """
        if len(self._removed):
            removed, self._removed = self._removed, Tombstones()
            self.queue.remove(lambda key, made: made <= removed.deleted_at(key))

    async def _learn_deletions(self, own: HostEntry | None) -> None:
        """All of them, after a connect; the server learns those that it has lost. StoreError."""
        now = self._clock()
        self.tombstones.expire(now - records.most_seconds(self.lifetimes))
        before = min(own.deleted, now + records.SKEW) if own is not None else 0.0
        self._deleted_score = max(self._deleted_score, before)
        self._unverified_score = math.inf
        stored = await self._learn_stored(tombstones.MOST)
        waiting = [*self._of_passes.unpublished.values(), *self._of_offenses.unpublished.values()]
        known = [*self.tombstones.values(), *(self.offenses.forgotten.values() if self.offenses is not None else ())]
        for value in dict.fromkeys(value for _, value in (*known, *waiting)):
            if value not in stored:
                await self._publish(value)
        await self._forget_deletions([tombstone for tombstone, _ in waiting])

    async def _learn_recent_deletions(self) -> None:
        self.tombstones.expire(self._clock() - records.most_seconds(self.lifetimes))
        if self.offenses is not None:
            self.offenses.expire()
        await self._learn_stored(RECENT_DELETIONS)

    async def _learn_stored(self, limit: int) -> set[bytes]:
        """The newest deletions that the server has; those that this host has made before are only remembered.

        One that cannot be verified now is made when it can be: `_deleted_score` stays below it.
        """
        now = self._clock()
        done = self._deleted_score - RESCORE
        stored = set()
        for number, (value, score) in enumerate(await self.store.deletions(limit)):
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
            stored.add(value)
            if score > done:
                result = self._take_deletion(value)
                if result in (Reason.BAD_MAC, Reason.NEWER, Reason.FUTURE):
                    self._unverified_score = min(self._unverified_score, score)
            else:
                found = tombstones.verify(self._secrets, value, now)
                if not isinstance(found, Reason):
                    self._learn(found, value)
            self._deleted_score = max(self._deleted_score, min(score, now + records.SKEW, self._unverified_score - 1))
        return stored
