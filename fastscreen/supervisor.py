"""The process that `fastscreen run` is: it holds the listening sockets and keeps the workers alive.

It serves no client and has no loop, no threads and no cache, so that hardly anything can befall it; and whatever
befalls one worker leaves the others alone. One that dies is replaced; until then its clients wait in the socket, which
lives on here. The hub, which serves the control socket, is kept alive like a worker, but nothing waits for it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import msgspec

from fastscreen import __version__, cachefile, channel, config, controlsocket, policy, privileges, warningbook
from fastscreen.channel import Failed, Ready, ReopenLog, Report, Stop
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint
from fastscreen.hub import questions
from fastscreen.hub.process import Daemon, Hub
from fastscreen.listeners import listen
from fastscreen.logs import LogTarget
from fastscreen.place import Place
from fastscreen.warningbook import WarningBook
from fastscreen.worker import Seat, Worker, one_line

START_SECONDS = 40.0  # opening the cache may wait for another process
RELOAD_SECONDS = 30.0  # for reading the tables, and then for all workers together
STOP_SECONDS = 40.0  # a worker gives its clients 30
RING_SIZE = 4096 + 65536 * 128  # octets a worker: 65,536 events
STOP_NOW_SECONDS = 2.0
HUB_END_SECONDS = 2.0
CACHE_DEATHS_SECONDS = 600.0  # two in this time, and the file is not trusted any more

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Silent:
    """What a worker says that says nothing."""


class Supervisor:
    """One fastscreen from start to end. `path` is None for the built-in settings."""

    def __init__(self, path: Path | None, settings: Config) -> None:
        self._path = path
        self._config = settings
        self._groups: dict[Endpoint, list[socket.socket]] = {}
        self._places: list[Place] = []
        self._hub = Place("hub")
        self._control: controlsocket.ControlSocket | None = None
        self._started = time.time()
        self._stopping = False
        self._stop_by = 0.0
        self._cache_deaths: list[float] = []

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong (told on stderr)."""
        privileges.raise_descriptor_limit()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent's SIG_IGN would hide every death
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            user = privileges.user_of(self._config)
            count = policy.worker_count(self._config)
            # As root: ports, log and cache folder. Everything else as the user, as it will be at a reload.
            self._target = LogTarget(self._config)
            self._groups = {address: listen(address, count) for address in self._config.listen.addresses}
            if user:
                self._target.give_to(user)
            if self._config.cache.path:
                privileges.give_folder(Path(self._config.cache.path).parent, user)
            controlsocket.check_group(self._config)
            odd = self._make_control(user)
            if user:
                privileges.become(user)
            self._tables = policy.Tables(self._config)
            warnings = (*odd, *self._warnings(self._tables, count))
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            self._close_control()
            print(f"fastscreen: {one_line(error)}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        self._places = [Place(f"worker {number + 1}", number) for number in range(count)]
        self._marks = memoryview(mmap.mmap(-1, 2 * count))
        self._rings = [memoryview(mmap.mmap(-1, RING_SIZE)) for _ in range(count)]
        self._questions = [questions.pair() for _ in range(count)] if self._control is not None else []
        # The workers' books, the supervisor's, the hub's.
        self._books = [memoryview(mmap.mmap(-1, warningbook.SIZE)) for _ in range(count + 2)]
        self._target.log.on_warning = WarningBook(self._books[count]).write
        if (code := self._start_all()) is not None:
            self._close_control()
            return code
        for warning in warnings:
            self._target.log.warning(warning)
        if os.geteuid() == 0:
            self._target.log.warning("running as root, and staying so: name a user without rights under user")
        where = ", ".join(name_of(group[0]) for group in self._groups.values())
        crew = f"{count} workers, " if count > 1 else ""
        self._info(f"daemon started -- fastscreen {__version__}, {crew}listening on {where}")
        self._supervise()
        self._end_hub()
        self._close_control()
        self._info("daemon stopped")
        self._target.close()
        return 0

    @staticmethod
    def _warnings(tables: policy.Tables, count: int) -> tuple[str, ...]:
        """What is odd in the tables: every worker finds the same, so it is told here. ValueError: no policy."""
        return tables.policy("", lambda text: None, policy.Share(0, count)).warnings

    def _info(self, text: str) -> None:
        self._say(self._target.log.info, text)

    def _warn(self, text: str) -> None:
        self._say(self._target.log.warning, text)

    def _say(self, say: Callable[[str], object], text: str) -> None:
        """There is no loop that would write later, or find a log daemon that was restarted."""
        say(text)
        self._target.log.flush()
        if self._target.log.disconnected:
            with contextlib.suppress(OSError):
                self._target.open()
            self._target.log.flush()

    # ---- starting

    def _start_all(self) -> int | None:
        """Start the workers, the first one alone: it looks the cache's file over. Exit code when one cannot start."""
        for some in (self._places[:1], self._places[1:]):
            try:
                for place in some:
                    self._start(place, look_over_cache=place.number == 0)
            except OSError as error:
                print(f"fastscreen: no process for {place.name}: {error.strerror}", file=sys.stderr)
                self._kill(self._places)
                return 1
            by = time.monotonic() + START_SECONDS
            for place in some:
                match self._hear(place, by):
                    case Ready():
                        continue
                    case Failed(why, code):
                        print(f"fastscreen: {why}", file=sys.stderr)
                    case _:
                        code = 0 if stop_pending() else 1
                        if code:
                            print(f"fastscreen: {place.name} does not start", file=sys.stderr)
                self._kill(self._places)
                return code
        return None

    def _start(self, place: Place, *, look_over_cache: bool) -> None:
        """Fork a worker. The child never returns from here. OSError: no descriptors or processes."""
        mark = self._marks[2 * place.number : 2 * place.number + 2]
        mark[:] = bytes(2)
        self._fork(place, lambda theirs: self._work(place.number, theirs, mark, look_over_cache))

    def _start_hub(self) -> None:
        """Fork the hub. Nothing waits for it: the front door is open whether it comes up or not. OSError: as above."""
        self._fork(self._hub, self._serve)

    def _fork(self, place: Place, work: Callable[[socket.socket], int]) -> None:
        """Let a new process do `work` with its end of a channel. OSError: no descriptors or processes."""
        place.leave()
        ours, theirs = channel.pair()
        self._target.log.flush()  # what is still to be written is not the child's
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid:
                place.take(pid, ours)
                return
            ours.close()
            self._be(lambda: work(theirs))

    def _be(self, whatever: Callable[[], int]) -> NoReturn:
        """In the child: do this, and end."""
        code = 70  # EX_SOFTWARE
        try:
            # Not SIG_IGN, which the child's own children would inherit; a terminal's Ctrl-C goes to all of them.
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for place in (*self._places, self._hub):
                place.leave()
            code = whatever()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _work(self, number: int, theirs: socket.socket, mark: memoryview, look_over_cache: bool) -> int:
        """What a worker does, with nothing in its hands that is another's."""
        if self._control is not None:
            self._control.listener.close()
        own = {}
        for address, group in self._groups.items():
            own[address] = group[number]
            _close(listener for listener in group if listener is not own[address])
        _close(hubs for hubs, _ in self._questions)
        _close(workers for at, (_, workers) in enumerate(self._questions) if at != number)
        target = self._target.for_child()
        target.log.on_warning = WarningBook(self._books[number]).write
        seat = Seat(
            number,
            len(self._places),
            theirs,
            mark,
            self._rings[number],
            self._questions[number][1] if self._questions else None,
            look_over_cache,
        )
        return Worker(self._config, self._tables, own, target, seat).run()

    def _serve(self, theirs: socket.socket) -> int:
        """What the hub does."""
        assert self._control is not None
        for group in self._groups.values():
            _close(group)
        _close(workers for _, workers in self._questions)
        target = self._target.for_child()
        target.log.on_warning = WarningBook(self._books[-1]).write
        ends = [hubs for hubs, _ in self._questions]
        listener = self._control.listener
        daemon = Daemon(os.getppid(), self._started, theirs, listener, ends, self._rings, self._books)
        return Hub(self._config, target, daemon).run()

    @staticmethod
    def _hear(place: Place, by: float) -> Report | Silent | None:
        """What a worker says next, until a time (s, monotonic). None: it has ended, or all is to stop."""
        assert place.channel is not None
        while not stop_pending():
            left = by - time.monotonic()
            if left <= 0:
                return Silent()
            try:
                return channel.receive_report(place.channel, min(left, 0.1))
            except TimeoutError:
                continue
        return None

    @staticmethod
    def _kill(places: Iterable[Place]) -> None:
        for place in places:
            place.kill()

    # ---- while they run

    def _supervise(self) -> None:
        while any(place.pid for place in self._places) or not self._stopping:
            match self._next_signal():
                case signal.SIGCHLD:
                    self._bury()
                case signal.SIGHUP if not self._stopping:
                    self._hang_up()
                case signal.SIGTERM | signal.SIGINT:
                    self._stop()
            now = time.monotonic()
            if self._stopping and now >= self._stop_by:
                self._stop_by = now + STOP_SECONDS
                late = [place for place in self._places if place.pid]
                self._warn(f"{', '.join(place.name for place in late)} did not stop: killed")
                self._kill(late)
            for place in self._missing():
                if now >= place.start_at:
                    self._replace(place)

    def _missing(self) -> list[Place]:
        """Who is to be started again."""
        if self._stopping:
            return []
        places = self._places if self._control is None else [*self._places, self._hub]
        return [place for place in places if not place.pid]

    def _next_signal(self) -> int | None:
        """Wait for a signal, or until something is due."""
        due = [place.start_at for place in self._missing()]
        if self._stopping:
            due.append(self._stop_by)
        if not due:
            return signal.sigwait(_SIGNALS)
        info = signal.sigtimedwait(_SIGNALS, max(0.0, min(due) - time.monotonic()))
        return info.si_signo if info is not None else None

    def _bury(self) -> None:
        """Take note of the processes that ended; as a container's first process, of strangers too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for place in (*self._places, self._hub):
                if place.pid == pid:
                    self._bury_one(place, os.waitstatus_to_exitcode(status))

    def _bury_one(self, place: Place, code: int) -> None:
        pid = place.pid
        place.ended()
        if self._stopping:
            return
        self._warn(f"{place.name} (process {pid}) {how_ended(code)}: it is started again")
        if (
            place is not self._hub
            and -code in cachefile.CRASHES
            and any(self._marks[2 * place.number : 2 * place.number + 2])
        ):
            self._died_in_cache()

    def _died_in_cache(self) -> None:
        now = time.monotonic()
        self._cache_deaths = [*(at for at in self._cache_deaths if at > now - CACHE_DEATHS_SECONDS), now]
        if len(self._cache_deaths) < 2 or not self._config.cache.path:
            return
        path = Path(self._config.cache.path)
        try:
            aside = cachefile.move_aside(path)
        except OSError as error:
            self._warn(f"cache lmdb:{path}: cannot be moved aside: {one_line(error)}")
            return
        self._cache_deaths.clear()
        self._warn(f"cache lmdb:{path}: two workers died while they used it: moved to {aside}, a new one is started")

    def _replace(self, place: Place) -> None:
        try:
            if place is self._hub:
                self._start_hub()
                return
            self._start(place, look_over_cache=True)
        except OSError as error:
            place.ended()
            self._warn(f"no process for {place.name}: {error.strerror}; it is tried again")
            return
        match self._hear(place, time.monotonic() + START_SECONDS):
            case Ready():
                self._info(f"{place.name} is process {place.pid} now")
            case Failed(why):
                self._warn(f"{place.name} cannot start: {why}")
            case Silent():
                self._warn(f"{place.name} does not start: killed")
                self._kill([place])

    # ---- the control socket

    def _make_control(self, user: str) -> list[str]:
        """Bind it, as root where it must be. What goes wrong is a warning: mail does not depend on it."""
        path = self._config.control.path
        if path:
            try:
                self._control = controlsocket.make(Path(path), user, self._config.control.group)
            except OSError as error:
                return [f"control.path: {path}: {error.strerror}: no control socket"]
        return []

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _end_hub(self) -> None:
        """It ends when its channel does; it shows the others' end until then."""
        self._hub.leave()
        end = time.monotonic() + HUB_END_SECONDS
        while self._hub.pid:
            if signal.sigtimedwait({signal.SIGCHLD}, max(0.0, end - time.monotonic())) is None:
                self._hub.kill()
            self._bury()

    # ---- SIGTERM

    def _stop(self) -> None:
        """First SIGTERM: no new clients, those in hand finish. Second: stop at once."""
        if self._stopping:
            self._stop_by = min(self._stop_by, time.monotonic() + STOP_NOW_SECONDS)
        else:
            self._stopping = True
            self._stop_by = time.monotonic() + STOP_SECONDS
            self._info("stopping: clients in hand may finish")
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for group in self._groups.values():
            _close(group)
        self._groups.clear()
        self._order(Stop())

    def _order(self, order: channel.Order) -> None:
        for place in (*self._places, self._hub) if isinstance(order, ReopenLog) else self._places:
            if place.pid and place.channel is not None:
                with contextlib.suppress(OSError):  # it has ended, and SIGCHLD tells
                    channel.send(place.channel, order)

    # ---- SIGHUP

    def _hang_up(self) -> None:
        """Open the log again, take over a new configuration or keep the old one whole. Clients notice nothing."""
        try:
            self._target.open()
        except OSError as error:
            self._warn(f"log not opened again: {one_line(error)}")
        self._order(ReopenLog())
        if self._path is None:
            return
        count = len(self._places)
        opened: dict[Endpoint, list[socket.socket]] = {}
        try:
            self._try(self._path, count)
            settings = self._with_what_is_fixed(config.load(self._path))
            tables = policy.Tables(settings)
            warnings = self._warnings(tables, count)
            for address in settings.listen.addresses:
                if address not in self._groups:
                    opened[address] = listen(address, count)
        except Exception as error:  # whatever it is: the old one stays, and the log tells
            for group in opened.values():
                _close(group)
            self._warn(f"configuration not taken over: {one_line(error)}")
            return
        self._config, self._tables = settings, tables
        for address in set(self._groups) - set(settings.listen.addresses):
            _close(self._groups.pop(address))
        self._groups |= opened
        for warning in warnings:
            self._target.log.warning(warning)
        self._hand_out(settings, opened)
        if self._hub.pid and self._hub.channel is not None:
            with contextlib.suppress(OSError):
                channel.send_reload(self._hub.channel, settings, {})
        self._info("configuration reloaded")

    def _try(self, path: Path, count: int) -> None:
        """Read a configuration and its tables in a child: a file may be one that is never read to its end."""
        trial = Place("trial")
        self._fork(trial, lambda theirs: self._read(path, count, theirs))
        try:
            report = self._hear(trial, time.monotonic() + RELOAD_SECONDS)
        finally:
            trial.leave()
            trial.kill()
            os.waitpid(trial.pid, 0)
        match report:
            case Failed(why):
                raise ConfigError(why)
            case Silent():
                raise ConfigError(f"{path}: it, or a table that it names, cannot be read in {RELOAD_SECONDS:g} s")
            case None:
                raise ConfigError(f"{path}: reading it was cut short")

    def _read(self, path: Path, count: int, answer: socket.socket) -> int:
        try:
            self._warnings(policy.Tables(config.load(path)), count)
        except Exception as error:
            channel.send(answer, Failed(one_line(error)[:1000]))
            return 1
        channel.send(answer, Ready())
        return 0

    def _with_what_is_fixed(self, settings: Config) -> Config:
        """The new settings, but for those that only a new start can change."""
        now = self._config
        fixed = msgspec.structs.replace(
            settings,
            user=now.user,
            log=now.log,
            cache=msgspec.structs.replace(settings.cache, path=now.cache.path),
            control=now.control,
            listen=msgspec.structs.replace(settings.listen, workers=now.listen.workers),
        )
        for name, wanted, kept in (
            ("user", settings.user, fixed.user),
            ("log", settings.log, fixed.log),
            ("cache.path", settings.cache, fixed.cache),
            ("control", settings.control, fixed.control),
            ("listen.workers", settings.listen, fixed.listen),
        ):
            if wanted != kept:
                self._warn(f"{name} changed: it takes effect when fastscreen is started again")
        return fixed

    def _hand_out(self, settings: Config, opened: dict[Endpoint, list[socket.socket]]) -> None:
        """Give every worker the new settings, and wait until all have them. One that cannot take them is replaced."""
        by = time.monotonic() + RELOAD_SECONDS
        asked = []
        for place in self._places:
            if not place.pid or place.channel is None:
                continue
            own = {address: group[place.number].fileno() for address, group in opened.items()}
            try:
                _forget_reports(place.channel)
                channel.send_reload(place.channel, settings, own)
            except OSError as error:
                self._warn(f"{place.name}: configuration not taken over: {one_line(error)}; it is started anew")
                self._kill([place])
            else:
                asked.append(place)
        for place in asked:
            match self._hear(place, by):
                case Failed(why):
                    self._warn(f"{place.name}: configuration not taken over: {why}; it is started anew")
                    self._kill([place])
                case Silent():
                    self._warn(f"{place.name}: configuration not taken over: no answer; it is started anew")
                    self._kill([place])


def _forget_reports(worker: socket.socket) -> None:
    """An answer that came after its time is none to the next question."""
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while channel.receive_report(worker, 0.0) is not None:
            pass


def _close(group: Iterable[socket.socket]) -> None:
    for listener in group:
        listener.close()


def stop_pending() -> bool:
    return bool(signal.sigpending() & {signal.SIGTERM, signal.SIGINT})


def how_ended(code: int) -> str:
    """From an exit code, negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


def name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
