"""Pace: batches are gathered when they come often with little, and only if that gathers any."""

from fastscreen.core import Pace

WINDOW = 100_000  # µs
SECOND = 1_000_000


def paused_share(spacing: int, seconds: int) -> float:
    """Events each `spacing` µs, whatever the screener does; how much of the last second was paused."""
    pace = Pace(0)
    now, pending, paused, next_event = 0, 0, 0, 0
    end = seconds * SECOND
    wait = 0
    while now < end:
        now = max(next_event, now + wait)
        while next_event <= now:
            pending += 1
            next_event += spacing
        if now > end - SECOND:
            paused += wait
        wait = pace.after(pending, now)
        pending = 0
    return paused / SECOND


def test_events_that_come_often_one_by_one_are_gathered() -> None:
    assert paused_share(spacing=500, seconds=10) > 0.9


def test_few_events_wait_for_nothing() -> None:
    assert paused_share(spacing=5_000, seconds=10) == 0


def test_looks_again_at_what_batches_are_without_pauses() -> None:
    pace = Pace(0)
    waits = []
    for step in range(1, 50 * 200):
        waits.append(pace.after(1, step * 500))
    assert waits[0] == 0
    assert Pace.PAUSE in waits
    assert 0 in waits[waits.index(Pace.PAUSE) :]


def test_large_batches_are_not_gathered() -> None:
    pace = Pace(0)
    assert not any(pace.after(20, step * 2_000) for step in range(1, 5_000))


def test_one_client_after_the_other_is_soon_left_alone() -> None:
    """Each comes when the one before was served: a pause gathers nothing and only holds them up."""
    pace = Pace(0)
    now, wait, paused = 0, 0, 0
    for _ in range(200_000):
        now += 200 + wait
        wait = pace.after(1, now)
        if now > 20 * SECOND:
            paused += wait
    assert now > 30 * SECOND
    assert paused / (now - 20 * SECOND) < 0.03


def test_a_pause_ends_with_the_load() -> None:
    pace = Pace(0)
    now = 0
    for _ in range(2_000):
        now += 500
        wait = pace.after(1, now)
    assert wait == Pace.PAUSE
    for _ in range(3 * WINDOW // Pace.PAUSE):
        now += Pace.PAUSE
        wait = pace.after(0, now)
    assert wait == 0
