"""What -d may say."""

from datetime import date, datetime

import pytest

from fastscreen.report.days import days

TODAY = date(2026, 11, 25)  # a Wednesday


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("today", TODAY, TODAY),
        ("yesterday", date(2026, 11, 24), date(2026, 11, 24)),
        ("week", date(2026, 11, 23), TODAY),
        ("2026-11-02", date(2026, 11, 2), date(2026, 11, 2)),
        ("2026-10-30..2026-11-02", date(2026, 10, 30), date(2026, 11, 2)),
    ],
)
def test_days(text: str, first: date, last: date) -> None:
    found = days(text, TODAY)
    assert (found.first, found.last) == (first, last)
    assert found.since == datetime(first.year, first.month, first.day).timestamp()
    assert found.until > datetime(last.year, last.month, last.day, 23, 59, 59).timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-02-30", "2026-11-22..", "..2026-11-22", "2026-11-22..2026-11-21", "20261122", "9999-99-99"],
)
def test_no_days(text: str) -> None:
    with pytest.raises(ValueError, match="expected today, yesterday, week"):
        days(text, TODAY)
