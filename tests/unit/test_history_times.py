"""Times in filters of the history: what people write, in local time, also when clocks change."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from fastscreen.history.times import moment, whole_day


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-11-30T12:20:00"),
        ("today", "2026-11-30"),
        ("Yesterday", "2026-11-29"),
        ("monday", "2026-11-30"),
        ("tuesday", "2026-11-24"),
        ("09:30", "2026-11-30T09:30"),
        ("9:05:07", "2026-11-30T09:05:07"),
        ("23:59", "2026-11-30T23:59"),
        ("yesterdayT09:30", "2026-11-29T09:30"),
        ("saturdayt00:01", "2026-11-28T00:01"),
        ("2026-11-29", "2026-11-29"),
        ("2026-11-29T10:00", "2026-11-29T10:00"),
        ("2026-11-29T10:00Z", "2026-11-29T11:00"),
        ("2026-11-29T10:00:30+05:30", "2026-11-29T05:30:30"),
        ("2h", "2026-11-30T10:20"),
        ("90min", "2026-11-30T10:50"),
        ("90m", "2026-11-30T10:50"),
        ("1d12h", "2026-11-29T00:20"),
        ("1w", "2026-11-23T12:20"),
        ("0s", "2026-11-30T12:20"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert moment(text, local("2026-11-30T12:20")) == local(expected) * 1e6


def test_seconds_since_1970() -> None:
    assert moment("@1795348800.25", 0) == 1_795_348_800_250_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "25:00",
        "12:60",
        "soon",
        "2026-02-30",
        "2h3",
        "T10:00",
        "t",
        "9999-12-31T23:59",
        "1970-01-01",
        "9999999w",
        "-1h",
        "0000-01-01",
        "2026-11-29T10:00+24:00",
        "2026-11-29T1:00+99:99",
        "yesterdayT",
        "tomorrow",
        "1.5h",
        "٣h",
        "2026-W48",
    ],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time; expected now, today, yesterday, monday, 09:30"):
        moment(text, local("2026-11-30T12:20"))


def test_clocks_are_put_back() -> None:
    """2026-10-25 has 25 hours, and 02:30 twice: `since` means the first, `until` the second."""
    now = local("2026-10-26T12:00")
    day = whole_day("yesterday", now)
    assert day.until - day.since == 25 * 3_600_000_000
    first, second = moment("2026-10-25T02:30", now), moment("2026-10-25T02:30", now, later=True)
    assert second - first == 3_600_000_000
    assert moment("yesterday", now) == day.since == local("2026-10-25") * 1e6
    assert moment("1d", now) == (now - 86400) * 1e6 != local("2026-10-25T12:00") * 1e6 - 3_600_000_000


def test_clocks_are_put_forward() -> None:
    """2026-03-29 has 23 hours, and no 02:30: it is what a clock that was not put forward shows."""
    now = local("2026-03-30T12:00")
    day = whole_day("2026-03-29", now)
    assert day.until - day.since == 23 * 3_600_000_000
    assert moment("2026-03-29T02:30", now) == local("2026-03-29T03:30") * 1e6


def test_whole_days() -> None:
    now = local("2026-11-30T12:20")
    assert whole_day("monday", now).since == local("2026-11-30") * 1e6
    for wrong in ("2h", "09:30", "now", "2026-11-31", ""):
        with pytest.raises(ValueError, match="is not a day; expected today, yesterday, monday or 2026-11-29"):
            whole_day(wrong, now)
