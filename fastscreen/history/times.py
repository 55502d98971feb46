"""Points in time as people write them in a filter: `09:30`, `yesterday`, `2h`, `2026-11-29T10:00`. In local time."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import NamedTuple

EXPECTED = "now, today, yesterday, monday, 09:30, yesterdayT09:30, 2026-11-29, 2026-11-29T10:00, 2h or 3d"

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(?:[0-9]{1,6}(?:min|[smhdw]))+", re.ASCII)
_PART = re.compile(r"([0-9]+)([a-z]+)", re.ASCII)
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_STAMP = re.compile(r"@([0-9]{1,11})(?:\.([0-9]{1,6}))?", re.ASCII)
_ZONE = re.compile(r"(.*)(z|[+-][0-9]{2}:?[0-9]{2})", re.ASCII)


class Span(NamedTuple):
    """A period, from `since` to before `until`, in µs since 1970."""

    since: int
    until: int


def moment(text: str, now: float, *, later: bool = False) -> int:
    """A point in time, in µs since 1970. ValueError: not one.

    A day is its beginning, and a time of day without a day is today's. now: s since 1970. later: when clocks are put
    back, an hour comes twice; whether the second time is meant.
    """
    word = text.lower()
    if not word:
        raise _unreadable(text)
    if word == "now":
        return round(now * 1e6)
    if stamp := _STAMP.fullmatch(word):
        return int(stamp[1]) * 1_000_000 + int((stamp[2] or "").ljust(6, "0"))
    if _AGE.fullmatch(word):
        seconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(word))
        return _microseconds(now - seconds, text)
    zone = None
    if "t" in word and (zoned := _ZONE.fullmatch(word)) and _CLOCK.search(zoned[1]):
        word, zone = zoned[1], zoned[2]
    day_word, hour, minute, second = _split(word)
    day = _day(day_word, now) if day_word else _today(now)
    if day is None or hour > 23 or minute > 59 or second > 59:
        raise _unreadable(text)
    found = datetime(day.year, day.month, day.day, hour, minute, second, fold=int(later))
    if zone is not None:
        try:
            found = datetime.fromisoformat(f"{found:%Y-%m-%dT%H:%M:%S}{'+00:00' if zone == 'z' else zone}")
        except ValueError:
            raise _unreadable(text) from None
    return _microseconds(found, text)


def whole_day(text: str, now: float) -> Span:
    """A day: from its midnight to the next, however many hours that is. ValueError: not a day."""
    day = _day(text.lower(), now)
    if day is None:
        raise ValueError(f"{text} is not a day; expected today, yesterday, monday or 2026-11-29")
    return day_span(day)


def day_span(day: date) -> Span:
    """A day in local time. ValueError: a day that has no number of seconds."""
    try:
        first = datetime(day.year, day.month, day.day)
        return Span(_microseconds(first, str(day)), _microseconds(first + timedelta(days=1), str(day)))
    except OverflowError:
        raise _unreadable(str(day)) from None


def _split(word: str) -> tuple[str, int, int, int]:
    """The day, and the time of day: midnight if there is none. hour 99: neither."""
    before, separator, after = word.rpartition("t") if _CLOCK.fullmatch(word.rpartition("t")[2]) else ("", "", "")
    found = _CLOCK.fullmatch(after or word)
    if found is None:
        return word, 0, 0, 0
    if separator and not before:
        return "", 99, 0, 0
    return before, int(found[1]), int(found[2]), int(found[3] or 0)


def _day(word: str, now: float) -> date | None:
    """A day by its name or date. A weekday is the last one, today included."""
    today = _today(now)
    if word == "today":
        return today
    if word == "yesterday":
        return today - timedelta(days=1)
    if word in _DAYS:
        return today - timedelta(days=(today.weekday() - _DAYS.index(word)) % 7)
    if _DATE.fullmatch(word):
        try:
            return date.fromisoformat(word)
        except ValueError:
            return None
    return None


def _today(now: float) -> date:
    return datetime.fromtimestamp(now).date()


def _microseconds(when: float | datetime, text: str) -> int:
    try:
        seconds = when.timestamp() if isinstance(when, datetime) else when
    except (ValueError, OverflowError, OSError):
        raise _unreadable(text) from None
    if not 0 <= seconds < 1e11:
        raise _unreadable(text)
    return round(seconds * 1e6)


def _unreadable(text: str) -> ValueError:
    return ValueError(f"{text} is not a time; expected {EXPECTED}")
