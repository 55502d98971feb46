"""How the cluster process is doing, in memory that all processes share: it writes this once a second."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fastscreen.process.shared_record import SIZE as SIZE
from fastscreen.process.shared_record import SharedRecord


class Peer(Struct, frozen=True):
    """Another host. seen: s since 1970, by its clock. away: it has said nothing for a while."""

    name: str
    seen: float
    version: str
    away: bool


class OffenseCounts(Struct, frozen=True):
    """Records of offenses: stored in the server, found there and given to the recorder, to be stored, dropped."""

    stored: int = 0
    found: int = 0
    queue: int = 0
    dropped: int = 0


class ClusterStats(Struct, frozen=True):
    """connected: the server can be used, since `since` (s since 1970). problem: why it cannot, or what it refuses.

    round_trip, queue_age: s. Numbers of records and look-ups are of this process, from its start.
    """

    connected: bool = False
    since: float = 0.0
    problem: str = ""
    server: str = ""
    role: str = ""
    round_trip: float = 0.0
    name: str = ""
    looked_up: int = 0
    """Clients that workers asked for."""
    hits: int = 0
    """Of those, clients whose pass was found."""
    late: int = 0
    """Questions that were not answered within the budget."""
    refused: int = 0
    """Questions that were dropped because too many waited."""
    stored: int = 0
    """Passes that the server has acknowledged."""
    ignored: dict[str, int] = {}
    """Records that were ignored, by the label of their `records.Reason`."""
    oversized: int = 0
    malformed_packets: int = 0
    dropped_packets: int = 0
    """Answers that a worker did not take."""
    queue_records: int = 0
    queue_bytes: int = 0
    queue_age: float = 0.0
    queue_dropped: int = 0
    """Passes that were dropped from the queue; the local cache has them, and they are stored later."""
    resync: bool = False
    """The local cache's passes are being stored again."""
    resynced: int = 0
    deletions: int = 0
    """That are remembered."""
    acknowledged: float = 0.0
    """All of this host's passes up to then are stored (s since 1970)."""
    offenses: OffenseCounts | None = None
    """None: this host has no memory of offenses."""
    peers: tuple[Peer, ...] = ()


class ClusterState(SharedRecord[ClusterStats]):
    """A view of the memory (`SharedRecord`), which the cluster process writes."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory, ClusterStats)

    def write(self, stats: ClusterStats) -> bool:
        """Replace what is there, without the peers if there are too many of them."""
        return super().write(stats) or super().write(msgspec.structs.replace(stats, peers=()))
