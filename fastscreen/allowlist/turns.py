"""When the daemon's next refresh begins, and by when it must have ended. Times are s, monotonic."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from fastscreen.allowlist.lists import is_refreshed
from fastscreen.allowlist.process import End
from fastscreen.config import Config

LONGEST = 1800.0
"""Two lists take `refresh.LIST_SECONDS` each at most."""
SOON = 900.0
"""After a refresh that failed altogether; twice as long after each further one."""
JITTER = 0.1
"""The part of the interval by which a refresh may be late: hosts that were started together do not ask together."""


class Turns:
    """Of one daemon. draw: gives numbers from 0 to 1."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._interval = 0
        self._failed = 0  # one after the other
        self.due = math.inf
        self.end_by = math.inf

    def configure(self, config: Config, now: float) -> None:
        """At the start, and when the lists changed: a refresh is due at once."""
        self._interval = config.allowlist.interval if is_refreshed(config) else 0
        self.due = now if self._interval else math.inf

    @property
    def wanted(self) -> bool:
        """Whether there is anything to refresh."""
        return self._interval > 0

    def began(self, now: float) -> None:
        self.due, self.end_by = math.inf, now + LONGEST

    def ended(self, code: int, now: float) -> None:
        """code: `End`, or what a process ends with that failed."""
        self.end_by = math.inf
        if self._interval and self.due == math.inf:
            pause = float(self._interval)
            if code == End.DONE:
                self._failed = 0
            else:
                pause = min(pause, SOON * 2.0 ** min(self._failed, 16))
                self._failed += 1
            self.due = now + pause * (1 + JITTER * self._draw())
