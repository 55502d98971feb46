"""Stamps of log lines, and the years that they do not tell."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fastscreen.report.timestamps import Clock


@pytest.fixture(autouse=True, params=["UTC", "Europe/Berlin", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def local(*moment: int) -> int:
    return int(datetime(*moment).timestamp())  # type: ignore[arg-type]


def test_a_traditional_stamp_is_local_time_of_the_year_it_was_written_in() -> None:
    clock = Clock(local(2026, 11, 23, 3, 0))
    assert clock.second(b"Nov 22 08:06:46", b"") == local(2026, 11, 22, 8, 6, 46)
    assert clock.second(b"Jan  2 00:00:00", b"") == local(2026, 1, 2)


def test_at_new_year_december_is_of_the_year_before() -> None:
    clock = Clock(local(2027, 1, 3, 6, 25))
    assert clock.second(b"Dec 31 23:59:59", b"") == local(2026, 12, 31, 23, 59, 59)
    assert clock.second(b"Jan  1 00:00:01", b"") == local(2027, 1, 1, 0, 0, 1)


def test_a_stamp_may_be_some_hours_ahead_of_the_file() -> None:
    """The machine that wrote the log may be in another zone than the one that reads it."""
    clock = Clock(local(2026, 12, 31, 20, 0))
    assert clock.second(b"Jan  1 08:00:00", b"") == local(2027, 1, 1, 8)


def test_the_29th_of_february_is_of_the_last_leap_year() -> None:
    assert Clock(local(2027, 3, 1)).second(b"Feb 29 12:00:00", b"") == local(2024, 2, 29, 12)


@pytest.mark.parametrize("stamp", [b"Feb 30 12:00:00", b"Nov  0 12:00:00", b"Foo 12 12:00:00", b"Nov 12 24:00:00"])
def test_a_date_that_there_is_not(stamp: bytes) -> None:
    assert Clock(local(2026, 11, 22)).second(stamp, b"") is None


@pytest.mark.parametrize(
    ("zone_of_stamp", "hours"), [(b"Z", 0), (b"+00:00", 0), (b"+01:00", -1), (b"+0100", -1), (b"-05:30", 5.5)]
)
def test_dates_with_a_zone(zone_of_stamp: bytes, hours: float) -> None:
    noon = int(datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC).timestamp())
    assert Clock(0).second(b"2026-11-22T12:00:05", zone_of_stamp) == noon + hours * 3600


def test_a_date_without_a_zone_is_local() -> None:
    assert Clock(0).second(b"2026-11-22T12:00:05", b"") == local(2026, 11, 22, 12, 0, 5)


def test_dates_that_there_are_not() -> None:
    assert Clock(0).second(b"2026-02-29T12:00:05", b"Z") is None
    assert Clock(0).second(b"0000-01-01T12:00:05", b"Z") is None


def test_the_hour_that_is_kept_is_not_taken_for_another() -> None:
    clock = Clock(local(2026, 11, 23))
    moments = [b"Nov 22 08:59:59", b"Nov 22 09:00:00", b"Nov 21 09:00:00", b"Nov 22 08:00:00"]
    found = [clock.second(stamp, b"") for stamp in moments]
    assert found == [
        local(2026, 11, 22, 8, 59, 59),
        local(2026, 11, 22, 9),
        local(2026, 11, 21, 9),
        local(2026, 11, 22, 8),
    ]
