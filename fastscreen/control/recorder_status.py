"""How the recorder of the history and of offenses is doing, as the answer to `status` has it."""

from __future__ import annotations

from fastscreen.control.messages import Feedback, Memory, Recorder
from fastscreen.feedback.state import FeedbackState
from fastscreen.history.state import HistoryState
from fastscreen.offenses.state import OffenseState


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


def memory_status(state: OffenseState, max_entries: int) -> Memory:
    """max_entries: of the configuration."""
    stats = state.read()
    if stats is None:
        return Memory(max_entries=max_entries)
    return Memory(
        running=True,
        problem=stats.problem,
        entries=stats.entries,
        max_entries=max_entries,
        bytes=stats.bytes,
        bad=stats.bad,
        good=stats.good,
        dropped=stats.dropped,
        lost=stats.lost,
        waiting=stats.waiting,
        lag=stats.lag,
        systems=stats.systems,
        merged=stats.merged,
        unshared=stats.unshared,
    )


def feedback_status(state: FeedbackState, log: str) -> Feedback:
    """log: of the configuration."""
    stats = state.read()
    if stats is None:
        return Feedback(log=log)
    return Feedback(
        log=log,
        running=True,
        problem=stats.problem,
        lines=stats.lines,
        accepted=stats.accepted,
        rejected=stats.rejected,
        spam=stats.spam,
        other=stats.other,
        unknown=stats.unknown,
        foreign=stats.foreign,
        ambiguous=stats.ambiguous,
        waiting=stats.waiting,
        behind=stats.behind,
        skipped=stats.skipped,
        slow=stats.slow,
    )
