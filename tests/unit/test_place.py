"""How long a worker that keeps dying is waited for."""

import time

import pytest

from fastscreen.process.child import Place, Pulse


def test_pauses_grow_and_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time at once, then 1 s, 2, 4 ... up to 30; and for ever so, however often."""
    place = Place("worker 1", 0)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    place.started = 999.0
    pauses = []
    for _ in range(2000):
        place.ended()
        pauses.append(place.start_at - 1000.0)
    assert pauses[:8] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert pauses[-1] == 30


def test_a_long_life_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("worker 1", 0)
    place.short_lives = 7
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    place.started = 900.0
    place.ended()
    assert (place.start_at, place.short_lives, place.pid) == (1000.0, 0, 0)


def test_a_pulse() -> None:
    """Only looks in a row count that find the octet as it was, whatever it is."""
    pulse = Pulse()
    assert [pulse.missed(octet) for octet in (0, 0, 0, 1, 0, 255, 255, 0, 0)] == [0, 1, 2, 0, 0, 0, 1, 0, 1]
