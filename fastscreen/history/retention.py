"""Which files of the history are deleted: those that are older than `history.keep`, and the oldest ones while all
together are larger than `history.max_size`.

The clock alone does not delete anything, because it may be wrong. What day it is counts only if that day and the two
before it were recorded: so at least one whole day has passed since the clock was last set to another day. While the
clock is a year ahead, the days before stay, and so they do once it is right again. After a pause of the recording,
deletion by age resumes on the third day.

A clock that is behind makes files of days that are long past. They are kept as long as a file of the day before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import date, timedelta
from pathlib import Path

from fastscreen.history.day import begin_of, day_at
from fastscreen.history.folder import Entry

_DAY = 86400.0
_CERTAIN = 3  # days in a row


def certain_day(days: Collection[date], now: float) -> date | None:
    """The newest day, not after today, that was recorded together with the days before it. now: s since 1970."""
    today = day_at(int(now * 1e6))
    return max((each for each in _certain_days(days) if each <= today), default=None)


def made_after(days: Collection[date], now: float) -> date | None:
    """What a file that is made now remembers: the certain day, also if the clock is behind it."""
    return certain_day(days, now) or max(_certain_days(days), default=None)


def _certain_days(days: Collection[date]) -> list[date]:
    return [each for each in days if all(each - timedelta(days=back) in days for back in range(_CERTAIN))]


def certain_time(days: Collection[date], now: float) -> float | None:
    """The time up to which the clock is believed (s since 1970): now, or the end of the last day that is certain."""
    certain = certain_day(days, now)
    return min(now, begin_of(certain) / 1e6 + _DAY) if certain is not None else None


def expired(entries: Sequence[Entry], keep: float, now: float, made: Callable[[Path], date | None]) -> list[Entry]:
    """The files of days that ended more than `keep` s ago. made: what a file remembers (`made_after`)."""
    until = certain_time({entry.part.day for entry in entries}, now)
    if until is None:
        return []
    old = [entry for entry in entries if _end_of(entry.part.day) + keep <= until]
    return [
        entry
        for entry in old
        if (after := made(entry.path)) is None or _end_of(max(after, entry.part.day)) + keep <= until
    ]


def oversized(entries: Sequence[Entry], max_size: int, room: int) -> list[Entry]:
    """The oldest files, without which the others and `room` bytes more are not larger than max_size."""
    total = sum(entry.size for entry in entries) + room
    found = []
    for entry in entries:
        if total <= max_size:
            break
        total -= entry.size
        found.append(entry)
    return found


def _end_of(day: date) -> float:
    return begin_of(day) / 1e6 + _DAY
