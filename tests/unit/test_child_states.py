"""The state of a child in the supervisor: expected reports, their deadlines, and the consequences."""

import math
import socket
import time

import pytest

from fastscreen.process.child import END_SECONDS, Child, ChildState
from fastscreen.process.ipc import Failed, Ready


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def child(clock: list[float]) -> Child:
    made = Child("worker 1", 0)
    made.assign(12345, socket.socket())
    return made


def test_a_start(child: Child, clock: list[float]) -> None:
    child.expect(ChildState.STARTING, 1040.0)
    assert (child.state, child.deadline, child.serving_since) == (ChildState.STARTING, 1040.0, math.inf)
    clock[0] = 1003.0
    child.take_report(Ready())
    assert (child.state, child.deadline, child.serving_since) == (ChildState.SERVING, math.inf, 1003.0)
    child.close_channel()


def test_a_start_that_fails(child: Child, clock: list[float]) -> None:
    """It ends, or is killed soon."""
    child.expect(ChildState.STARTING, 1040.0)
    child.take_report(Failed("no cache"))
    assert (child.state, child.deadline) == (ChildState.ENDING, 1000.0 + END_SECONDS)
    assert child.last_report == Failed("no cache")
    child.close_channel()


def test_a_reload_while_it_starts(child: Child) -> None:
    """Two reports are to come: the first is for the start, the second for the reload."""
    child.expect(ChildState.STARTING, 1040.0)
    child.expect(ChildState.RELOADING, 1030.0)
    assert (child.state, child.deadline) == (ChildState.STARTING, 1040.0)
    child.take_report(Ready())
    assert (child.state, child.deadline) == (ChildState.RELOADING, 1040.0)
    child.take_report(Ready())
    assert (child.state, child.deadline) == (ChildState.SERVING, math.inf)
    child.close_channel()


def test_a_report_that_was_not_expected(child: Child) -> None:
    with pytest.raises(ValueError, match="not expected"):
        child.take_report(Ready())
    child.expect(ChildState.RELOADING, 1030.0)
    child.take_report(Ready())
    with pytest.raises(ValueError, match="not expected"):
        child.take_report(Failed("late"))
    child.close_channel()


def test_its_end_forgets_everything(child: Child) -> None:
    child.expect(ChildState.STARTING, 1040.0)
    child.ended()
    assert (child.pid, child.state, child.deadline, child.expected) == (0, ChildState.STOPPED, math.inf, 0)
    child.close_channel()
