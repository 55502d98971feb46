"""How the memory is doing, in memory that all processes share: the recorder writes this once per second."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.process.shared_record import SIZE as SIZE
from fastscreen.process.shared_record import SharedRecord


class OffenseStats(Struct, frozen=True):
    """problem: why nothing is written; empty: it is. entries: records. bytes: of the file.

    bad, good: since the start: clients that were written for an offense and for good conduct, once per second at most.
    dropped: records, for lack of room. lost: clients that could not be kept until they were written. waiting: clients
    that are still to be written; lag: s for which the first of them has waited. systems: ranges in the file of
    autonomous systems. merged: records that were changed by what other hosts of a cluster know. unshared: changed
    records that other hosts do not learn of for now, because too many changed.
    """

    problem: str = ""
    entries: int = 0
    bytes: int = 0
    bad: int = 0
    good: int = 0
    dropped: int = 0
    lost: int = 0
    waiting: int = 0
    lag: float = 0.0
    systems: int = 0
    merged: int = 0
    unshared: int = 0


class OffenseState(SharedRecord[OffenseStats]):
    """A view of the memory (`SharedRecord`), which the recorder writes."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory, OffenseStats)
