"""The control server's view of the cluster: the cluster process's statistics, and its answers to requests."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fastscreen.cache.interfaces import Network
from fastscreen.cache.stamps import Stamps
from fastscreen.cluster.records import Reason
from fastscreen.cluster.requests import (
    Answer,
    ClusterRpc,
    Delete,
    DeletedElsewhere,
    Deleting,
    Failed,
    Forget,
    Get,
    Known,
    Unknown,
)
from fastscreen.cluster.state import ClusterState, ClusterStats
from fastscreen.control.messages import Cluster, ClusterOffenses, ClusterPass, ClusterPeer
from fastscreen.control.protocol import RequestError, passed_until

FORGET_MAX = 200
"""Deletions of other hosts that wait for the workers. What is omitted is deleted from the file seconds later."""
_READS = 3  # of memory that is being written

_WHY = {
    "": "not known to the cluster",
    Reason.BAD_MAC.label: "the cluster's record is ignored: no known secret has signed it (cluster.secret_file)",
    Reason.NEWER.label: "the cluster's record is ignored: a newer version of fastscreen has stored it",
    Reason.FOREIGN.label: "the cluster's record is ignored: it is not in fastscreen's format",
    Reason.FUTURE.label: "the cluster's record is ignored: it was stored in the future, by this host's clock",
    Reason.EXPIRED.label: "the cluster's record has expired",
    Reason.DELETED.label: "the cluster's record is ignored: it is older than a deletion of this client",
}
"""Why the cluster process does not use what the server has."""


class SharedRecord(Struct, frozen=True):
    """What the cluster knows of a client. stamps: as a worker would use them; None: nothing that it could use, and
    problem says why. stored: s since 1970, by the clock of that host.
    """

    stamps: Stamps | None = None
    host: str = ""
    stored: float | None = None
    problem: str = ""

    def message(self) -> ClusterPass:
        """As it is in the answer to `explain`."""
        return ClusterPass(
            self.host, self.stored, passed_until(self.stamps) if self.stamps is not None else {}, self.problem
        )


class ClusterClient:
    """end: of the pair to the cluster process. memory: where that process writes its statistics.

    forget: has the workers forget what they have not written yet about a network's clients.
    """

    def __init__(self, end: socket.socket, memory: memoryview, forget: Callable[[Network], Awaitable[object]]) -> None:
        self._rpc = ClusterRpc(end, self._deleted_elsewhere)
        self._state = ClusterState(memory)
        self._forget = forget
        self._forgetting: dict[str, None] = {}  # networks, the oldest first
        self._task: asyncio.Task[None] | None = None

    def stats(self, answers: Sequence[Any]) -> Cluster:
        """answers: the workers' counters; None of one that gave none."""
        there = [answer for answer in answers if answer is not None]

        def total(name: str) -> int:
            return sum(answer[name] for answer in there)

        found = self._read()
        stats = found or ClusterStats()
        return Cluster(
            running=found is not None,
            connected=stats.connected,
            since=stats.since,
            problem=stats.problem,
            server=stats.server,
            role=stats.role,
            name=stats.name,
            round_trip=stats.round_trip,
            asked=total("cluster_asked"),
            found=total("cluster_found"),
            ended=total("cluster_ended"),
            late=total("cluster_late"),
            worker_packets_dropped=total("cluster_dropped"),
            unanswered=stats.late + stats.refused,
            stored=stats.stored,
            queue=stats.queue_records,
            queue_bytes=stats.queue_bytes,
            queue_age=stats.queue_age,
            queue_dropped=stats.queue_dropped,
            packets_dropped=stats.dropped_packets,
            ignored={**stats.ignored, "oversized": stats.oversized},
            resync=stats.resync,
            deletions=stats.deletions,
            offenses=ClusterOffenses(*msgspec.structs.astuple(stats.offenses)) if stats.offenses is not None else None,
            peers=[ClusterPeer(peer.name, peer.seen, peer.version, peer.away) for peer in stats.peers],
        )

    def _read(self) -> ClusterStats | None:
        for _ in range(_READS):
            if (found := self._state.read()) is not None:
                return found
        return None

    async def known(self, key: bytes, *, accepts: bool) -> SharedRecord:
        """What the cluster knows of a client, within the time limit of `ClusterRpc`. accepts: this host uses passes."""
        answer = await self._rpc.ask(Get(key))
        match answer:
            case Known(stamps, host, stored):
                problem = "" if accepts else f'known at {host}, but not used: cluster.accept does not have "passes"'
                return SharedRecord(stamps, host, stored, problem)
            case Unknown(ignored):
                return SharedRecord(problem=_WHY.get(ignored, f"the cluster's record is ignored: {ignored}"))
            case Failed(why):
                return SharedRecord(problem=f"the cluster cannot be asked: {why}")
            case _:
                return SharedRecord(problem="the cluster process has given a wrong answer")

    async def delete(self, network: Network) -> bool:
        """Delete a network's passes everywhere but here. False: the server gets the deletion when it is connected.

        RequestError: it is unknown whether the cluster process has the deletion.
        """
        return self._sent("cache.delete", await self._rpc.ask(Delete(str(network))))

    async def forget(self, network: Network) -> bool:
        """The same for what is remembered of the network's addresses."""
        return self._sent("reputation.delete", await self._rpc.ask(Forget(str(network))))

    def _sent(self, command: str, answer: Answer) -> bool:
        if isinstance(answer, Deleting):
            return answer.sent
        why = answer.why if isinstance(answer, Failed) else "wrong answer"
        raise RequestError(f"{command}: deleted here, but perhaps not in the cluster: {why}; try again")

    def _deleted_elsewhere(self, note: DeletedElsewhere) -> None:
        """The cluster process deletes from the file, and logs it; workers may have records that are not there yet."""
        self._forgetting[note.network] = None
        if len(self._forgetting) > FORGET_MAX:
            del self._forgetting[next(iter(self._forgetting))]
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._forget_all())

    async def _forget_all(self) -> None:
        """One after the other: more at a time would be in the way of other requests to the workers."""
        while self._forgetting:
            network = next(iter(self._forgetting))
            del self._forgetting[network]
            await self._forget(ipaddress.ip_network(network))

    def close(self) -> None:
        """Neither ask nor listen any more."""
        self._rpc.close()
        if self._task is not None:
            self._task.cancel()
