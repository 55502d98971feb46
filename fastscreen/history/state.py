"""How the recorder is doing, in memory that all processes share: it writes this once a second."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.process.shared_record import SIZE as SIZE
from fastscreen.process.shared_record import SharedRecord


class HistoryStats(Struct, frozen=True):
    """recording: sessions are being stored, since `since` (s since 1970); otherwise problem says why not, since then.

    error, error_time: what went wrong last, whether it still does or not. Sizes are bytes, times s since 1970.
    """

    recording: bool = False
    since: float = 0.0
    problem: str = ""
    sessions: int = 0
    """Stored since the start of the daemon."""
    lost: int = 0
    """Overwritten before they were stored."""
    waiting: int = 0
    """Sessions that have ended and are not stored yet."""
    bytes: int = 0
    """Of all files."""
    days: int = 0
    oldest: float = 0.0
    """The begin of the oldest day; 0: there is none."""
    set_aside: int = 0
    """Files that were damaged."""
    file: str = ""
    """The name of the file that was written last."""
    error: str = ""
    error_time: float = 0.0


class HistoryState(SharedRecord[HistoryStats]):
    """A view of the memory (`SharedRecord`), which the recorder writes."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory, HistoryStats)
