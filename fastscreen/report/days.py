"""The days of a report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

EXPECTED = "today, yesterday, week, 2026-11-22 or 2026-11-20..2026-11-22"

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True)
class Days:
    """Days in local time, from first to last, both included."""

    first: date
    last: date

    @property
    def since(self) -> int:
        """The start of the first day, s since 1970."""
        return int(datetime(self.first.year, self.first.month, self.first.day).timestamp())

    @property
    def until(self) -> int:
        """The end of the last day: the first second that is not included, s since 1970."""
        following = datetime(self.last.year, self.last.month, self.last.day) + timedelta(days=1)
        return int(following.timestamp())

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def days(text: str, today: date) -> Days:
    """Parse the argument of -d. A week begins on Monday. Raises ValueError."""
    if text == "today":
        return Days(today, today)
    if text == "yesterday":
        return Days(today - timedelta(days=1), today - timedelta(days=1))
    if text == "week":
        return Days(today - timedelta(days=today.weekday()), today)
    first, dots, last = text.partition("..")
    found = Days(_day(first), _day(last if dots else first))
    if found.last < found.first:
        raise ValueError(f"{text}: ends before it begins; expected {EXPECTED}")
    return found


def _day(text: str) -> date:
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        found = date.fromisoformat(text)
        datetime(found.year, found.month, found.day).timestamp()  # some days have no value in seconds
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a day; expected {EXPECTED}") from None
    return found
