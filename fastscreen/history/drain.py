"""Reads the workers' rings where no history is kept: sessions are only given to the memory of offenses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastscreen.config.model import History
from fastscreen.history.ring import Ring, Row
from fastscreen.history.state import HistoryStats

MAX_ROWS = 65536  # of all rings together in one turn


class Drain:
    """In the place of a `HistoryWriter`."""

    def __init__(self, rings: Sequence[Ring], learn: Callable[[Sequence[Row]], object]) -> None:
        self._rings = rings
        self._learn = learn
        self._limit = max(1024, MAX_ROWS // len(rings))

    def configure(self, config: History) -> None:
        """Nothing is configured."""

    def turn(self) -> float:
        """Pass on what the rings have. Return how full the fullest ring was, from 0 to 1."""
        fullest = 0.0
        for ring in self._rings:
            rows, _ = ring.read(self._limit) if ring.head != ring.tail else ([], 0)
            if rows:
                self._learn(rows)
                ring.done()
                fullest = max(fullest, len(rows) / ring.capacity)
        return fullest

    def clean_up(self) -> None:
        """Nothing is kept."""

    @property
    def is_drained(self) -> bool:
        return all(ring.head == ring.tail for ring in self._rings)

    def stats(self) -> HistoryStats:
        return HistoryStats(
            sessions=sum(ring.tail for ring in self._rings),
            lost=sum(ring.lost for ring in self._rings),
            waiting=sum(ring.head - ring.tail for ring in self._rings),
        )

    def close(self) -> None:
        """Nothing is open."""
