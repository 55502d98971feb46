"""Parts of the supervisor's loop, without processes: what it waits for, and what it does when something fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from fastscreen import conditions, config, policy, reload_state
from fastscreen.conditions import Conditions
from fastscreen.place import Place, State
from fastscreen.reload_state import ReloadState
from fastscreen.supervisor import Supervisor


class Clock:
    """s, monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Daemon:
    """A supervisor with one worker, which has started nothing; `said` is its log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.supervisor = Supervisor(None, config.default())
        self.held = held = self.supervisor._held
        held.places = [Place("worker 1", 0)]
        held.condition_memory = [memoryview(bytearray(conditions.SIZE)) for _ in range(5)]
        held.conditions = Conditions(held.condition_memory[-2])
        held.reload_state = ReloadState(memoryview(bytearray(reload_state.SIZE)))
        self.said: list[str] = []
        monkeypatch.setattr(held, "warn", self.said.append)
        monkeypatch.setattr(held, "info", self.said.append)
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        self.supervisor._starting = False

    def due(self, now: float) -> float:
        return min(self.supervisor._due(now))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Daemon:
    made = Daemon(monkeypatch)

    class Target:
        needs_tick = False

    made.held.target = Target()  # type: ignore[assignment]
    return made


def test_a_fork_that_fails_is_tried_again_ever_later(
    daemon: Daemon, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the worker before had lived for long; and the log is not flooded."""
    (place,) = daemon.held.places
    place.started = clock.now - 5000.0

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(daemon.supervisor, "_start", fails)
    place.ended()
    pauses = []
    for _ in range(8):
        clock.now = max(clock.now, place.start_at)
        daemon.supervisor._replace(place)
        pauses.append(place.start_at - clock.now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert 1 <= len(daemon.said) <= 3
    assert "no process for worker 1" in daemon.said[0]
    assert [one.kind for one in daemon.held.conditions.read()] == [conditions.Kind.WORKER]


def test_a_job_in_hand_does_not_make_the_loop_spin(daemon: Daemon, clock: Clock) -> None:
    """Nobody looks at table files then, so that is not due either."""
    (place,) = daemon.held.places
    place.pid, place.state = 1, State.SERVING
    assert daemon.due(clock.now) <= clock.now

    def job() -> Iterator[None]:
        yield

    daemon.supervisor._job = job()  # type: ignore[assignment]
    assert daemon.due(clock.now) > clock.now
    daemon.supervisor._job = None
    daemon.supervisor._starting = True
    assert daemon.due(clock.now) > clock.now
