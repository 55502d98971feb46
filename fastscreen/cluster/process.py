"""The cluster process: shares passes with other hosts for all workers of this one. Workers never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path
from socket import socket

import msgspec
from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.cache.interfaces import CacheAdmin
from fastscreen.cluster import packets, requests
from fastscreen.cluster.deletion_file import DeletionFile
from fastscreen.cluster.files import Files
from fastscreen.cluster.link import StoreError
from fastscreen.cluster.local_cache import LocalCache
from fastscreen.cluster.packets import PASS, Item, Keep, LookUp
from fastscreen.cluster.records import Lifetimes, Reason, SharedPass, is_host_name
from fastscreen.cluster.requests import (
    Answer,
    Answered,
    Check,
    Checked,
    Delete,
    DeletedElsewhere,
    Deleting,
    Failed,
    Get,
    Known,
    Question,
    Unknown,
)
from fastscreen.cluster.servers import Servers
from fastscreen.cluster.sharing import CLOCK_SECONDS, Found, Sharing
from fastscreen.cluster.state import ClusterState, ClusterStats, Peer
from fastscreen.cluster.tombstones import Tombstone
from fastscreen.cluster.worker_sockets import WorkerSockets
from fastscreen.config import Config, ConfigError
from fastscreen.format import span
from fastscreen.process import rpc
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.ipc import Ready
from fastscreen.process.log_output import LogTarget
from fastscreen.process.startup import ForkedProcess

GRACE = 2.0  # s without the server, until that is a condition: a fail-over may be quicker
MAC_SECONDS = 600.0  # after the last record with a bad MAC, the condition ends
NAMESAKE_SECONDS = 60.0  # after another host of this name was noticed last, the condition ends
END_SECONDS = 1.0  # for the queue to be stored at the end
REQUESTS_MAX = 64  # of the control server at a time
MEMORY_MAX = 512 << 20  # bytes more than at the start: a hostile server may announce a reply of any size


class ClusterArgs(Struct, frozen=True):
    """What the cluster process has. channel: to the supervisor. heartbeat: a byte that changes every second.

    workers: its ends of the pairs to the workers, by worker. control: its end of the pair to the control server.
    state: where it writes how it is doing. files: reads the files (OSError, ConfigError). lifetimes: how long passes
    are valid with a configuration. cache: the cache's file; None: without a cache. deletions: the file with those that
    the server does not have yet; None: they are not kept. version: of this program.
    """

    channel: socket
    heartbeat: memoryview
    conditions: Conditions
    workers: Sequence[socket]
    control: socket
    state: ClusterState
    files: Callable[[], Files]
    lifetimes: Callable[[Config], Lifetimes]
    cache: CacheAdmin | None
    deletions: DeletionFile | None
    version: str


class ClusterProcess(ForkedProcess):
    """The process from start to end."""

    NAME = "fastscreen-clus"
    NICENESS = 5  # screening goes first

    def __init__(self, config: Config, target: LogTarget, args: ClusterArgs) -> None:
        super().__init__(config, target, args.channel, args.heartbeat)
        self._args = args
        self._malformed = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._name = config.cluster.name or config.hostname

    async def start(self) -> None:
        cluster = self._config.cluster
        if not is_host_name(self._name):
            raise ConfigError(
                f"{self._config.source}: cluster.name: {self._name!r} is not a host name; expected up to 63 letters, "
                "digits, dots, hyphens or underscores"
            )
        try:
            servers = Servers(cluster, files := self._args.files())
        except ValueError as error:
            raise ConfigError(f"{self._config.source}: cluster.server: {error}") from None
        _bound_memory()
        loop = asyncio.get_running_loop()
        self._sharing = Sharing(
            cluster,
            self._name,
            self._args.version,
            servers,
            files.secrets,
            self._args.lifetimes(self._config),
            LocalCache(self._args.cache, self._warn, loop.time),
            self._args.deletions,
            deliver=self._deliver,
            deleted=self._deleted_elsewhere,
            info=self._info,
            warn=self._warn,
            clock=time.time,
            timer=loop.time,
            loop=loop,
        )
        self._sharing.start()
        self._workers = WorkerSockets(
            self._args.workers,
            self._take,
            self._sharing.lookups.flush,
            lambda callback: self._errors.guard("a worker's packet", callback),
            loop,
        )
        loop.add_reader(
            self._args.control.fileno(), self._errors.guard("a request of the control server", self._take_request)
        )
        self.report(Ready())

    async def close(self) -> None:
        """Store what workers have sent, if the server takes it at once."""
        asyncio.get_running_loop().remove_reader(self._args.control.fileno())
        self._workers.close()
        for task in self._requests:
            task.cancel()
        await self._sharing.close(END_SECONDS)
        self._publish()

    # ---- workers

    def _take(self, worker: int, packet: bytes) -> None:
        try:
            found = packets.decode(packet)
        except ValueError:
            self._malformed += 1
            return
        if isinstance(found, LookUp):
            self._sharing.look_up(worker, found.keys)
        elif isinstance(found, Keep):
            for kind, key, record in found.items:
                if kind == PASS and not self._sharing.keep(key, record):
                    self._malformed += 1
        else:
            self._malformed += 1

    def _deliver(self, worker: int, found: list[Found]) -> None:
        for packet in packets.encode_found(Item(PASS, key, record) for key, record in found):
            self._workers.send(worker, packet)

    # ---- the control server

    def _take_request(self) -> None:
        try:
            asked = requests.receive_question(self._args.control)
        except EOFError:  # after a restart: its control server has ended, and workers still need this process
            asyncio.get_running_loop().remove_reader(self._args.control.fileno())
            self._sharing.is_superseded = True
            return
        except msgspec.MsgspecError:
            self._malformed += 1
            return
        if asked is None:
            return
        if len(self._requests) >= REQUESTS_MAX:
            rpc.send(self._args.control, Answered(asked.number, Failed("too many requests at a time")))
            return
        task = asyncio.get_running_loop().create_task(self._answer(asked.number, asked.question))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, number: int, question: Question) -> None:
        try:
            answer = await self._answer_to(question)
        except (StoreError, ValueError) as error:
            answer = Failed(str(error))
        rpc.send(self._args.control, Answered(number, answer))

    async def _answer_to(self, question: Question) -> Answer:
        match question:
            case Get(key):
                if not keys.is_record(key):
                    raise ValueError("not a key of the cache")
                found = await self._sharing.get(key)
                if isinstance(found, SharedPass):
                    return Known(found.stamps, found.host, found.stored)
                return Unknown(found.label if isinstance(found, Reason) else "")
            case Delete(network):
                return Deleting(await self._sharing.delete(ip_network(network)))
            case Check():
                return Checked(await self._sharing.check(), self._sharing.store.status().server)

    def _deleted_elsewhere(self, tombstone: Tombstone) -> None:
        note = DeletedElsewhere(str(tombstone.network), tombstone.host, tombstone.time)
        rpc.send(self._args.control, Answered(0, note))

    # ---- once a second

    async def housekeeping(self, second: int) -> None:
        self._sharing.expire()
        self._publish()
        self._show_conditions()
        error = self._sharing.failed()
        if error is not None:
            self._errors.report("sharing passes", error)
            self._give_up()
        self._log.flush()

    def _publish(self) -> None:
        sharing = self._sharing
        status, lookups, queue = sharing.store.status(), sharing.lookups, sharing.queue
        self._args.state.write(
            ClusterStats(
                connected=status.connected,
                since=status.since,
                problem=status.problem,
                server=status.server,
                role=status.role,
                round_trip=status.round_trip,
                name=self._name,
                looked_up=lookups.asked,
                hits=sharing.hits,
                late=lookups.late,
                refused=lookups.refused,
                stored=sharing.stored,
                ignored={reason.label: sharing.ignored[reason] for reason in Reason},
                oversized=sharing.store.oversized,
                malformed_packets=self._malformed,
                dropped_packets=self._workers.dropped,
                queue_records=len(queue),
                queue_bytes=queue.bytes,
                queue_age=queue.age,
                queue_dropped=queue.dropped,
                resync=sharing.resync.is_running,
                resynced=sharing.resync.sent,
                deletions=len(sharing.tombstones),
                acknowledged=sharing.acknowledged,
                peers=tuple(
                    Peer(name, entry.time, entry.version[:64], away) for name, entry, away in sharing.present_peers()
                ),
            )
        )

    def _show_conditions(self) -> None:
        status, conditions, now = self._sharing.store.status(), self._args.conditions, time.time()
        if status.problem and (status.connected or now - status.since > GRACE):
            what = status.effect
            if conditions.begin(Kind.CLUSTER, f"cluster: {status.problem}; {what}"):
                self._log.warning(f"cluster: {status.problem}; {what}; retried automatically")
        elif status.connected and conditions.end(Kind.CLUSTER):
            self._log.info(f"cluster: {status.server} works again")
        self._show_clock()
        self._show_namesake()
        if now - self._sharing.bad_mac_at < MAC_SECONDS:
            text = "cluster: the server has records that no known secret has signed; they are ignored"
            if conditions.begin(Kind.CLUSTER_RECORDS, text):
                self._log.warning(text)
        elif conditions.end(Kind.CLUSTER_RECORDS):
            self._log.info("cluster: no record with a wrong signature has been found for 10 minutes")

    def _show_clock(self) -> None:
        store, conditions = self._sharing.store, self._args.conditions
        if abs(store.difference) > CLOCK_SECONDS:
            text = (
                f"cluster: this host's clock is {span(abs(store.difference))} "
                f"{'behind' if store.difference > 0 else 'ahead of'} that of the server; "
                "passes and deletions of other hosts may be ignored until the clock is set"
            )
            if conditions.begin(Kind.CLUSTER_CLOCK, text):
                self._log.warning(text)
        elif conditions.end(Kind.CLUSTER_CLOCK):
            self._log.info("cluster: this host's clock agrees with that of the server")

    def _show_namesake(self) -> None:
        conditions = self._args.conditions
        if asyncio.get_running_loop().time() - self._sharing.namesake_at < NAMESAKE_SECONDS:
            text = (
                f"cluster: another host has the name {self._name}, too; passes and deletions may be missed "
                "until each host has its own cluster.name"
            )
            if conditions.begin(Kind.CLUSTER_NAME, text):
                self._log.warning(text)
        elif conditions.end(Kind.CLUSTER_NAME):
            self._log.info(f"cluster: no other host has the name {self._name} any more")

    # ---- the supervisor's orders

    def take(self, config: Config, descriptors: list[int]) -> None:
        """The budget, what is shared and how long passes are valid follow the new configuration."""
        sharing = self._sharing
        sharing.lifetimes = self._args.lifetimes(config)
        sharing.lookups.budget = config.cluster.budget
        sharing.shares, sharing.accepts = "passes" in config.cluster.share, "passes" in config.cluster.accept


def _bound_memory() -> None:
    """Let allocations fail that nothing here needs. The cache's file is shared memory, which is not counted."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = pages * resource.getpagesize() + MEMORY_MAX
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
