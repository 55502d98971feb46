"""Whether the clock may be believed before something is deleted for its age."""

from __future__ import annotations

from collections.abc import Callable

DAY = 86400
_JUMP = 3600.0  # s
_GAP = 7  # days in which nothing was written, at a start
_WAIT = 86400.0  # s, for somebody to correct a clock that is wrong


class ClockGuard:
    """Watches one clock. clock: s since 1970; timer: s, monotonic. last_day: on which something was written last; None:
    never.
    """

    def __init__(self, clock: Callable[[], float], timer: Callable[[], float], last_day: int | None) -> None:
        self._clock = clock
        self._timer = timer
        self._offset = clock() - timer()
        today = int(clock()) // DAY
        suspicious = last_day is not None and not -1 <= today - last_day <= _GAP
        self._believed_at = timer() + (_WAIT if suspicious else 0.0)

    @property
    def is_believed(self) -> bool:
        """Whether it has neither jumped for a day nor stands at a time that is far from the last one."""
        now = self._timer()
        offset = self._clock() - now
        if abs(offset - self._offset) > _JUMP:
            self._believed_at = now + _WAIT
        self._offset = offset
        return now >= self._believed_at
