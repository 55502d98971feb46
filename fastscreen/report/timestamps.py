"""Converts the time stamps of log lines to seconds since 1970."""

from __future__ import annotations

import re
import time
from calendar import timegm

_MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_ZONE = re.compile(rb"([+-])(\d\d):?(\d\d)")
_DAY = 86400
_LEAP_CYCLE = 8  # maximum number of years between two leap years (1896 to 1904)


class Clock:
    """Parses the time stamps of one file.

    A traditional time stamp, `Nov 22 08:06:46` (RFC 3164 section 4.1.2), lacks the year and the zone. It is read as the
    local time of this machine, in the latest year that does not put it more than a day after `written`, the time of
    the file's last change.
    """

    def __init__(self, written: float) -> None:
        self._limit = written + _DAY
        self._year = time.localtime(written).tm_year
        self._hours: tuple[bytes, int | None] = b"", None  # the last hour that was parsed, and its start

    def second(self, stamp: bytes, zone: bytes) -> int | None:
        """Seconds since 1970; None for a date that does not exist.

        stamp: `Nov 22 08:06:46` or `2026-11-22T08:06:46`. zone: empty (local time), `Z`, `+01:00` or `+0100`.
        """
        hour = stamp[:-6] + zone
        known, began = self._hours
        if hour != known:
            try:
                began = self._dated(stamp, zone) if stamp[4:5] == b"-" else self._traditional(stamp)
            except (ValueError, OverflowError, KeyError):
                began = None
            self._hours = hour, began
        return None if began is None else began + int(stamp[-5:-3]) * 60 + int(stamp[-2:])

    def _traditional(self, stamp: bytes) -> int | None:
        month, day, hour = _MONTHS[stamp[:3]], int(stamp[4:6]), int(stamp[7:9])
        for year in range(self._year + 1, self._year - _LEAP_CYCLE, -1):
            if _is_day(year, month, day) and hour < 24:
                began = int(time.mktime((year, month, day, hour, 0, 0, 0, 0, -1)))
                if began <= self._limit:
                    return began
        return None

    def _dated(self, stamp: bytes, zone: bytes) -> int | None:
        year, month, day, hour = int(stamp[:4]), int(stamp[5:7]), int(stamp[8:10]), int(stamp[11:13])
        if not _is_day(year, month, day) or hour > 23:
            return None
        if not zone:
            return int(time.mktime((year, month, day, hour, 0, 0, 0, 0, -1)))
        began = timegm((year, month, day, hour, 0, 0, 0, 0, 0))
        if ahead := _ZONE.fullmatch(zone):
            sign, hours, minutes = ahead.groups()
            seconds = int(hours) * 3600 + int(minutes) * 60
            began -= seconds if sign == b"+" else -seconds
        return began


def _is_day(year: int, month: int, day: int) -> bool:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return year > 0 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]
