"""Parts of the supervisor's loop, without processes: what it waits for, and what it does when something fails."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from fastscreen import config
from fastscreen.allowlist import lists
from fastscreen.allowlist.schedule import MAX_SECONDS
from fastscreen.config.model import Endpoint
from fastscreen.daemon import reload, restart, spawn, takeover, tls_reload, worker_settings
from fastscreen.daemon.supervisor import Supervisor
from fastscreen.process import conditions, reload_state
from fastscreen.process.child import Child, ChildState
from fastscreen.process.conditions import Conditions
from fastscreen.process.reload_state import ReloadState
from fastscreen.tls.certificates import Certificates


class Clock:
    """s, monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Daemon:
    """A supervisor with one worker, which does not start processes. `said` is its log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.supervisor = Supervisor(None, config.default())
        self.resources = resources = self.supervisor._resources
        resources.children = [Child("worker 1", 0, "worker")]
        resources.condition_memory = [memoryview(bytearray(conditions.SIZE)) for _ in range(5)]
        resources.conditions = Conditions(resources.condition_memory[-2])
        resources.reload_state = ReloadState(memoryview(bytearray(reload_state.SIZE)))
        self.said: list[str] = []
        monkeypatch.setattr(resources, "warn", self.said.append)
        monkeypatch.setattr(resources, "info", self.said.append)
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        resources.starting = False

    def due(self, now: float) -> float:
        return min(self.supervisor._due(now))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Daemon:
    made = Daemon(monkeypatch)

    class Target:
        needs_tick = False

    made.resources.target = Target()  # type: ignore[assignment]
    return made


def test_a_fork_that_fails_is_tried_again_ever_later(
    daemon: Daemon, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the worker before had lived for long; and the log is not flooded."""
    (child,) = daemon.resources.children
    child.started = clock.now - 5000.0

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(spawn, "start_worker", fails)
    child.ended()
    pauses = []
    for _ in range(8):
        clock.now = max(clock.now, child.start_at)
        daemon.supervisor._children.start_again(child)
        pauses.append(child.start_at - clock.now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert 1 <= len(daemon.said) <= 3
    assert "no process for worker 1" in daemon.said[0]
    assert [one.kind for one in daemon.resources.conditions.read()] == [conditions.Kind.WORKER]


def test_a_job_in_hand_does_not_make_the_loop_spin(daemon: Daemon, clock: Clock) -> None:
    """Table files are not checked during that time, so that check is not due."""
    (child,) = daemon.resources.children
    child.pid, child.state = 1, ChildState.SERVING
    assert daemon.due(clock.now) <= clock.now

    def job() -> Iterator[None]:
        yield

    daemon.supervisor._tasks.begin(job())  # type: ignore[arg-type]
    assert daemon.due(clock.now) > clock.now
    daemon.supervisor._tasks.cancel()
    daemon.resources.starting = True
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

    def __init__(
        self,
        daemon: Daemon,
        monkeypatch: pytest.MonkeyPatch,
        failures: int,
        *numbers: int,
        corrected: config.Config | None = None,
    ) -> None:
        self.resources, self.fed = daemon.resources, 0
        self.failures = failures
        self.resources.signals = Signals(*numbers)  # type: ignore[assignment]
        del self.resources.conditions  # they are made after that
        monkeypatch.setattr(takeover, "adopt", lambda *_, **__: [])
        monkeypatch.setattr(takeover, "settings_of", lambda *_: (corrected or self.resources.config, ""))
        monkeypatch.setattr(self.resources, "read", self.read)
        monkeypatch.setattr(self.resources.watchdog, "feed", self.feed)
        state = SimpleNamespace(workers=1)
        *self.found, self.postponed = takeover.finish(self.resources, state, None, "")  # type: ignore[arg-type]

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
    restart = Unfinished(daemon, monkeypatch, 4, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2, signal.SIGCHLD)
    assert restart.found == [1, ()]
    assert restart.fed == 4
    assert restart.postponed == [signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2]
    assert len(daemon.said) == 1


def test_an_unfinished_restart_can_be_stopped(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any daemon: the loop stops what is there, and the exit code is 0."""
    restart = Unfinished(daemon, monkeypatch, 1000, signal.SIGTERM)
    assert restart.found == [1, ()]
    assert restart.postponed == [signal.SIGTERM]


def test_an_unfinished_restart_takes_over_a_corrected_configuration(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for addresses, whose sockets were made already: a reload follows for these, one."""
    settings = daemon.resources.config
    addresses = (Endpoint("127.0.0.1", 2599),)
    listen = msgspec.structs.replace(settings.listen, addresses=addresses)
    corrected = msgspec.structs.replace(settings, listen=listen, hostname="other.example")
    restart = Unfinished(daemon, monkeypatch, 3, corrected=corrected)
    assert daemon.resources.config == msgspec.structs.replace(settings, hostname="other.example")
    assert restart.postponed == [signal.SIGHUP]


def test_an_unfinished_restart_does_not_wait_for_a_fifo(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A table may have become one since the trial."""
    os.mkfifo(tmp_path / "table")
    monkeypatch.setattr(worker_settings, "READ_SECONDS", 0.1)

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
    """Its clients would wait in systemd's copy of the socket, and never be served."""
    file = tmp_path / "fastscreen.toml"
    file.write_text('[listen]\naddresses = ["127.0.0.1:2525"]\n')
    where = Endpoint("127.0.0.1", 2526)
    daemon.resources.activated = {where}
    group = [socket.socket()]
    daemon.resources.groups = {where: group}

    def read_in_child(*_: object) -> Iterator[None]:
        yield from ()

    monkeypatch.setattr(reload, "try_in_child", read_in_child)
    monkeypatch.setattr(reload, "reopen_log", lambda *_: None)
    list(reload.reload(daemon.resources, file))
    (said,) = daemon.said
    assert "127.0.0.1:2526 missing, which systemd's socket unit listens on" in said
    assert daemon.resources.groups == {where: group}
    assert [one.kind for one in daemon.resources.conditions.read()] == [conditions.Kind.CONFIG]
    group[0].close()


def test_a_reload_names_each_key_that_needs_more(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the log, one line for each, and in what `fastscreen reload` prints. The keys keep their values."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(
        'user = "other"\n[greet]\nwait = "3s"\n[cache]\npath = "/elsewhere"\nprefix_ipv4 = 24\n'
        f'[control]\npath = "{daemon.resources.config.control.path}"\ngroup = "mail"\nnames = false\n'
    )
    before = daemon.resources.config

    def nothing(*_: object) -> Iterator[None]:
        yield from ()

    daemon.resources.target = SimpleNamespace(log=SimpleNamespace(warning=daemon.said.append))  # type: ignore[assignment]
    monkeypatch.setattr(daemon.resources, "open_ports", lambda *_, **__: ({}, {}))
    for name, instead in (("try_in_child", nothing), ("send_to_workers", nothing), ("_take_ports", lambda *_: None)):
        monkeypatch.setattr(reload, name, instead)
    monkeypatch.setattr(reload, "reopen_log", lambda *_: None)
    monkeypatch.setattr(daemon.resources, "health", SimpleNamespace(claim=lambda *_, **__: None), raising=False)
    daemon.resources.groups = {}
    list(reload.reload(daemon.resources, file))
    stays = "changed: the old value stays in use; to apply the new one,"
    assert daemon.said == [
        f"user {stays} stop and start fastscreen",
        f"cache.path {stays} run `fastscreen restart`",
        f"cache.prefix_ipv4 {stays} run `fastscreen restart`",
        f"control.group {stays} stop and start fastscreen",
        "configuration reloaded",
    ]
    now = daemon.resources.config
    assert (now.user, now.control.group) == (before.user, before.control.group)
    assert (now.cache.path, now.cache.prefix) == (before.cache.path, before.cache.prefix)
    assert (now.greet.wait, now.control.names) == (3, False)
    outcome = daemon.resources.reload_state.reload.read()
    assert outcome is not None
    assert outcome.text == (
        "configuration reloaded; a restart of fastscreen is needed to apply cache.path, cache.prefix_ipv4; "
        "a stop and a start of fastscreen is needed to apply user, control.group"
    )


@pytest.mark.parametrize(("problem", "tell", "lines"), [("", True, 1), ("", False, 0), ("full", True, 0)])
def test_sigusr1_logs_one_line(daemon: Daemon, problem: str, tell: bool, lines: int) -> None:
    """Not at SIGHUP, and not in addition to the line after an error of the log target."""
    target = SimpleNamespace(problem=problem)
    target.reopen = lambda: setattr(target, "problem", "")
    daemon.resources.target = target  # type: ignore[assignment]
    daemon.resources.tls, daemon.resources.children = [], []
    reload.reopen_log(daemon.resources, tell=tell)
    assert daemon.said == ["log opened again"] * lines


def refresh(daemon: Daemon) -> list[conditions.Condition]:
    """The conditions that a refresh, or the supervisor in its place, has begun."""
    return Conditions(daemon.resources.condition_memory[-3]).read()


@pytest.fixture
def refreshing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Its lists are to be refreshed; a refresh can be started, and is process 4711 then."""
    schedule = daemon.supervisor._list_refresh._schedule
    schedule._interval, schedule.due = 3600, 0.0
    daemon.resources.list_versions = {}
    monkeypatch.setattr(lists, "versions", lambda _: {})
    monkeypatch.setattr(Child, "kill", lambda _: None)
    monkeypatch.setattr(spawn, "start_refresh", lambda resources: resources.refresher.assign(4711, None))
    return daemon


@pytest.mark.parametrize(("code", "how"), [(-signal.SIGKILL, "was killed by SIGKILL"), (70, "exit code 70")])
def test_a_refresh_that_dies_is_shown_until_one_ends_well(
    refreshing: Daemon, clock: Clock, code: int, how: str
) -> None:
    supervisor, refresher = refreshing.supervisor, refreshing.resources.refresher
    supervisor._list_refresh.run(clock.now)
    assert refresher.pid == 4711
    supervisor._children.handle_end(refresher, code)
    (one,) = refresh(refreshing)
    assert one.kind == conditions.Kind.ALLOWLIST
    assert how in one.text
    supervisor._list_refresh._schedule.configure(config.default(), clock.now)  # no lists any more
    supervisor._list_refresh._show("")
    assert refresh(refreshing) == []


def test_a_refresh_that_does_not_end_is_shown(refreshing: Daemon, clock: Clock) -> None:
    supervisor = refreshing.supervisor
    supervisor._list_refresh.run(clock.now)
    clock.now += MAX_SECONDS
    supervisor._list_refresh.run(clock.now)
    assert refresh(refreshing) == []  # it may be writing still
    supervisor._children.handle_end(refreshing.resources.refresher, -signal.SIGKILL)
    assert [one.text for one in refresh(refreshing)] == [
        "the last refresh took too long and was killed; the lists stay as they are"
    ]


def test_a_refresh_without_a_process_is_shown(
    refreshing: Daemon, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(spawn, "start_refresh", fails)
    refreshing.supervisor._list_refresh.run(clock.now)
    assert "no process for a refresh" in refresh(refreshing)[0].text


def test_a_reload_that_ends_a_refresh_is_no_fault(refreshing: Daemon, clock: Clock) -> None:
    refreshing.supervisor._list_refresh.run(clock.now)
    refreshing.supervisor._list_refresh.cancel()
    refreshing.supervisor._children.handle_end(refreshing.resources.refresher, -signal.SIGKILL)
    assert refresh(refreshing) == []


@pytest.mark.parametrize(
    ("level", "paths", "kept"), [("none", (), False), ("none", ("/key.pem",), True), ("may", (), False)]
)
def test_certificates_that_nobody_needs_are_no_fault(
    daemon: Daemon, level: str, paths: tuple[str, ...], kept: bool
) -> None:
    resources = daemon.resources
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    resources.certificates = Certificates(("/key.pem",), (reading,))
    resources.conditions.begin(conditions.Kind.CERTIFICATES, "not renewed")
    tls = msgspec.structs.replace(resources.config.tls, level=level, certificates=paths)
    resources.config = msgspec.structs.replace(resources.config, tls=tls)
    assert list(tls_reload.renew(resources, resources.config.tls)) == []
    assert resources.conditions.read() == []
    assert (resources.certificates is not None) == kept
    if kept:
        os.close(reading)
    else:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(reading)


def test_what_the_kernel_does_not_end_is_not_waited_for_without_end(
    daemon: Daemon, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the loop spin: each wait has a time."""
    waits: list[float] = []

    def select(_read: object, _write: object, _other: object, seconds: float) -> tuple[list[int], ...]:
        waits.append(seconds)
        clock.now += seconds
        if len(waits) > 100:
            raise AssertionError(waits)
        return [], [], []

    monkeypatch.setattr("fastscreen.daemon.shutdown.select.select", select)
    killed: list[Child] = []
    monkeypatch.setattr(Child, "kill", lambda child: killed.append(child))
    daemon.resources.signals = Signals()  # type: ignore[assignment]
    daemon.resources.tls = []
    daemon.resources.control_process.pid = 4711
    daemon.supervisor._shutdown.end_others(lambda: None)
    assert killed
    assert min(waits) > 0
    assert sum(waits) < 30
    assert daemon.said == ["control server did not end"]


def test_a_stop_ends_the_job_in_hand(daemon: Daemon) -> None:
    """Otherwise it would open ports again during the shutdown."""
    steps: list[str] = []

    def job() -> Iterator[None]:
        try:
            yield
            steps.append("opens ports")
        finally:
            steps.append("ended")

    supervisor = daemon.supervisor
    supervisor._tasks.begin(job())  # type: ignore[arg-type]
    supervisor._tasks.add("restart", supervisor._restart)
    supervisor._run_tasks()
    supervisor._shutdown.request()
    supervisor._run_tasks()
    assert steps == ["ended"]
    assert supervisor._tasks.is_idle


@pytest.mark.parametrize("kind", ["reload", "restart"])
def test_a_job_that_a_stop_ends_is_reported(daemon: Daemon, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that wait for a reload or a restart learn why it ended."""

    def waits(*_: object) -> Iterator[None]:
        daemon.resources.reload_state.reload.begin()
        yield

    monkeypatch.setattr(reload, "_reload", waits)
    monkeypatch.setattr(restart, "run_trial", waits)
    supervisor = daemon.supervisor
    supervisor._tasks.add(kind, {"reload": supervisor._reload, "restart": supervisor._restart}[kind])
    supervisor._run_tasks()
    supervisor._shutdown.request()
    last = getattr(daemon.resources.reload_state, kind).read()
    assert (last.begun, last.finished, last.ok) == (1, 1, False)
    assert last.text.endswith("fastscreen is being stopped")
    assert len([line for line in daemon.said if "not taken over" in line]) == (kind == "reload")
