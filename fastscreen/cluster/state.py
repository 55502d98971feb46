"""How the cluster process is doing, in memory that all processes share: it writes this once a second."""

from __future__ import annotations

import struct
import zlib

import msgspec
from msgspec import Struct

SIZE = 1 << 16
"""Bytes of the memory."""
_HEAD = struct.Struct("<II")


class Peer(Struct, frozen=True):
    """Another host. seen: s since 1970, by its clock. away: it has said nothing for a while."""

    name: str
    seen: float
    version: str
    away: bool


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
    peers: tuple[Peer, ...] = ()


class ClusterState:
    """A view of the memory. `write` is the cluster process's, `clear` its parent's, `read` anybody's.

    memory: SIZE bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def write(self, stats: ClusterStats) -> None:
        """Replace what is there."""
        body = msgspec.msgpack.encode(stats)
        if len(body) > SIZE - _HEAD.size:
            body = msgspec.msgpack.encode(msgspec.structs.replace(stats, peers=()))
        self._memory[: _HEAD.size + len(body)] = _HEAD.pack(zlib.crc32(body), len(body)) + body

    def clear(self) -> None:
        """The process has ended."""
        self._memory[: _HEAD.size] = bytes(_HEAD.size)

    def read(self) -> ClusterStats | None:
        """What was written last. None: nothing was, or it is being written now: try again."""
        total, length = _HEAD.unpack_from(self._memory)
        body = bytes(self._memory[_HEAD.size : _HEAD.size + min(length, SIZE)])
        if not length or zlib.crc32(body) != total:
            return None
        try:
            return msgspec.msgpack.decode(body, type=ClusterStats)
        except msgspec.MsgspecError:
            return None
