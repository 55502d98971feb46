"""The process that `fastscreen run` is: it holds the listening sockets and keeps the workers alive.

It serves no client and has no threads and no cache, so that hardly anything can befall it; and whatever befalls one
worker leaves the others alone. One that dies is replaced; until then its clients wait in the socket, which lives on
here. The TLS processes and the hub, which serves the control socket, are kept alive like a worker. Now and then one
more is started, which refreshes the lists of [allowlist] and ends.

Its loop waits for signals, reports of children and deadlines, all of them together, and never for one of them alone.
What takes several steps, such as a reload, is a generator (`forks.Steps`) that the loop resumes. An unexpected
exception in one part of a turn is logged and leaves the other parts, and the loop, as they are.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from fastscreen import __version__
from fastscreen.allowlist import lists
from fastscreen.allowlist.process import End
from fastscreen.allowlist.turns import Turns
from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.file_check import Inode
from fastscreen.config import Config, ConfigError
from fastscreen.daemon import reload, restart, spawn, systemd_notify, systemd_sockets, tls_reload
from fastscreen.daemon.resources import Resources, close_all
from fastscreen.daemon.spawn import Steps
from fastscreen.daemon.supervisor_errors import Faults
from fastscreen.escaping import one_line, unexpected
from fastscreen.process import descriptor_limits, ipc, privileges, signals
from fastscreen.process.child import END_SECONDS, SHORT_LIFE_SECONDS, TICK, Child, Heartbeat, State
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.ipc import Failed, MalformedError, Ready, Stop
from fastscreen.process.signals import SignalReader
from fastscreen.screening import policy
from fastscreen.tables.file_watch import TableWatch

STOP_SECONDS = 40.0  # a worker gives its clients 30
STOP_NOW_SECONDS = 2.0
OTHERS_END_SECONDS = 7.0  # a TLS process gives its clients 5
KILLED_SECONDS = 5.0  # for them to end once they are killed
LOOK_SECONDS = 10.0  # between two looks whether the workers' loops turn
MAX_LOOKS = 6  # in a row that find one standing still; so many, for the whole machine may have stood still meanwhile
CACHE_DEATHS_SECONDS = 600.0  # two in this time by the same file, and it is not trusted any more
MOVE_SECONDS = 30.0  # for moving it aside: other processes may be at work in its folder
SOCKET_SECONDS = 1.0  # between two attempts to take over the control socket, or the address of the metrics
SOCKET_LATER_SECONDS = 10.0  # the same after SOCKET_ATTEMPTS
SOCKET_ATTEMPTS = 60
RETRY_SECONDS = 1.0  # between two attempts to finish a restart
WARN_SECONDS = 60.0  # between two warnings about the same attempt that keeps failing
MAX_REPORTS = 16  # of one child in one turn


class Supervisor:
    """One fastscreen from start to end. `path` is None for the built-in settings."""

    def __init__(
        self, path: Path | None, settings: Config, inherited: restart.State | None = None, problem: str = ""
    ) -> None:
        """inherited: what the program before a restart left. problem: why its configuration is used again."""
        self._path = path
        self._inherited = inherited
        self._problem = problem
        self._resources = Resources(settings)
        self._stopping = False
        self._stop_by = 0.0
        self._look_at = math.inf
        self._log_at = 0.0
        self._table_watch = TableWatch()
        self._cache_deaths: dict[Inode, list[float]] = {}
        self._turns = Turns()
        self._refresh_is_given_up = False
        self._refresh_problem = ""
        self._starting = True
        """The first start, at which a child that fails ends the daemon."""
        self._job: Steps[object] | None = None
        """What is done in steps just now, one at a time."""
        self._jobs: dict[str, Callable[[], Steps[object]]] = {}
        """What comes after it, by kind: the same twice is done once."""
        self._faults = Faults(self._log_fault)
        self._warned: dict[str, tuple[str, float]] = {}
        """The last warning about each attempt that keeps failing, and when it was logged."""
        self._sockets_at = math.inf
        self._socket_attempts = 0
        self._postponed: dict[int, None] = {}
        """Signals that came while a restart could not be finished, in their order."""
        self._unsettled: set[Kind] = set()
        """Conditions that end once the children concerned live."""

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong (told on stderr)."""
        resources = self._resources
        count = policy.worker_count(resources.config)
        privileges.raise_descriptor_limit(
            descriptor_limits.wanted_descriptors(resources.config, descriptor_limits.Share(0, count))
        )
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent's SIG_IGN would hide every death
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.BLOCKED)
        try:
            resources.signals = SignalReader()
            count, warnings = self._prepare() if self._inherited is None else self._take_over(self._inherited)
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            resources.close_control()
            for problem in error.problems if isinstance(error, ConfigError) else (one_line(error),):
                print(f"fastscreen: {problem}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        resources.share(count)
        if self._inherited is not None:
            restart.share(resources, self._inherited)
            self._starting = False
        elif (code := self._first_start()) is not None:
            resources.close_control()
            return code
        for warning in warnings:
            resources.target.log.warning(warning)
        if os.geteuid() == 0:
            resources.target.log.warning("running as root, and staying so: name a user without rights under user")
        if self._inherited is None:
            for address, group in resources.groups.items():
                if address not in resources.activated:
                    systemd_sockets.store(address, group)
            self._announce("daemon started")
        self._turns.configure(resources.config, time.monotonic())
        self._look_at = time.monotonic() + LOOK_SECONDS
        if resources.lacks_sockets:
            self._sockets_at = time.monotonic() + SOCKET_SECONDS
        for number in self._postponed:
            self._faults.guard(signals.name_of(number), self._obey, number)
        while not self._is_over():
            self._turn()
        self._end_others()
        resources.close_control()
        resources.info("daemon stopped")
        resources.target.close()
        return 0

    def _prepare(self) -> tuple[int, tuple[str, ...]]:
        """Do what only root can do, and become the user. Return the number of workers, and warnings."""
        resources = self._resources
        if os.geteuid() == 0:
            resources.oom.protect()
        user = privileges.user_of(resources.config)
        count = policy.worker_count(resources.config)
        odd = resources.bind(user, count)
        if user:
            privileges.become(user)
        return count, (*odd, *resources.read(count))

    def _take_over(self, state: restart.State) -> tuple[int, tuple[str, ...]]:
        """The same after a restart. The former processes serve meanwhile: what is wrong now is tried again until it
        works, or until SIGTERM.
        """
        resources = self._resources
        warnings = restart.adopt(resources, state, strict=False)
        if self._problem:
            warnings.append(f"configuration not taken over: {self._problem}")
            resources.faults.append((Kind.CONFIG, f"{warnings[-1]}; the configuration before stays in force"))
        while True:
            try:
                with reload.bounded(reload.READ_SECONDS, "a table"):
                    return state.workers, (*warnings, *resources.read(state.workers))
            except (OSError, ConfigError, ValueError) as error:
                text = f"restart: not finished: {one_line(error)}; the former processes go on, tried again"
                self._warn_rarely("restart", text)
            resources.watchdog.feed(time.monotonic())
            assert resources.signals is not None
            if select.select([resources.signals], [], [], RETRY_SECONDS)[0]:
                self._postponed |= dict.fromkeys(resources.signals.read())  # processes that have ended are buried later
                if {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} & set(self._postponed):
                    return state.workers, tuple(warnings)
            with contextlib.suppress(ConfigError):
                self._read_again(state)

    def _read_again(self, state: restart.State) -> None:
        """Take over what the configuration says now, without addresses and certificates. ConfigError."""
        resources = self._resources
        found, _ = restart.settings_of(state, self._path)
        found, _ = reload.with_what_is_fixed(resources, found)
        if found != resources.config:
            resources.config = msgspec.structs.replace(found, listen=resources.config.listen, tls=resources.config.tls)
            if found != resources.config:
                self._postponed[signal.SIGHUP] = None  # takes over the rest

    def _announce(self, what: str) -> None:
        """Tell the log and the service manager that clients are served."""
        resources = self._resources
        where = ", ".join(name_of(group[0]) for group in resources.groups.values())
        crew = f"{len(resources.children)} workers, " if len(resources.children) > 1 else ""
        resources.info(f"{what} -- fastscreen {__version__}, {crew}listening on {where}")
        systemd_notify.tell("READY=1", f"STATUS=listening on {where}")

    def _retire(self, now: float) -> None:
        """After a restart: let former processes stop, and say when all workers serve."""
        resources = self._resources
        if resources.former:
            restart.retire(resources, now)
        if self._inherited is not None and all(child.serving_since < math.inf for child in resources.children):
            self._inherited = None
            if not self._stopping:
                self._announce("daemon restarted")

    # ---- the first start

    def _first_start(self) -> int | None:
        """Start TLS, then the workers, the first alone: it looks the cache's file over. Exit code when one cannot."""
        found: list[int | None] = []
        self._job = self._start_all(found)
        self._faults.guard("the start", self._go_on)
        while not found:
            self._turn()
            if not found and (self._stopping or self._job is None):
                found.append(0 if self._stopping else 1)
        self._job = None
        self._starting = False
        (code,) = found
        if code is not None:
            _kill(self._resources.everyone)
        return code

    def _start_all(self, found: list[int | None]) -> Steps[None]:
        resources, children = self._resources, self._resources.children
        for some in (resources.tls if resources.wants_tls else [], children[:1], children[1:]):
            for child in some:
                try:
                    self._start(child, look_over_cache=child.number == 0)
                except OSError as error:
                    print(f"fastscreen: no process for {child.name}: {error.strerror}", file=sys.stderr)
                    found.append(1)
                    return
            while any(child.state is State.STARTING for child in some):
                yield
            for child in some:
                if child.state is State.SERVING:
                    continue
                answer = child.answer
                why, code = (
                    (answer.why, answer.code) if isinstance(answer, Failed) else (f"{child.name} does not start", 1)
                )
                print(f"fastscreen: {why}", file=sys.stderr)
                found.append(code)
                return
        found.append(None)

    def _start(self, child: Child, *, look_over_cache: bool) -> None:
        """OSError: no descriptors or processes."""
        if child is self._resources.control_process:
            spawn.start_control(self._resources)
        elif child in self._resources.tls:
            spawn.start_tls(self._resources, child)
        else:
            spawn.start_worker(self._resources, child, look_over_cache=look_over_cache)

    # ---- one turn of the loop

    def _is_over(self) -> bool:
        resources = self._resources
        return self._stopping and not any(
            child.pid for child in [*resources.children, *resources.former, *resources.trials]
        )

    def _turn(self) -> None:
        """Wait for the next event, and do all that is due. No exception leaves it."""
        guard = self._faults.guard
        heard = self._wait()
        now = time.monotonic()
        guard("the watchdog", self._resources.watchdog.feed, now)
        guard("signals", self._take_signals)
        for child in heard:
            guard(f"a report of {child.name}", self._hear, child)
        guard("the end of a process", self._bury)
        guard("deadlines", self._overdue, now)
        guard("looking after workers", self._look_after, now)
        guard("former processes", self._retire, now)
        guard("the end", self._end_late, now)
        guard("a refresh of the lists", self._refresh, now)
        guard("the tables", self._follow_tables, now)
        guard("the log", self._tend_log, now)
        for child in self._missing():
            if now >= child.start_at:
                guard(f"the start of {child.name}", self._replace, child)
        guard("the control socket", self._retry_sockets, now)
        guard("conditions", self._settle, now)
        if not self._faults.guard("a task", self._go_on):
            self._job = None
        self._faults.end_turn(time.monotonic())

    def _wait(self) -> list[Child]:
        """Wait for an event or for what is due first. Return the children that have something to say."""
        resources = self._resources
        assert resources.signals is not None
        poll = select.poll()
        poll.register(resources.signals, select.POLLIN)
        channels: dict[int, Child] = {}
        now = time.monotonic()
        if pause := self._faults.pause(now):  # only signals cut it short
            poll.poll(math.ceil((pause - now) * 1000))
        for child in self._children():
            if child.channel is not None and child.state is not State.EMPTY and not child.deaf:
                channels[child.channel.fileno()] = child
                poll.register(child.channel, select.POLLIN)
        try:
            until = min(self._due(now))
        except Exception:  # whatever is wrong, the loop turns
            until = now + 1.0
        events = poll.poll(math.ceil(min(max(0.0, until - now), 60.0) * 1000))
        return [channels[fd] for fd, _ in events if fd in channels]

    def _children(self) -> Iterator[Child]:
        resources = self._resources
        yield from resources.everyone
        yield from resources.trials
        yield from resources.former

    def _due(self, now: float) -> Iterator[float]:
        """Times (s, monotonic) at which something is to be done."""
        yield now + 60.0
        for child in self._missing():
            yield child.start_at
        for child in self._children():
            if child.pid:
                yield child.by
        if self._stopping:
            yield self._stop_by
        else:
            yield self._look_at
            yield self._turns.end_by if self._resources.refresher.pid else self._turns.due
            yield self._sockets_at
            if not self._is_busy:  # else nobody looks
                yield self._table_watch.due
        if self._resources.target.needs_tick:
            yield self._log_at
        if self._resources.watchdog.interval:
            yield self._resources.watchdog.due
        if self._unsettled:
            yield now + 1.0

    def _log_fault(self, text: str) -> None:
        self._resources.warn(text)

    # ---- signals

    def _take_signals(self) -> None:
        assert self._resources.signals is not None
        for number in self._resources.signals.read():
            self._faults.guard(f"{signals.name_of(number)}", self._obey, number)

    def _obey(self, number: int) -> None:
        resources = self._resources
        match number:
            case signal.SIGCHLD:
                pass  # each turn buries
            case signal.SIGTERM | signal.SIGINT:
                self._stop()
            case signal.SIGQUIT:
                self._stop()
                self._stop()
            case signal.SIGHUP if not self._stopping:
                systemd_notify.reloading()
                self._jobs["reload"] = self._reload
            case signal.SIGUSR2 if not self._stopping:
                self._jobs["restart"] = self._restart
            case signal.SIGUSR1 if not self._stopping:
                reload.reopen_log(resources, tell=True)
            case _:
                resources.warn(f"{signals.name_of(number)} is ignored" + (": stopping" if self._stopping else ""))

    # ---- tables and the log

    @property
    def _is_busy(self) -> bool:
        """Whether a task is in hand or to come: table files are looked at afterward."""
        return self._starting or self._job is not None or bool(self._jobs)

    def _follow_tables(self, now: float) -> None:
        """Have the tables read again when their files have changed."""
        if self._stopping or self._is_busy:
            return
        if changed := reload.changed_tables(self._resources, self._table_watch, now):
            self._jobs["tables"] = lambda: reload.follow_tables(self._resources, self._table_watch, changed)

    def _tend_log(self, now: float) -> None:
        """Open what could not be opened, write what could not be written."""
        if now >= self._log_at and self._resources.target.needs_tick:
            self._log_at = now + TICK
            self._resources.target.tick()

    # ---- work in steps

    def _go_on(self) -> None:
        """Resume the work in hand, or begin the next."""
        while self._job is not None or self._jobs:
            if self._job is None:
                if self._starting or self._stopping:
                    return
                self._job = self._jobs.pop(next(iter(self._jobs)))()
            try:
                next(self._job)
                return
            except StopIteration:
                self._job = None

    def _reload(self) -> Steps[None]:
        resources, before = self._resources, self._resources.config
        try:
            try:
                yield from reload.hang_up(resources, self._path)
            except Exception as error:  # whatever it is: whoever waits for this reload hears how it ended
                text = f"configuration not taken over: {unexpected(error)}"
                resources.warn(text)
                resources.reload_state.refused(resources.conditions, text)
            now = resources.config
            if (now.allowlist, now.denylist) != (before.allowlist, before.denylist):
                self._give_up_refresh()  # it goes by the old settings; its files are whole at any time
                self._turns.configure(now, time.monotonic())
                if not resources.refresher.pid:
                    self._show_refresh("")
            if resources.lacks_sockets:
                self._sockets_at, self._socket_attempts = time.monotonic(), 0
        except GeneratorExit:
            text = "configuration not taken over: fastscreen is being stopped"
            resources.warn(text)
            resources.reload_state.refused(resources.conditions, text)
            raise
        finally:
            if "reload" not in self._jobs:
                systemd_notify.tell("READY=1")

    def _restart(self) -> Steps[None]:
        """Become the program as it is on the disk now. What keeps it from starting leaves everything as it is."""
        resources = self._resources
        resources.reload_state.restart.begin()
        by = time.monotonic() + spawn.START_SECONDS
        while self._inherited is not None and time.monotonic() < by:  # the restart before is not over
            yield
        resources.info("restarting: the new program is tried first")
        try:
            why = yield from restart.run_in_child(resources)
            if not why:
                systemd_notify.reloading()
                restart.replace(resources)
        except GeneratorExit:
            resources.reload_state.restart.end(False, "restart refused: fastscreen is being stopped")
            raise
        except Exception as error:  # whatever it is: this program goes on
            why = f"{unexpected(error)}"
        text = f"restart refused: {why}"
        resources.warn(f"{text}; the running daemon goes on")
        resources.conditions.begin(Kind.CONFIG, f"{text}; the program before stays in use")
        resources.reload_state.restart.end(False, text)
        systemd_notify.tell("READY=1")

    # ---- children

    def _hear(self, child: Child) -> None:
        """Take the reports of a child that has some."""
        for _ in range(MAX_REPORTS):
            if child.channel is None or child.deaf:
                return
            try:
                report = ipc.receive_report(child.channel)
                if report is None:  # it ends; one that does not is of no use any more
                    child.deaf = True
                    child.end_by(time.monotonic() + END_SECONDS)
                    return
                was = child.state
                child.reported(report)
            except BlockingIOError:
                return
            except (MalformedError, ValueError) as error:
                child.deaf = True
                child.kill()
                if child not in self._resources.former:
                    self._resources.warn(f"{child.name} (process {child.pid}) sent {error}: killed")
                return
            if child not in self._resources.trials and child not in self._resources.former:
                self._reported(child, was, report)

    def _reported(self, child: Child, was: State, report: ipc.Report) -> None:
        resources = self._resources
        match report, was:
            case Ready(), State.STARTING:
                if not self._starting:
                    resources.info(f"{child.name} is process {child.pid} now")
            case Failed(why), State.STARTING:
                if not self._starting:
                    resources.warn(f"{child.name} cannot start: {why}")
                    self._fails(child, f"{child.name} cannot start: {why}")
            case Failed(why), _:
                resources.warn(f"{child.name}: configuration not taken over: {why}; it is started again")
                child.kill()

    def _overdue(self, now: float) -> None:
        """End what did not report, or did not end, in time."""
        resources = self._resources
        for child in list(self._children()):
            if not child.pid or now < child.by or child in resources.trials:  # a trial's end is in its task's hands
                continue
            child.by = math.inf
            if child in resources.former:
                resources.warn(f"{child.name} (process {child.pid}, before the restart) did not stop: killed")
            elif child.state is State.STARTING and not self._starting:
                resources.warn(f"{child.name} does not start: killed")
                self._fails(child, f"{child.name} does not start")
            elif child.state is State.RELOADING:
                resources.warn(f"{child.name}: configuration not taken over: no answer; it is started again")
            child.kill()

    def _fails(self, child: Child, text: str) -> None:
        """Show that a worker, or TLS, is not as it should be."""
        if child in self._resources.children:
            self._resources.conditions.begin(Kind.WORKER, f"{text}; it is started again and again")
            self._unsettled.add(Kind.WORKER)
        elif child in self._resources.tls:
            self._resources.conditions.begin(
                Kind.TLS, f"{text}; it is started again and again, STARTTLS may be refused"
            )
            self._unsettled.add(Kind.TLS)

    def _settle(self, now: float) -> None:
        """End conditions of children that live again."""
        resources = self._resources
        for kind, children in (
            (Kind.WORKER, resources.children),
            (Kind.TLS, resources.tls if resources.wants_tls else []),
        ):
            if kind in self._unsettled and all(now >= each.serving_since + SHORT_LIFE_SECONDS for each in children):
                resources.conditions.end(kind)
                self._unsettled.discard(kind)

    def _look_after(self, now: float) -> None:
        """Kill whose loop stands still: its clients wait for ever, and so would all that come after them."""
        if self._stopping or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        resources = self._resources
        for child in resources.watched:
            if child.pid and child.heartbeat.missed(resources.heartbeat(child)[0]) >= MAX_LOOKS:
                resources.warn(f"{child.name} (process {child.pid}) hangs: killed")
                child.kill()
                child.heartbeat = Heartbeat()

    def _refresh(self, now: float) -> None:
        """Begin a refresh of the lists, or end one that does not."""
        resources, turns = self._resources, self._turns
        if resources.refresher.pid and now >= turns.end_by:
            resources.warn("allowlist: the refresh does not end: killed")
            self._give_up_refresh()
            self._refresh_problem = "the last refresh did not end and was killed"
            turns.end_by = math.inf
        if not resources.refresher.pid and not self._stopping and now >= turns.due:
            turns.began(now)
            self._refresh_is_given_up, self._refresh_problem = False, ""
            try:
                spawn.start_refresh(resources)
            except OSError as error:
                turns.ended(1, now)
                text = f"no process for the refresh of the lists: {error.strerror}"
                resources.warn(f"{text}; it is tried again")
                self._show_refresh(text)

    def _show_refresh(self, problem: str) -> None:
        """Show a refresh that cannot show its own failure, until one ends well; "": there was none. End what was shown
        when no lists are refreshed any more. Only while none is under way, which writes to the same memory.
        """
        shown = Conditions(self._resources.condition_memory[-3])
        if not self._turns.wanted:
            shown.end(Kind.ALLOWLIST)
        elif problem:
            shown.begin(Kind.ALLOWLIST, f"{problem}; the lists stay as they are")

    def _give_up_refresh(self) -> None:
        self._refresh_is_given_up = True
        self._resources.refresher.kill()

    def _missing(self) -> list[Child]:
        """Who is to be started again."""
        if self._stopping or self._starting:
            return []
        resources = self._resources
        children = [
            *resources.children,
            *(resources.tls if resources.wants_tls else []),
            *([resources.control_process] if resources.wants_control else []),
        ]
        return [child for child in children if not child.pid]

    def _retry_sockets(self, now: float) -> None:
        """Take over the control socket and the metrics' address when they are free."""
        if self._stopping or now < self._sockets_at:
            return
        resources = self._resources
        self._socket_attempts += 1
        self._sockets_at = now + (SOCKET_SECONDS if self._socket_attempts < SOCKET_ATTEMPTS else SOCKET_LATER_SECONDS)
        if resources.retry_sockets():
            resources.control_process.kill()  # its successor serves what is new
        if not resources.lacks_sockets:
            self._sockets_at = math.inf

    def _bury(self) -> None:
        """Take note of the processes that ended; as a container's first process, of strangers too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            reader = self._resources.key_reader
            if reader is not None and reader.pid == pid:
                tls_reload.reader_ended(self._resources, how_ended(os.waitstatus_to_exitcode(status)))
            for child in list(self._children()):
                if child.pid == pid:
                    self._faults.guard(f"the last report of {child.name}", self._hear, child)
                    self._faults.guard(f"the end of {child.name}", self._bury_one, child, _exit_code(status))

    def _bury_one(self, child: Child, code: int) -> None:
        resources, pid, since = self._resources, child.pid, child.serving_since
        child.ended()
        if child in resources.trials:
            resources.trials.remove(child)
            return
        if child in resources.former:
            resources.former.remove(child)
            child.leave()
            return
        if child in resources.tls:
            resources.tls_ready[child.number] = 0
        if self._stopping or self._starting:
            return
        if child is resources.refresher:
            self._refreshed(pid, code)
            return
        resources.warn(f"{child.name} (process {pid}) {how_ended(code)}: it is started again")
        if since < math.inf:
            if child.short_lives > 1:
                often = f"{child.short_lives} times within {SHORT_LIFE_SECONDS:g} s of its start"
                self._fails(child, f"{child.name} {how_ended(code)}, {often}")
        elif not isinstance(child.answer, Failed):  # else the reason is known
            self._fails(child, f"{child.name} {how_ended(code)} before it served")
        if child in resources.children and -code in lmdb_file.CRASHES:
            self._died_in_cache(use_mark.file_in_use(resources.mark(child)))

    def _refreshed(self, pid: int, code: int) -> None:
        resources = self._resources
        self._turns.ended(code, time.monotonic())
        problem = self._refresh_problem
        if code not in (End.DONE, End.AGAIN) and not self._refresh_is_given_up:
            resources.warn(f"allowlist (process {pid}) {how_ended(code)}: the lists stay as they are")
            problem = f"the last refresh {how_ended(code)}"
        self._show_refresh(problem)
        # Not by the code: it may have written one before it died, and so may a refresh by hand.
        if lists.versions(resources.config) != resources.list_versions:
            self._jobs["tables"] = lambda: reload.read_tables_again(resources)

    def _died_in_cache(self, file: Inode | None) -> None:
        """A worker crashed while it used this file; the second time the file is not trusted any more."""
        resources, now = self._resources, time.monotonic()
        if file is None or not resources.config.cache.path:
            return
        deaths = {
            each: [at for at in times if at > now - CACHE_DEATHS_SECONDS] for each, times in self._cache_deaths.items()
        }
        deaths.setdefault(file, []).append(now)
        self._cache_deaths = {each: times for each, times in deaths.items() if times}
        if len(self._cache_deaths[file]) >= 2:
            del self._cache_deaths[file]
            self._jobs["cache"] = functools.partial(self._move_cache_aside, Path(resources.config.cache.path), file)

    def _move_cache_aside(self, path: Path, file: Inode) -> Steps[None]:
        """In a child: it may have to wait for other processes."""
        resources = self._resources
        report = yield from spawn.run_in_child(
            resources, functools.partial(_move_aside, resources, path, file), MOVE_SECONDS
        )
        match report:
            case Failed(why):
                resources.warn(f"cache lmdb:{path}: {why}")
            case Ready():
                pass
            case _:
                resources.warn(f"cache lmdb:{path}: cannot be moved aside: no answer in {MOVE_SECONDS:g} s")

    def _replace(self, child: Child) -> None:
        try:
            self._start(child, look_over_cache=True)
        except OSError as error:
            child.not_started()
            text = f"no process for {child.name}: {error.strerror}"
            self._warn_rarely(child.name, f"{text}; retried automatically")
            self._fails(child, text)

    def _warn_rarely(self, subject: str, text: str) -> None:
        """Log what is tried again and again: when the text changes, else once a minute."""
        now = time.monotonic()
        before, at = self._warned.get(subject, ("", 0.0))
        if text != before or now >= at + WARN_SECONDS:
            self._warned[subject] = text, now
            self._resources.warn(text)

    # ---- the end

    def _stop(self) -> None:
        """First SIGTERM: no new clients, those in hand finish. Second: stop at once."""
        resources = self._resources
        if self._stopping:
            self._stop_by = min(self._stop_by, time.monotonic() + STOP_NOW_SECONDS)
        else:
            self._stopping = True
            self._jobs.clear()
            if self._job is not None and not self._starting:  # it would open ports again
                self._job.close()
                self._job = None
            systemd_notify.tell("STOPPING=1", "STATUS=clients in hand may finish")
            self._stop_by = time.monotonic() + STOP_SECONDS
            if not self._starting:
                resources.info("stopping: clients in hand may finish")
        resources.refresher.kill()
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for group in resources.groups.values():
            close_all(group)
        resources.groups.clear()
        resources.order(Stop())
        for child in resources.former:
            if not isinstance(child, restart.Former) or child.kind != "worker" or child.channel is None:
                continue
            with contextlib.suppress(OSError):
                ipc.send(child.channel, Stop())
                child.told = True

    def _end_late(self, now: float) -> None:
        """Kill workers that do not end."""
        resources = self._resources
        if not self._stopping or now < self._stop_by:
            return
        self._stop_by = now + STOP_SECONDS
        late = [child for child in [*resources.children, *resources.former] if child.pid]
        if late:
            resources.warn(f"{', '.join(child.name for child in late)} did not stop: killed")
        _kill(late)

    def _end_others(self) -> None:
        """They end when their channels do: the TLS processes pass on the workers' last words, the hub shows the end."""
        resources = self._resources
        others = [*resources.tls, resources.refresher, resources.control_process, *resources.trials]
        for child in others:
            child.leave()
        end = time.monotonic() + OTHERS_END_SECONDS
        assert resources.signals is not None
        while left := [child for child in others if child.pid]:
            now = time.monotonic()
            if now >= end + KILLED_SECONDS:  # the kernel does not end it, as while its disk does not answer
                resources.warn(f"{', '.join(child.name for child in left)} did not end")
                return
            if now >= end:
                _kill(left)
            select.select([resources.signals], [], [], end - now if now < end else 1.0)
            if {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} & set(resources.signals.read()):
                end = min(end, time.monotonic())
            self._bury()


def _move_aside(resources: Resources, path: Path, file: Inode, answer: socket.socket) -> int:
    """In a child: move a cache's file aside, and log that."""
    log = resources.target.for_child().log
    try:
        aside = lmdb_file.move_aside(path, file)
    except OSError as error:
        ipc.send(answer, Failed(f"cannot be moved aside: {one_line(error)}"[:1000]))
        return 1
    if aside is not None:
        log.warning(f"cache lmdb:{path}: two workers died while they used it: moved to {aside}, a new one is started")
        log.flush()
    ipc.send(answer, Ready())
    return 0


def _kill(children: Iterable[Child]) -> None:
    for child in children:
        child.kill()


def _exit_code(status: int) -> int:
    try:
        return os.waitstatus_to_exitcode(status)
    except ValueError:  # stopped or continued, which was not asked for
        return status


def how_ended(code: int) -> str:
    """From an exit code, negative for a signal."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {signals.name_of(-code)}"


def name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
