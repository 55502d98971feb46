"""How feedback is doing, in memory that all processes share: the recorder writes this once per second."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.process.shared_record import SIZE as SIZE
from fastscreen.process.shared_record import SharedRecord


class FeedbackStats(Struct, frozen=True):
    """problem: why the log is not read; empty: it is. The numbers are since the start of the recorder.

    accepted, rejected, spam, other: sessions whose outcome was learned. unknown: that have waited in vain. foreign:
    sessions of the MTA that were not handed off by us. ambiguous: of these, that would need a log with ports. waiting:
    sessions whose outcome may still come. behind: bytes of the log that are not read yet; skipped: that never are.
    slow: lines for which the expression needed too long.
    """

    problem: str = ""
    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    spam: int = 0
    other: int = 0
    unknown: int = 0
    foreign: int = 0
    ambiguous: int = 0
    waiting: int = 0
    behind: int = 0
    skipped: int = 0
    slow: int = 0


class FeedbackState(SharedRecord[FeedbackStats]):
    """A view of the memory (`SharedRecord`), which the recorder writes."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory, FeedbackStats)
