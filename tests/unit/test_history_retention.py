"""What is deleted from the history, by age and by size, and what a clock that jumps does not delete."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from fastscreen.history.day import Part, begin_of
from fastscreen.history.folder import Entry
from fastscreen.history.retention import certain_day, expired, oversized

TODAY = date(2026, 11, 30)
KEEP = 30 * 86400


def back(*days: int) -> list[date]:
    return [TODAY - timedelta(days=each) for each in days]


def entries(days: list[date], size: int = 1) -> list[Entry]:
    parts = [Part(each, 1) for each in sorted(days)]
    return [Entry(part.path(Path("/history")), part, size) for part in parts]


def noon(of_day: date) -> float:
    return begin_of(of_day) / 1e6 + 43200


def deleted(days: list[date], now: float, made: dict[date, date] | None = None, keep: float = KEEP) -> list[date]:
    found = expired(entries(days), keep, now, lambda path: (made or {}).get(date.fromisoformat(path.stem)))
    return [entry.part.day for entry in found]


def test_old_days_are_deleted() -> None:
    days = back(*range(33))
    assert deleted(days, noon(TODAY)) == back(32, 31)
    assert deleted(days, begin_of(TODAY) / 1e6) == back(32, 31), "the whole day is older"
    assert deleted(back(0, 1, 2), noon(TODAY), keep=86400) == back(2)
    assert deleted(back(0, 1, 2), noon(TODAY), keep=86400 * 1.4) == back(2)
    assert deleted(back(0, 1, 2), noon(TODAY), keep=86400 * 1.6) == []


@pytest.mark.parametrize("ahead", [2, 31, 365, 36500])
def test_a_clock_that_is_ahead_deletes_nothing(ahead: int) -> None:
    days = back(*range(30))
    wrong = TODAY + timedelta(days=ahead)
    assert deleted([*days, wrong], noon(wrong)) == []
    assert deleted([*days, wrong], noon(TODAY)) == [], "the clock is right again"
    tomorrow = wrong + timedelta(days=1)
    assert deleted([*days, wrong, tomorrow], noon(tomorrow)) == [], "it jumped at midnight"


def test_a_clock_that_is_behind_deletes_nothing() -> None:
    days = back(*range(30))
    wrong = TODAY - timedelta(days=365)
    assert deleted([*days, wrong], noon(wrong), {wrong: TODAY}) == []
    assert deleted([*days, wrong], noon(TODAY), {wrong: TODAY}) == [], "the file was made today"
    later = back(*range(-31, 30))
    for days_later, is_deleted in ((30, False), (31, True)):
        gone = deleted([*later, wrong], noon(TODAY + timedelta(days=days_later)), {wrong: TODAY})
        assert (wrong in gone, TODAY in gone) == (is_deleted, is_deleted), "as long as the day when it was made"


def test_after_a_pause_days_are_deleted_again_on_the_third() -> None:
    days = back(*range(60, 90))
    assert deleted([*days, *back(0)], noon(TODAY)) == []
    assert deleted([*days, *back(0, 1)], noon(TODAY)) == []
    assert deleted([*days, *back(0, 1, 2)], noon(TODAY)) == sorted(days)


def test_the_certain_day() -> None:
    assert certain_day(set(), noon(TODAY)) is None
    assert certain_day(set(back(0, 1)), noon(TODAY)) is None
    assert certain_day(set(back(0, 1, 2)), noon(TODAY)) == TODAY
    assert certain_day(set(back(0, 2, 3, 4)), noon(TODAY)) == TODAY - timedelta(days=2)
    assert certain_day(set(back(-3, -2, -1)), noon(TODAY)) is None, "the future"


def test_the_oldest_go_when_there_is_too_much() -> None:
    found = entries(back(*range(10)), size=100)
    assert oversized(found, 1000, 0) == []
    assert oversized(found, 1000, 1) == found[:1]
    assert oversized(found, 1000, 201) == found[:3]
    assert oversized(found, 10, 1000) == found
