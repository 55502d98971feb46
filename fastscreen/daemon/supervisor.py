"""The process that `fastscreen run` is: it holds the listening sockets and keeps the workers alive.

It does not serve clients, and runs without threads and cache, so that hardly anything can go wrong with it; a fault
of one worker does not affect the others. Read `run`, then `_turn`. The modules next to this one do the work of a turn:
`children` (reports, time limits, ends and successors), `reload` (SIGHUP), `restart` (SIGUSR2), `shutdown` (SIGTERM),
`list_refresh`, `server_sockets`, `table_reload`, `cache_crashes`.

The loop waits for signals, reports of children and deadlines, all of them together, and never for one of them alone.
What takes several steps, such as a reload, is a task (`tasks`), which the loop resumes. An unexpected exception in one
part of a turn is logged (`error_guard`); the other parts and the loop go on.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fastscreen import __version__
from fastscreen.config import Config, ConfigError
from fastscreen.daemon import (
    first_start,
    reload,
    restart,
    shutdown,
    systemd_notify,
    systemd_sockets,
    table_reload,
    takeover,
)
from fastscreen.daemon.cache_crashes import CacheCrashes
from fastscreen.daemon.children import Children
from fastscreen.daemon.error_guard import ErrorGuard
from fastscreen.daemon.handover import State
from fastscreen.daemon.list_refresh import ListRefresh
from fastscreen.daemon.preload import preload
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.server_sockets import SocketRetry
from fastscreen.daemon.shutdown import Shutdown
from fastscreen.daemon.tasks import Steps, TaskQueue
from fastscreen.escaping import one_line
from fastscreen.process import descriptor_limits, memory, privileges, signals
from fastscreen.process.child import TICK, Child, ChildState
from fastscreen.process.signals import SignalReader
from fastscreen.screening import policy
from fastscreen.tables.file_watch import TableWatch

MAX_WAIT_SECONDS = 60.0


class Supervisor:
    """One fastscreen from start to end. `path` is None for the built-in settings."""

    def __init__(self, path: Path | None, config: Config, inherited: State | None = None, problem: str = "") -> None:
        """inherited: what the program before a restart left. problem: why its configuration is used again."""
        self._path = path
        self._inherited = inherited
        self._problem = problem
        self._resources = Resources(config)
        self._guard = ErrorGuard(lambda text: self._resources.warn(text))
        self._tasks = TaskQueue()
        self._table_watch = TableWatch()
        self._list_refresh = ListRefresh(self._resources, self._tasks)
        self._children = Children(
            self._resources, self._guard, self._list_refresh, CacheCrashes(self._resources, self._tasks)
        )
        self._sockets = SocketRetry(self._resources)
        self._shutdown = Shutdown(self._resources, self._tasks)
        self._log_at = 0.0
        self._is_restarted = inherited is not None
        """The restart is not over yet: not all new workers serve."""

    # ---- from start to end

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong."""
        resources = self._resources
        try:
            preload(resources.config)
        except ConfigError as error:
            print(f"fastscreen: {error}", file=sys.stderr)
            return 2
        memory.clean_up_and_freeze()
        count = policy.worker_count(resources.config)
        privileges.raise_descriptor_limit(
            descriptor_limits.wanted_descriptors(resources.config, descriptor_limits.Share(0, count))
        )
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent's SIG_IGN would hide every death
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.BLOCKED)
        postponed: list[int] = []
        try:
            resources.signals = SignalReader()
            if self._inherited is None:
                count, warnings = first_start.prepare(resources)
            else:
                count, warnings, postponed = takeover.finish(resources, self._inherited, self._path, self._problem)
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            resources.close_control()
            for problem in error.problems if isinstance(error, ConfigError) else (one_line(error),):
                print(f"fastscreen: {problem}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        resources.share(count)
        if self._inherited is not None:
            takeover.share(resources, self._inherited)
            resources.starting = False
        elif (code := self._start_children()) is not None:
            resources.close_control()
            return code
        self._log_start(warnings)
        now = time.monotonic()
        self._list_refresh.configure(resources.config, now)
        self._children.watch_heartbeats(now)
        self._sockets.begin(now)
        for number in postponed:
            self._guard.call(signals.name_of(number), self._handle_signal, number)
        while not self._shutdown.is_over:
            self._turn()
        self._shutdown.end_others(self._children.reap)
        resources.close_control()
        resources.info("daemon stopped")
        resources.target.close()
        return 0

    def _start_children(self) -> int | None:
        """The first start, at which a child that fails ends the daemon. Exit code; None: all serve."""
        outcome: list[int | None] = []

        def task() -> Steps[None]:
            outcome.append((yield from first_start.start_children(self._resources, self._children)))

        self._tasks.begin(task())
        self._guard.call("the start", self._run_tasks)
        while not outcome:
            self._turn()
            if not outcome and (self._resources.stopping or self._tasks.is_idle):
                outcome.append(0 if self._resources.stopping else 1)
        self._resources.starting = False
        (code,) = outcome
        if code is not None:
            shutdown.kill(self._resources.everyone)
        return code

    def _log_start(self, warnings: tuple[str, ...]) -> None:
        resources = self._resources
        for warning in warnings:
            resources.target.log.warning(warning)
        if os.geteuid() == 0:
            resources.target.log.warning(
                "fastscreen runs as root and does not change its user: set user to an unprivileged user"
            )
        if self._inherited is None:
            for address, group in resources.groups.items():
                if address not in resources.activated:
                    systemd_sockets.store(address, group)
            self._announce("daemon started")

    def _announce(self, event: str) -> None:
        """Tell the log and the service manager that clients are served."""
        resources = self._resources
        where = ", ".join(_name_of(group[0]) for group in resources.groups.values())
        workers = f"{len(resources.children)} workers, " if len(resources.children) > 1 else ""
        resources.info(f"{event} -- fastscreen {__version__}, {workers}listening on {where}")
        systemd_notify.send("READY=1", f"STATUS=listening on {where}")

    # ---- one turn of the loop

    def _turn(self) -> None:
        """Wait for the next event, and do all that is due. No exception leaves it."""
        call, children = self._guard.call, self._children
        readable = self._wait()
        now = time.monotonic()
        call("the watchdog", self._resources.watchdog.feed, now)
        call("signals", self._take_signals)
        for child in readable:
            call(f"a report of {child.name}", children.receive_reports, child)
        call("the end of a process", children.reap)
        call("deadlines", children.enforce_deadlines, now)
        call("checking heartbeats", children.check_heartbeats, now)
        call("former processes", self._retire_former, now)
        call("the end", self._shutdown.enforce_deadline, now)
        call("a refresh of the lists", self._list_refresh.run, now)
        call("the tables", self._follow_tables, now)
        call("the log", self._tick_log, now)
        for child in children.missing():
            if now >= child.start_at:
                call(f"the start of {child.name}", children.start_again, child)
        call("the control socket", self._sockets.run, now)
        call("conditions", children.end_conditions, now)
        call("a task", self._run_tasks)
        self._guard.end_turn(time.monotonic())

    def _wait(self) -> list[Child]:
        """Wait for an event or for what is due first. Return the children whose channels are readable."""
        resources = self._resources
        assert resources.signals is not None
        poll = select.poll()
        poll.register(resources.signals, select.POLLIN)
        channels: dict[int, Child] = {}
        now = time.monotonic()
        if pause := self._guard.pause_until(now):  # only signals cut it short
            poll.poll(math.ceil((pause - now) * 1000))
        for child in self._children:
            if child.channel is not None and child.state is not ChildState.STOPPED and not child.is_muted:
                channels[child.channel.fileno()] = child
                poll.register(child.channel, select.POLLIN)
        try:
            until = min(self._due(now))
        except Exception:  # whatever is wrong, the loop turns
            until = now + 1.0
        events = poll.poll(math.ceil(min(max(0.0, until - now), MAX_WAIT_SECONDS) * 1000))
        return [channels[fd] for fd, _ in events if fd in channels]

    def _due(self, now: float) -> Iterator[float]:
        """Times (s, monotonic) at which something is to be done."""
        resources = self._resources
        yield now + MAX_WAIT_SECONDS
        yield from self._children.due(now)
        if resources.stopping:
            yield self._shutdown.deadline
        else:
            yield self._list_refresh.due
            yield self._sockets.due
            if not self._is_busy:  # else the tables are not checked
                yield self._table_watch.due
        if resources.target.needs_tick:
            yield self._log_at
        if resources.watchdog.interval:
            yield resources.watchdog.due

    # ---- signals

    def _take_signals(self) -> None:
        assert self._resources.signals is not None
        for number in self._resources.signals.read():
            self._guard.call(signals.name_of(number), self._handle_signal, number)

    def _handle_signal(self, number: int) -> None:
        resources = self._resources
        match number:
            case signal.SIGCHLD:
                pass  # each turn reaps
            case signal.SIGTERM | signal.SIGINT:
                self._shutdown.request()
            case signal.SIGQUIT:
                self._shutdown.request(at_once=True)
            case signal.SIGHUP if not resources.stopping:
                systemd_notify.reloading()
                self._tasks.add("reload", self._reload)
            case signal.SIGUSR2 if not resources.stopping:
                self._tasks.add("restart", self._restart)
            case signal.SIGUSR1 if not resources.stopping:
                reload.reopen_log(resources, tell=True)
            case _:
                why = ": fastscreen is stopping" if resources.stopping else ""
                resources.warn(f"{signals.name_of(number)} is ignored{why}")

    # ---- tasks

    def _run_tasks(self) -> None:
        resources = self._resources
        self._tasks.resume(begin_next=not (resources.starting or resources.stopping))

    @property
    def _is_busy(self) -> bool:
        """Whether there are tasks: table files are checked afterward."""
        return self._resources.starting or not self._tasks.is_idle

    def _reload(self) -> Steps[None]:
        resources, before = self._resources, self._resources.config
        try:
            yield from reload.reload(resources, self._path)
            now = time.monotonic()
            self._list_refresh.reconfigure(before, now)
            self._sockets.begin(now)
        finally:
            if not self._tasks.waits("reload"):
                systemd_notify.send("READY=1")

    def _restart(self) -> Steps[None]:
        return restart.restart(self._resources, lambda: not self._is_restarted)

    def _follow_tables(self, now: float) -> None:
        """Have the tables read again when their files have changed."""
        resources, watch = self._resources, self._table_watch
        if resources.stopping or self._is_busy:
            return
        if changed := table_reload.changed_tables(resources, watch, now):
            self._tasks.add("tables", lambda: table_reload.follow_tables(resources, watch, changed))

    # ---- small things

    def _retire_former(self, now: float) -> None:
        """After a restart: let former processes stop, and say when all workers serve."""
        resources = self._resources
        if resources.former:
            restart.retire(resources, now)
        if self._is_restarted and all(child.serving_since < math.inf for child in resources.children):
            self._is_restarted = False
            if not resources.stopping:
                self._announce("daemon restarted")

    def _tick_log(self, now: float) -> None:
        """Open what could not be opened, write what could not be written."""
        if now >= self._log_at and self._resources.target.needs_tick:
            self._log_at = now + TICK
            self._resources.target.tick()


def _name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
