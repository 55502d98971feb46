"""The process that `fastscreen run` is: it holds the listening sockets and keeps the workers alive.

It serves no client and has no loop, no threads and no cache, so that hardly anything can befall it. A worker that dies
is replaced; until then its clients wait in the socket, which lives on here.
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
from collections.abc import Callable
from pathlib import Path

from fastscreen import __version__, cachefile, channel, config, controlsocket, policy, privileges, warningbook
from fastscreen.channel import Failed, Ready, ReopenLog, Report, Stop
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint, Pass
from fastscreen.hub import questions
from fastscreen.hub.process import Daemon, Hub
from fastscreen.listeners import listen
from fastscreen.logs import LogTarget
from fastscreen.place import Place, how_ended
from fastscreen.warningbook import WarningBook
from fastscreen.worker import Seat, Worker, attribute, one_line

START_SECONDS = 20.0  # opening the cache may wait for another process
RELOAD_SECONDS = 30.0
STOP_SECONDS = 40.0  # a worker gives its clients 30
RING_SIZE = 4096 + 65536 * 128  # octets a worker: 65,536 events
HUB_END_SECONDS = 2.0
CACHE_DEATHS_SECONDS = 600.0  # two in this time, and the file is not trusted any more

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# What reading a damaged map ends with. SIGKILL is somebody's will.
_CRASHES = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)


class Supervisor:
    """One fastscreen from start to end. `path` is None for the built-in settings."""

    def __init__(self, path: Path | None, settings: Config) -> None:
        self._path = path
        self._config = settings
        self._groups: dict[Endpoint, list[socket.socket]] = {}
        self._stopping = False
        self._stop_by = 0.0
        self._cache_deaths: list[float] = []
        self._control: controlsocket.ControlSocket | None = None
        self._started = time.time()

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong (told on stderr)."""
        privileges.raise_descriptor_limit()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            user = privileges.user_of(self._config)
            count = self._config.listen.workers or len(os.sched_getaffinity(0))
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
            warnings = (*odd, *self._check(self._config, count))
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            self._close_control()
            print(f"fastscreen: {one_line(error)}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        self._places = [Place(f"worker {number + 1}", number) for number in range(count)]
        self._hub = Place("hub")
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
        self._say(self._target.log.info, f"daemon started -- fastscreen {__version__}, {crew}listening on {where}")
        self._supervise()
        self._end_hub()
        self._close_control()
        self._say(self._target.log.info, "daemon stopped")
        self._target.close()
        return 0

    def _check(self, settings: Config, count: int) -> tuple[str, ...]:
        """Open every table once for all workers: the operator is told once what is odd. ConfigError: a mistake."""
        mta = settings.handoff.to.path if isinstance(settings.handoff.to, Pass) else "sink"
        return policy.build(settings, mta, lambda text: None, policy.Share(0, count)).warnings

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
            for place in some:
                self._start(place, look_over_cache=place.number == 0)
            for place in some:
                match self._hear(place, START_SECONDS):
                    case Ready():
                        continue
                    case Failed(why, code):
                        print(f"fastscreen: {why}", file=sys.stderr)
                    case None:
                        code = 1
                        print(f"fastscreen: worker {place.number + 1} does not start", file=sys.stderr)
                self._kill_all()
                return code
        return None

    def _start(self, place: Place, *, look_over_cache: bool) -> None:
        """Fork. The child never returns from here."""
        mark = self._marks[2 * place.number : 2 * place.number + 2]
        mark[:] = bytes(2)

        def work(theirs: socket.socket) -> int:
            listeners = {}
            for address, group in self._groups.items():
                listeners[address] = group.pop(place.number)
                for listener in group:
                    listener.close()
            desk = None
            for at, (hubs, workers) in enumerate(self._questions):
                hubs.close()
                if at == place.number:
                    desk = workers
                else:
                    workers.close()
            target = self._target.for_child()
            target.log.on_warning = WarningBook(self._books[place.number]).write
            events = self._rings[place.number]
            seat = Seat(place.number, len(self._places), theirs, mark, events, desk, look_over_cache)
            return Worker(self._config, listeners, target, seat).run()

        self._fork(place, work)

    def _start_hub(self) -> None:
        """Fork the hub. Nothing waits for it: the front door is open whether it comes up or not."""
        assert self._control is not None
        control = self._control.listener

        def serve(theirs: socket.socket) -> int:
            for group in self._groups.values():
                _close(group)
            for _, workers in self._questions:
                workers.close()
            target = self._target.for_child()
            target.log.on_warning = WarningBook(self._books[-1]).write
            ends = [hubs for hubs, _ in self._questions]
            daemon = Daemon(os.getppid(), self._started, theirs, control, ends, self._rings, self._books)
            return Hub(self._config, target, daemon).run()

        self._fork(self._hub, serve)

    def _fork(self, place: Place, work: Callable[[socket.socket], int]) -> None:
        """Let a new process do `work` with its end of a channel. It never returns from here."""
        place.leave()
        ours, theirs = channel.pair()
        self._target.log.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            place.take(pid, ours)
            return
        code = 70
        try:
            # Not SIG_IGN, which the worker's own children would inherit; a terminal's Ctrl-C goes to all of them.
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            ours.close()
            for other in (*self._places, self._hub):
                other.leave()
            if place is not self._hub and self._control is not None:
                self._control.listener.close()
            code = work(theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _hear(self, place: Place, seconds: float) -> Report | None:
        assert place.channel is not None
        try:
            return channel.receive_report(place.channel, seconds)
        except TimeoutError:
            return None

    def _kill_all(self) -> None:
        for place in self._places:
            if place.pid:
                place.kill()
                os.waitpid(place.pid, 0)

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
                for place in self._places:
                    place.kill()
            for place in self._missing():
                if now >= place.start_at:
                    self._replace(place)

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
        """Take note of the workers that ended."""
        for place in (*self._places, self._hub):
            pid = place.pid
            code = place.ended()
            if code is None or self._stopping:
                continue
            self._say(self._target.log.warning, f"{place.name} (process {pid}) {how_ended(code)}: it is started again")
            if place is self._hub:
                continue
            if -code in _CRASHES and any(self._marks[2 * place.number : 2 * place.number + 2]):
                self._died_in_cache(time.monotonic())

    def _missing(self) -> list[Place]:
        """Who is to be started again."""
        if self._stopping:
            return []
        places = self._places if self._control is None else [*self._places, self._hub]
        return [place for place in places if not place.pid]

    def _died_in_cache(self, now: float) -> None:
        self._cache_deaths = [*(at for at in self._cache_deaths if at > now - CACHE_DEATHS_SECONDS), now]
        if len(self._cache_deaths) < 2:
            return
        self._cache_deaths.clear()
        path = Path(self._config.cache.path)
        try:
            aside = cachefile.move_aside(path)
        except OSError as error:
            self._say(self._target.log.warning, f"cache lmdb:{path}: cannot be moved aside: {one_line(error)}")
            return
        self._say(
            self._target.log.warning,
            f"cache lmdb:{path}: two workers died while they used it: moved to {aside}, a new one is started",
        )

    def _replace(self, place: Place) -> None:
        if place is self._hub:
            self._start_hub()
            return
        self._start(place, look_over_cache=True)
        match self._hear(place, START_SECONDS):
            case Ready():
                self._say(self._target.log.info, f"worker {place.number + 1} is process {place.pid} now")
            case Failed(why):
                self._say(self._target.log.warning, f"worker {place.number + 1} cannot start: {why}")

    def _order(self, place: Place, order: channel.Order) -> None:
        if place.pid and place.channel is not None:
            with contextlib.suppress(OSError):  # it has ended, and SIGCHLD tells
                channel.send(place.channel, order)

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
        while self._hub.pid and self._hub.ended() is None:
            if signal.sigtimedwait({signal.SIGCHLD}, max(0.0, end - time.monotonic())) is None:
                self._hub.kill()

    # ---- SIGTERM

    def _stop(self) -> None:
        """First SIGTERM: no new clients, those in hand finish. Second: stop at once."""
        if not self._stopping:
            self._stopping = True
            self._say(self._target.log.info, "stopping: clients in hand may finish")
        self._stop_by = time.monotonic() + STOP_SECONDS
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for group in self._groups.values():
            for listener in group:
                listener.close()
        self._groups.clear()
        for place in self._places:
            self._order(place, Stop())

    # ---- SIGHUP

    def _hang_up(self) -> None:
        """Open the log again, take over a new configuration or keep the old one whole. Clients notice nothing."""
        try:
            self._target.open()
        except OSError as error:
            self._say(self._target.log.warning, f"log not opened again: {one_line(error)}")
        for place in (*self._places, self._hub):
            self._order(place, ReopenLog())
        if self._path is None:
            return
        count = len(self._places)
        opened: dict[Endpoint, list[socket.socket]] = {}
        try:
            settings = config.load(self._path)
            warnings = self._check(settings, count)
            for address in settings.listen.addresses:
                if address not in self._groups:
                    opened[address] = listen(address, count)
        except Exception as error:  # whatever it is: the old one stays, and the log tells
            for group in opened.values():
                _close(group)
            self._say(self._target.log.warning, f"configuration not taken over: {one_line(error)}")
            return
        for setting in ("user", "log", "cache.path", "control", "listen.workers"):
            if attribute(settings, setting) != attribute(self._config, setting):
                self._target.log.warning(f"{setting} changed: it takes effect when fastscreen is started again")
        self._config = settings
        for address in set(self._groups) - set(settings.listen.addresses):
            _close(self._groups.pop(address))
        self._groups |= opened
        for warning in warnings:
            self._target.log.warning(warning)
        self._hand_out(settings, opened)
        if self._hub.pid and self._hub.channel is not None:
            with contextlib.suppress(OSError):
                channel.send_reload(self._hub.channel, settings, {})
        self._say(self._target.log.info, "configuration reloaded")

    def _hand_out(self, settings: Config, opened: dict[Endpoint, list[socket.socket]]) -> None:
        """Give every worker the new settings, and wait until all have them. One that dies gets them when it starts."""
        asked = []
        for place in self._places:
            if not place.pid or place.channel is None:
                continue
            try:
                _forget_reports(place.channel)
                own = {address: group[place.number].fileno() for address, group in opened.items()}
                channel.send_reload(place.channel, settings, own)
                asked.append(place)
            except OSError:
                continue
        for place in asked:
            match self._hear(place, RELOAD_SECONDS):
                case Failed(why):
                    self._say(
                        self._target.log.warning, f"worker {place.number + 1}: configuration not taken over: {why}"
                    )


def _forget_reports(worker: socket.socket) -> None:
    """An answer that came after its time is none to the next question."""
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while channel.receive_report(worker, 0.0) is not None:
            pass


def _close(group: list[socket.socket]) -> None:
    for listener in group:
        listener.close()


def name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
