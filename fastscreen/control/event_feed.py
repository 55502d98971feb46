"""A subscription to events: what matches, at most so many a second, and how many that is not all."""

from __future__ import annotations

from typing import Any

from fastscreen.control.events import Rings
from fastscreen.control.filters import Chosen
from fastscreen.core import Filter

Map = dict[str, Any]

MAX_RATE = 2000  # events a second
MAX_RECENT = 2000
A_SECOND = 4  # how often events are sent, at most


class Feed:
    """Goes on from `heads`, the sequences of the rings' newest events when it began.

    It keeps no event: what its reader does not take stays in the rings, until they lose it.
    """

    def __init__(self, rings: Rings, chosen: Chosen, rate: int, heads: list[int]) -> None:
        self._rings = rings
        self._chosen = chosen
        self._wanted: Filter = chosen.filter()
        self._rate = rate
        self._at = heads
        self._allowance = float(rate)

    def batch(self) -> tuple[list[Map], int]:
        """The events since the last call, by time, and how many are missing. To be called A_SECOND times a second."""
        self._allowance = min(self._allowance + self._rate / A_SECOND, float(self._rate))
        allowed = int(self._allowance)
        found = []
        missing = 0
        for worker, reader in enumerate(self._rings.readers):
            if not self._chosen.worker(worker + 1):
                continue
            events, self._at[worker], lost, skipped = reader.read(self._at[worker], self._wanted, allowed)
            found += [(event, worker) for event in events]
            missing += lost + skipped
        found.sort(key=lambda pair: pair[0][1])
        missing += len(found[allowed:])
        self._allowance -= min(len(found), allowed)
        return [self._rings.shown(worker, event) for event, worker in found[:allowed]], missing
