"""Unexpected exceptions in a loop that must go on: each kind is logged once a minute, and none makes the loop spin."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from fastscreen.escaping import unexpected

LOG_SECONDS = 60.0  # between two lines about the same part
MAX_KINDS = 100  # parts of which the last line is remembered
PAUSE_SECONDS = 0.1  # after a turn with a fault


class Faults:
    """Of one loop. log: takes a line. clock: s, monotonic."""

    def __init__(self, log: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._logged: dict[str, float] = {}
        self._silenced: dict[str, int] = {}
        self._failed = False
        self._until = 0.0

    def guard(self, part: str, work: Callable[..., object], *arguments: Any) -> bool:
        """Call this; False: it raised an exception, which is logged."""
        try:
            work(*arguments)
        except Exception as error:
            self._failed = True
            try:
                self._note(part, error)
            except Exception:  # not even that: the loop goes on
                traceback.print_exc()
            return False
        return True

    def end_turn(self, now: float) -> None:
        """One turn of the loop is over. After a fault it is to pause: what failed may be due, or readable, still."""
        if self._failed:
            self._failed = False
            self._until = now + PAUSE_SECONDS

    def pause(self, now: float) -> float:
        """Until when the loop is to do nothing but to heed signals (s, monotonic); 0: it need not pause."""
        return self._until if now < self._until else 0.0

    def _note(self, part: str, error: Exception) -> None:
        now = self._clock()
        if now < self._logged.get(part, -LOG_SECONDS) + LOG_SECONDS:
            self._silenced[part] = self._silenced.get(part, 0) + 1
            return
        if len(self._logged) >= MAX_KINDS:
            self._logged.clear()
        self._logged[part] = now
        often = self._silenced.pop(part, 0)
        more = f", {often} more times since the last such line" if often else ""
        where = traceback.extract_tb(error.__traceback__)[-1]
        child = f"{where.filename.rpartition('/')[2]}, line {where.lineno}"
        self._log(f"internal error in {part}: {unexpected(error)} ({child}){more}; the supervisor goes on")
