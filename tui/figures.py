"""Numbers and times as people read them. Times are seconds since 1970, shown in the reader's time zone."""

from __future__ import annotations

from datetime import datetime

BLOCKS = " ▁▂▃▄▅▆▇█"
PARTS = " ▏▎▍▌▋▊▉█"


def count(number: float) -> str:
    """A whole number: 999, 12,345, 1.23 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def brief(number: float) -> str:
    """A whole number in at most six characters: 999, 9,999, 12.3 k, 1.23 M."""
    return f"{number / 1000:.3g} k" if 9999.5 <= abs(number) < 999_500 else count(number)


def rate(number: float) -> str:
    """A rate: 0.4, 12, 1,234."""
    return f"{number:.1f}" if 0 < number < 9.95 else count(number)


def size(number: float) -> str:
    """Bytes: 812 B, 1.4 MB."""
    for unit_size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= unit_size:
            return f"{number / unit_size:.3g} {unit}"
    return f"{number:.0f} B"


def share(part: float, whole: float) -> str:
    """A percentage, or a dash where there is nothing to divide."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def duration(seconds: float | None) -> str:
    """At most six characters: 0.8ms, 12ms, 3.4s, 59s, 5m10s, 3h04m, 12d03h."""
    if seconds is None:
        return "-"
    seconds = abs(seconds)
    if not seconds:
        return "0s"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def clock(time: float, fraction: bool = False) -> str:
    """14:03:59, with thousandths if wanted."""
    moment = datetime.fromtimestamp(min(max(time, 0.0), 253e9))
    return f"{moment:%H:%M:%S}" + (f".{moment.microsecond // 1000:03}" if fraction else "")


def date(time: float) -> str:
    """Nov 22 14:03."""
    return f"{datetime.fromtimestamp(min(max(time, 0.0), 253e9)):%b %d %H:%M}"


def bar(part: float, whole: float, width: int) -> str:
    """A horizontal bar of at most `width` cells, in eighths of one."""
    eighths = round(8 * width * min(part / whole, 1.0)) if whole > 0 else 0
    if part > 0:
        eighths = max(eighths, 1)
    return PARTS[8] * (eighths // 8) + (PARTS[eighths % 8] if eighths % 8 else "")


def sparkline(values: list[float], width: int) -> str:
    """The last `width` values, each one cell high; every value above 0 is visible."""
    values = values[-width:]
    top = max(values, default=0.0) or 1.0
    return "".join(BLOCKS[max(round(8 * value / top), 1) if value > 0 else 0] for value in values).rjust(width)
