"""Numbers, sizes and times as people read them, and warnings in red."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ("bytes", "kB", "MB", "GB", "TB")


def span(seconds: float) -> str:
    """`3 d 4 h`: the two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _SPANS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break  # only adjacent units are shown together
    return " ".join(parts[:2])


def size(number: float) -> str:
    """`3.2 MB`."""
    unit = 0
    while number >= 1000 and unit < len(_SIZES) - 1:
        number /= 1000
        unit += 1
    return f"{number:.1f} {_SIZES[unit]}" if unit else f"{number:.0f} {_SIZES[unit]}"


def plural(number: float, one: str, many: str = "") -> str:
    """`1 list`, `2 lists`, `1,000 entries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def moment(when: float) -> str:
    """Local date and time. Never raises: other hosts' times are shown, too."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):  # not a number, or a year that no calendar has
        return "an unknown time"


def expiry(until: float | str, now: float) -> str:
    """When a pass expires or has expired."""
    if isinstance(until, str):
        return "not passed yet" if until == "new" else until
    if until >= now:
        return f"passed, valid until {moment(until)} ({span(until - now)} more)"
    return f"expired {moment(until)} ({span(now - until)} ago)"


def clock(when: float) -> str:
    """Local time of day, to the millisecond."""
    thousandths = round(when * 1000)
    return time.strftime("%H:%M:%S", time.localtime(thousandths // 1000)) + f".{thousandths % 1000:03d}"


def red(text: str, stream: TextIO | None = None) -> str:
    """The text as a warning: red on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[1;31m{text}\x1b[0m"
