"""What the supervisor holds for the recorder, which writes the history and the memory of offenses: the workers' rings,
shared memory, and its child."""

from __future__ import annotations

import mmap

from fastscreen.cache import use_mark
from fastscreen.core import HISTORY_RING_SIZE
from fastscreen.feedback.state import FeedbackState
from fastscreen.history import state
from fastscreen.history.state import HistoryState
from fastscreen.offenses.state import OffenseState
from fastscreen.process.child import Child


class HistoryParts:
    """Made before any process is forked, for a fixed number of workers. The memory outlives the processes."""

    def __init__(self, workers: int) -> None:
        self.child = Child("recorder", kind="history")
        self.rings = [memoryview(mmap.mmap(-1, HISTORY_RING_SIZE)) for _ in range(workers)]
        """Sessions that have ended, by worker."""
        self.memory = memoryview(mmap.mmap(-1, state.SIZE))
        self.state = HistoryState(self.memory)
        self.offense_memory = memoryview(mmap.mmap(-1, state.SIZE))
        self.offense_state = OffenseState(self.offense_memory)
        self.feedback_memory = memoryview(mmap.mmap(-1, state.SIZE))
        self.feedback_state = FeedbackState(self.feedback_memory)
        self._marks = memoryview(mmap.mmap(-1, use_mark.SIZE * (workers + 1)))

    def mark(self, number: int = -1) -> memoryview:
        """Which file of the memory of offenses a worker is using at the moment; -1: the recorder."""
        at = number % (len(self._marks) // use_mark.SIZE)
        return self._marks[use_mark.SIZE * at : use_mark.SIZE * (at + 1)]
