"""Figures as people read them, and the one colour."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ("octets", "kB", "MB", "GB", "TB")


def span(seconds: float) -> str:
    """`3 d 4 h`: the two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _SPANS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break  # the next unit down would stand beside one that is no neighbour
    return " ".join(parts[:2])


def size(octets: float) -> str:
    """`3.2 MB`."""
    unit = 0
    while octets >= 1000 and unit < len(_SIZES) - 1:
        octets /= 1000
        unit += 1
    return f"{octets:.1f} {_SIZES[unit]}" if unit else f"{octets:.0f} {_SIZES[unit]}"


def moment(when: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


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
