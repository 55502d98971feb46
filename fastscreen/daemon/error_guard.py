"""Unexpected exceptions in the supervisor's loop: it goes on, logs each kind once a minute, and does not spin."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from fastscreen.escaping import unexpected

LOG_SECONDS = 60.0  # between two lines about the same part
MAX_PARTS = 100  # whose last line is remembered
PAUSE_SECONDS = 0.1  # after a turn with an exception


class ErrorGuard:
    """log: takes a line. clock: s, monotonic."""

    def __init__(self, log: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._logged: dict[str, float] = {}
        self._omitted: dict[str, int] = {}
        self._failed = False
        self._pause_until = 0.0

    def call(self, part: str, work: Callable[..., object], *arguments: Any) -> bool:
        """Call `work`. False: it raised an exception, which is logged. part: names it in the log."""
        try:
            work(*arguments)
        except Exception as error:
            self._failed = True
            try:
                self._report(part, error)
            except Exception:  # not even that works: the loop goes on
                traceback.print_exc()
            return False
        return True

    def end_turn(self, now: float) -> None:
        """One turn of the loop is over. After an exception the next one waits: what failed may still be due."""
        if self._failed:
            self._failed = False
            self._pause_until = now + PAUSE_SECONDS

    def pause_until(self, now: float) -> float:
        """Until when the loop waits for nothing but signals (s, monotonic). 0: no pause."""
        return self._pause_until if now < self._pause_until else 0.0

    def _report(self, part: str, error: Exception) -> None:
        now = self._clock()
        if now < self._logged.get(part, -LOG_SECONDS) + LOG_SECONDS:
            self._omitted[part] = self._omitted.get(part, 0) + 1
            return
        if len(self._logged) >= MAX_PARTS:
            self._logged.clear()
        self._logged[part] = now
        omitted = self._omitted.pop(part, 0)
        more = f", {omitted} more times since the last such line" if omitted else ""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rpartition('/')[2]}, line {frame.lineno}"
        self._log(f"internal error in {part}: {unexpected(error)} ({where}){more}; the supervisor goes on")
