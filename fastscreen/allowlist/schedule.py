"""When the daemon's next refresh begins, and by when it must have ended. Times are s, monotonic."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from fastscreen.allowlist.lists import is_refreshed
from fastscreen.allowlist.process import End
from fastscreen.config import Config

MAX_SECONDS = 1800.0
"""For one refresh. Two lists take at most `refresh.LIST_SECONDS` each."""
RETRY_SECONDS = 900.0
"""Pause after a refresh in which everything failed; doubled after each further one."""
JITTER = 0.1
"""Part of the interval by which a refresh may be late: hosts that were started together spread their queries."""


class RefreshSchedule:
    """random: returns numbers from 0 to 1."""

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        self._random = random
        self._interval = 0
        self._failures = 0  # in a row
        self.due = math.inf
        self.deadline = math.inf

    def configure(self, config: Config, now: float) -> None:
        """At the start, and when the lists have changed: a refresh is due at once."""
        self._interval = config.allowlist.interval if is_refreshed(config) else 0
        self.due = now if self._interval else math.inf

    @property
    def is_enabled(self) -> bool:
        """Whether there is anything to refresh."""
        return self._interval > 0

    def begin(self, now: float) -> None:
        """A refresh begins."""
        self.due, self.deadline = math.inf, now + MAX_SECONDS

    def end(self, code: int, now: float) -> None:
        """A refresh has ended. code: `End`, or the exit code of a process that failed."""
        self.deadline = math.inf
        if self._interval and self.due == math.inf:
            pause = float(self._interval)
            if code == End.DONE:
                self._failures = 0
            else:
                pause = min(pause, RETRY_SECONDS * 2.0 ** min(self._failures, 16))
                self._failures += 1
            self.due = now + pause * (1 + JITTER * self._random())
