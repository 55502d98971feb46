"""What the supervisor holds for the recorder of the history: the workers' rings, shared memory, and its child."""

from __future__ import annotations

import mmap

from fastscreen.core import HISTORY_RING_SIZE
from fastscreen.history import state
from fastscreen.history.state import HistoryState
from fastscreen.process.child import Child


class HistoryParts:
    """Made before any process is forked, for a fixed number of workers. The memory outlives the processes."""

    def __init__(self, workers: int) -> None:
        self.child = Child("recorder", kind="history")
        self.rings = [memoryview(mmap.mmap(-1, HISTORY_RING_SIZE)) for _ in range(workers)]
        """Sessions that have ended, by worker."""
        self.memory = memoryview(mmap.mmap(-1, state.SIZE))
        self.state = HistoryState(self.memory)
