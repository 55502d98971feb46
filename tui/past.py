"""The past that is shown: a minute, an hour or a day, and the way from one to another, in the reader's time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from fastscreen.tui.figures import duration

Unit = Literal["minute", "hour", "day"]

MINUTE = 60
UNITS: tuple[Unit, ...] = ("minute", "hour", "day")


class Past(NamedTuple):
    """A minute, by its first second since 1970, and how much around it is shown."""

    minute: int
    unit: Unit = "minute"

    @property
    def since(self) -> int:
        """The first second of what is shown."""
        return begin(self.minute, self.unit)

    @property
    def until(self) -> int:
        """The first second that is not."""
        return moved(self.since, 1, self.unit)

    def by(self, number: int, unit: Unit) -> Past:
        """So many minutes, hours or days later; a day later is the same time of day."""
        return self._replace(minute=moved(self.minute, number, unit))

    def other_unit(self) -> Past:
        """The same minute within more, and after a day, alone again."""
        return self._replace(unit=UNITS[(UNITS.index(self.unit) + 1) % len(UNITS)])

    def text(self, now: float) -> str:
        """Sat Nov 22 14:03, 14:00-15:00, or the date alone; with the year if it is not this one."""
        first, end = datetime.fromtimestamp(self.since), datetime.fromtimestamp(self.until)
        shown = f"{first:%a %b %d}" + (f"{first: %Y}" if first.year != datetime.fromtimestamp(now).year else "")
        if self.unit == "day":
            return shown
        return f"{shown} {first:%H:%M}" + (f"-{end:%H:%M}" if self.unit == "hour" else "")

    def ago(self, now: float) -> str:
        """How long it has been over."""
        return f"{duration(now - self.until)} ago" if now > self.until else "not over yet"


def begin(time: float, unit: Unit) -> int:
    """The first second of the minute, hour or day of a time."""
    if unit == "minute":
        return int(time // MINUTE) * MINUTE
    moment = datetime.fromtimestamp(time).replace(minute=0, second=0, microsecond=0)
    return int((moment.replace(hour=0, fold=0) if unit == "day" else moment).timestamp())


def moved(time: int, number: int, unit: Unit) -> int:
    """A time so many minutes, hours or days later. A day may have 23 or 25 hours."""
    if unit == "day":
        return int((datetime.fromtimestamp(time) + timedelta(days=number)).timestamp())
    return time + number * (MINUTE if unit == "minute" else 60 * MINUTE)
