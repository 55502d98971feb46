"""What the supervisor knows of a child: which reports are to come, by when, and what follows from them."""

import math
import socket
import time

import pytest

from fastscreen.process.child import END_SECONDS, Child, State
from fastscreen.process.ipc import Failed, Ready


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def child(clock: list[float]) -> Child:
    made = Child("worker 1", 0)
    made.take(12345, socket.socket())
    return made


def test_a_start(child: Child, clock: list[float]) -> None:
    child.expect(State.STARTING, 1040.0)
    assert (child.state, child.by, child.serving_since) == (State.STARTING, 1040.0, math.inf)
    clock[0] = 1003.0
    child.reported(Ready())
    assert (child.state, child.by, child.serving_since) == (State.SERVING, math.inf, 1003.0)
    child.leave()


def test_a_start_that_fails(child: Child, clock: list[float]) -> None:
    """It ends, or is killed soon."""
    child.expect(State.STARTING, 1040.0)
    child.reported(Failed("no cache"))
    assert (child.state, child.by) == (State.ENDING, 1000.0 + END_SECONDS)
    assert child.answer == Failed("no cache")
    child.leave()


def test_a_reload_while_it_starts(child: Child) -> None:
    """Two reports are to come: the first is for the start, the second for the reload."""
    child.expect(State.STARTING, 1040.0)
    child.expect(State.RELOADING, 1030.0)
    assert (child.state, child.by) == (State.STARTING, 1040.0)
    child.reported(Ready())
    assert (child.state, child.by) == (State.RELOADING, 1040.0)
    child.reported(Ready())
    assert (child.state, child.by) == (State.SERVING, math.inf)
    child.leave()


def test_a_report_that_was_not_expected(child: Child) -> None:
    with pytest.raises(ValueError, match="not expected"):
        child.reported(Ready())
    child.expect(State.RELOADING, 1030.0)
    child.reported(Ready())
    with pytest.raises(ValueError, match="not expected"):
        child.reported(Failed("late"))
    child.leave()


def test_its_end_forgets_everything(child: Child) -> None:
    child.expect(State.STARTING, 1040.0)
    child.ended()
    assert (child.pid, child.state, child.by, child.expected) == (0, State.EMPTY, math.inf, 0)
    child.leave()
