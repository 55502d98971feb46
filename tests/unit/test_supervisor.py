"""Parts of the supervisor's loop, without processes: what it waits for, and what it does when something fails."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastscreen import conditions, config, handover, reload, reload_state
from fastscreen.conditions import Conditions
from fastscreen.config.model import Endpoint
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


class Signals:
    """What a signalfd gives: these numbers, one at a time."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.write(self.writing, b"x")

    def fileno(self) -> int:
        return self.reading

    def read(self) -> list[int]:
        return [self.numbers.pop(0)] if self.numbers else []


class Unfinished:
    """A restart whose tables cannot be read for `failures` attempts."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, failures: int, *numbers: int) -> None:
        self.supervisor, self.held, self.fed = daemon.supervisor, daemon.held, 0
        self.failures = failures
        self.held.signals = Signals(*numbers)  # type: ignore[assignment]
        del self.held.conditions  # they are made after that
        monkeypatch.setattr(handover, "adopt", lambda *_, **__: [])
        monkeypatch.setattr(handover, "settings_of", lambda *_: (self.held.config, ""))
        monkeypatch.setattr(self.held, "read", self.read)
        monkeypatch.setattr(self.held.watchdog, "feed", self.feed)
        state = SimpleNamespace(workers=1)
        self.found = self.supervisor._take_over(state)  # type: ignore[arg-type]

    def read(self, _: int) -> tuple[str, ...]:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError(errno.ENOENT, "No such file or directory", "/table")
        return ()

    def feed(self, _: float) -> None:
        self.fed += 1


def test_an_unfinished_restart_keeps_signals_and_feeds_the_watchdog(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = Unfinished(daemon, monkeypatch, 3, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)
    assert restart.found == (1, ())
    assert restart.fed == 3
    assert restart.supervisor._postponed == [signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2]
    assert len(daemon.said) == 1


def test_an_unfinished_restart_can_be_stopped(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any daemon: the loop stops what is there, and the exit code is 0."""
    restart = Unfinished(daemon, monkeypatch, 1000, signal.SIGTERM)
    assert restart.found == (1, ())
    assert restart.supervisor._postponed == [signal.SIGTERM]


def test_an_unfinished_restart_does_not_wait_for_a_fifo(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A table may have become one since the trial."""
    os.mkfifo(tmp_path / "table")
    monkeypatch.setattr(reload, "READ_SECONDS", 0.1)

    def read(restart: Unfinished, _: int) -> tuple[str, ...]:
        restart.failures -= 1
        if restart.failures >= 0:
            (tmp_path / "table").read_text()
        return ()

    monkeypatch.setattr(Unfinished, "read", read)
    Unfinished(daemon, monkeypatch, 1)
    assert "a table cannot be read in 0.1 s" in daemon.said[0]


def test_an_address_of_the_socket_unit_cannot_be_removed_by_a_reload(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its clients would wait in systemd's copy of the socket for nobody."""
    file = tmp_path / "fastscreen.toml"
    file.write_text('[listen]\naddresses = ["127.0.0.1:2525"]\n')
    where = Endpoint("127.0.0.1", 2526)
    daemon.held.activated = {where}
    group = [socket.socket()]
    daemon.held.groups = {where: group}

    def read_in_child(*_: object) -> Iterator[None]:
        yield from ()

    monkeypatch.setattr(reload, "_try", read_in_child)
    monkeypatch.setattr(reload, "reopen_log", lambda *_: None)
    list(reload.hang_up(daemon.held, file))
    (said,) = daemon.said
    assert "127.0.0.1:2526 missing, which systemd's socket unit listens on" in said
    assert daemon.held.groups == {where: group}
    assert [one.kind for one in daemon.held.conditions.read()] == [conditions.Kind.CONFIG]
    group[0].close()


@pytest.mark.parametrize(("problem", "tell", "lines"), [("", True, 1), ("", False, 0), ("full", True, 0)])
def test_sigusr1_logs_one_line(daemon: Daemon, problem: str, tell: bool, lines: int) -> None:
    """Not at SIGHUP, and not in addition to what the target says after a fault."""
    target = SimpleNamespace(problem=problem)
    target.reopen = lambda: setattr(target, "problem", "")
    daemon.held.target = target  # type: ignore[assignment]
    daemon.held.tls, daemon.held.places = [], []
    reload.reopen_log(daemon.held, tell=tell)
    assert daemon.said == ["log opened again"] * lines
