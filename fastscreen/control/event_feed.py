"""A subscription to events: those that match, up to a given number per second, and how many more there were."""

from __future__ import annotations

from fastscreen.control.events import Rings
from fastscreen.control.filters import Chosen
from fastscreen.control.messages import Event
from fastscreen.core import Filter

BATCHES_PER_SECOND = 4  # at most


class Feed:
    """Starts after `heads`, the sequence numbers of the rings' newest events at the time.

    It does not keep events: those that its reader does not take stay in the rings, until they are overwritten.
    """

    def __init__(self, rings: Rings, chosen: Chosen, rate: int, heads: list[int]) -> None:
        self._rings = rings
        self._chosen = chosen
        self._wanted: Filter = chosen.filter()
        self._rate = rate
        self._at = heads
        self._allowance = float(rate)

    def batch(self) -> tuple[list[Event], int]:
        """The events since the last call, by time, and how many are missing. Called at BATCHES_PER_SECOND."""
        self._allowance = min(self._allowance + self._rate / BATCHES_PER_SECOND, float(self._rate))
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
