"""How long a worker that keeps dying is waited for."""

import time

import pytest

from fastscreen.process.child import Child, Heartbeat


def test_pauses_grow_and_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time at once, then 1 s, 2, 4 ... up to 30; and for ever so, however often."""
    child = Child("worker 1", 0)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    child.started = 999.0
    pauses = []
    for _ in range(2000):
        child.ended()
        pauses.append(child.start_at - 1000.0)
    assert pauses[:8] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert pauses[-1] == 30


def test_a_long_life_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("worker 1", 0)
    child.short_lives = 7
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    child.started = 900.0
    child.ended()
    assert (child.start_at, child.short_lives, child.pid) == (1000.0, 0, 0)


def test_a_pulse() -> None:
    """Only consecutive checks count that find the byte unchanged, whatever its value."""
    heartbeat = Heartbeat()
    assert [heartbeat.missed(octet) for octet in (0, 0, 0, 1, 0, 255, 255, 0, 0)] == [0, 1, 2, 0, 0, 0, 1, 0, 1]
