"""How the recorder of the history and of offenses is doing, as the answer to `status` has it."""

from __future__ import annotations

from msgspec.structs import asdict

from fastscreen.control.messages import Feedback, Memory, Recorder
from fastscreen.feedback.state import FeedbackState
from fastscreen.history.state import HistoryState
from fastscreen.offenses.state import OffenseState


def recorder_status(state: HistoryState, max_size: int) -> Recorder:
    """max_size: of the configuration, in bytes."""
    stats = state.read()
    if stats is None:
        return Recorder(max_size=max_size)
    return Recorder(running=True, max_size=max_size, **asdict(stats))


def memory_status(state: OffenseState, max_entries: int) -> Memory:
    """max_entries: of the configuration."""
    stats = state.read()
    if stats is None:
        return Memory(max_entries=max_entries)
    return Memory(running=True, max_entries=max_entries, **asdict(stats))


def feedback_status(state: FeedbackState, log: str) -> Feedback:
    """log: of the configuration."""
    stats = state.read()
    if stats is None:
        return Feedback(log=log)
    return Feedback(log=log, running=True, **asdict(stats))
