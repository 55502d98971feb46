"""When refreshes begin; the clock is the test's."""

import math
import signal
from pathlib import Path

import pytest

from fastscreen.allowlist.process import End
from fastscreen.allowlist.schedule import MAX_SECONDS, RETRY_SECONDS, RefreshSchedule
from fastscreen.config import Config, load


def settings(tmp_path: Path, interval: str = "1d", providers: str = '["google"]') -> Config:
    file = tmp_path / "fastscreen.toml"
    file.write_text(f'[allowlist]\nproviders = {providers}\ninterval = "{interval}"\npath = "{tmp_path}/table"\n')
    return load(file)


@pytest.mark.parametrize(("interval", "providers"), [("0", '["google"]'), ("1d", "[]")])
def test_nothing_is_due_when_nothing_is_to_be_refreshed(tmp_path: Path, interval: str, providers: str) -> None:
    schedule = RefreshSchedule()
    schedule.configure(settings(tmp_path, interval, providers), 100.0)
    assert schedule.due == schedule.deadline == math.inf


def test_the_first_is_at_the_start_and_the_next_an_interval_later(tmp_path: Path) -> None:
    schedule = RefreshSchedule(lambda: 0.0)
    schedule.configure(settings(tmp_path), 100.0)
    assert schedule.due == 100.0
    schedule.begin(100.0)
    assert (schedule.due, schedule.deadline) == (math.inf, 100.0 + MAX_SECONDS)
    schedule.end(End.DONE, 130.0)
    assert (schedule.due, schedule.deadline) == (130.0 + 86400, math.inf)


def test_each_is_late_by_another_part_of_a_tenth(tmp_path: Path) -> None:
    draws = iter([0.0, 0.5, 1.0])
    schedule = RefreshSchedule(lambda: next(draws))
    schedule.configure(settings(tmp_path, "10h"), 0.0)
    due = []
    for _ in range(3):
        schedule.begin(0.0)
        schedule.end(End.DONE, 0.0)
        due.append(schedule.due)
    assert due == [36000.0, 37800.0, 39600.0]


@pytest.mark.parametrize("code", [End.AGAIN, 70, -signal.SIGKILL, -signal.SIGSEGV])
def test_after_a_failure_it_is_tried_soon(tmp_path: Path, code: int) -> None:
    schedule = RefreshSchedule(lambda: 0.0)
    schedule.configure(settings(tmp_path), 0.0)
    schedule.begin(0.0)
    schedule.end(code, 10.0)
    assert schedule.due == 10.0 + RETRY_SECONDS
    for pause in (
        2 * RETRY_SECONDS,
        4 * RETRY_SECONDS,
        8 * RETRY_SECONDS,
        16 * RETRY_SECONDS,
        32 * RETRY_SECONDS,
        64 * RETRY_SECONDS,
        86400,
        86400,
    ):
        schedule.begin(0.0)
        schedule.end(code, 10.0)
        assert schedule.due == 10.0 + pause
    schedule.begin(0.0)
    schedule.end(End.DONE, 0.0)
    schedule.begin(0.0)
    schedule.end(code, 10.0)
    assert schedule.due == 10.0 + RETRY_SECONDS
    schedule.configure(settings(tmp_path, "60s"), 0.0)
    schedule.begin(0.0)
    schedule.end(code, 10.0)
    assert schedule.due == 70.0


def test_other_lists_are_refreshed_at_once_though_one_refresh_is_just_ending(tmp_path: Path) -> None:
    schedule = RefreshSchedule(lambda: 0.0)
    schedule.configure(settings(tmp_path), 0.0)
    schedule.begin(0.0)
    schedule.configure(settings(tmp_path, "2h"), 5.0)
    schedule.end(-signal.SIGKILL, 6.0)
    assert schedule.due == 5.0
    schedule.configure(settings(tmp_path, "0"), 7.0)
    assert schedule.due == math.inf
