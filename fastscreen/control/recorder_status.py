"""How the recorder of the history is doing, as the answer to `status` has it."""

from __future__ import annotations

from fastscreen.control.messages import Recorder
from fastscreen.history.state import HistoryState


def recorder_status(state: HistoryState, max_size: int) -> Recorder:
    """max_size: of the configuration, in bytes."""
    stats = state.read()
    if stats is None:
        return Recorder(max_size=max_size)
    return Recorder(
        running=True,
        recording=stats.recording,
        since=stats.since,
        problem=stats.problem,
        sessions=stats.sessions,
        lost=stats.lost,
        waiting=stats.waiting,
        bytes=stats.bytes,
        max_size=max_size,
        days=stats.days,
        oldest=stats.oldest,
        set_aside=stats.set_aside,
        file=stats.file,
        error=stats.error,
        error_time=stats.error_time,
    )
