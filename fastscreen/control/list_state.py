"""The state of a DNSBL in about the last minute, from counters that run since the start."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from fastscreen.config import Config
from fastscreen.core import latency_percentile

Map = dict[str, Any]
Counted = tuple[int, int, list[int]]  # answered, failed, latencies

WINDOW = 60.0  # s


class ListStates:
    """Remembers what was counted, as often as it is asked. clock: s, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, deque[tuple[float, Counted]]] = {}

    def forget(self) -> None:
        """The lists are others now."""
        self._seen.clear()

    def state(self, config: Config, name: str, total: Map, latency: Sequence[int]) -> str:
        """The state of a list now. total, latency: since the start.

        "unused": never queried. "failing": at least half of the queries lack a valid answer. "slow": one answer in
        twenty takes more than half of the greet wait. Else "ok".
        """
        if not total["queries"]:
            return "unused"
        now = self._clock()
        counted = (total["answers"], total["timeouts"] + total["errors"], list(latency))
        seen = self._seen.setdefault(name, deque([(now, (0, 0, [0] * len(latency)))]))
        # The newest that is older than the window stays: what has happened since is counted.
        while len(seen) > 1 and seen[1][0] <= now - WINDOW:
            seen.popleft()
        before = seen[0][1]
        if not seen or now - seen[-1][0] >= 1.0 or len(seen) == 1:
            seen.append((now, counted))
        if before[0] > counted[0] or before[1] > counted[1]:  # a worker was restarted
            self._seen[name] = deque([(now, counted)])
            before = (0, 0, [0] * len(latency))
        failed = counted[1] - before[1]
        answered = counted[0] - before[0]
        if failed and failed >= answered:
            return "failing"
        recent = [max(0, new - old) for new, old in zip(counted[2], before[2], strict=True)]
        slowest = latency_percentile(recent, 0.95)
        return "slow" if slowest is not None and slowest > config.greet.wait / 2 else "ok"
