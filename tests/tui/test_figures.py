"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from fastscreen.tui import chart, figures


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0, "0s"), (0.0008, "0.8ms"), (0.012, "12ms"), (0.9994, "999ms"), (0.9996, "1.0s"),
        (9.949, "9.9s"), (9.951, "10s"), (59.4, "59s"), (59.6, "1m00s"), (3599.6, "1h00m"),
        (86399, "23h59m"), (266_000, "3d01h"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, shown: str) -> None:
    assert figures.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (9999, "9,999"), (12_345, "12.3 k"), (999_499, "999 k"), (1_230_000, "1.23 M")]
)
def test_brief_has_at_most_six_characters(number: int, shown: str) -> None:
    assert figures.brief(number) == shown
    assert len(shown) <= 6


def test_octets_share_rate() -> None:
    assert [figures.size(n) for n in (812, 31_200_000)] == ["812 B", "31.2 MB"]
    assert [figures.share(1, 3), figures.share(1, 0)] == ["33 %", "-"]
    assert [figures.rate(n) for n in (0, 0.44, 9.96, 1234.4)] == ["0", "0.4", "10", "1,234"]


def test_bars() -> None:
    assert figures.bar(1, 2, 4) == "██"
    assert figures.bar(0.001, 2, 4) == "▏"  # something is not nothing
    assert figures.bar(0, 0, 4) == ""
    assert figures.bar(9, 2, 4) == "████"
    assert figures.sparkline([0, 1, 8], 5) == "   ▁█"


def test_chart() -> None:
    assert chart.gathered([1, 3, 5], 2) == [1, 4]  # whole groups, counted from the newest
    assert chart.gathered([], 2) == []
    lines = chart.stacked([1, 2], [2, 4], 4, 3, 2)
    assert [line.plain for line in lines] == ["  █", " ▄█"]
    assert [str(span.style) for span in lines[1].spans] == ["fs.ok_on_rest", "fs.ok"]
