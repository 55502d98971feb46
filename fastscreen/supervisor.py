"""The process that `fastscreen run` is: it holds the listening sockets and keeps the workers alive.

It serves no client and has no loop, no threads and no cache, so that hardly anything can befall it; and whatever
befalls one worker leaves the others alone. One that dies is replaced; until then its clients wait in the socket, which
lives on here. The TLS processes and the hub, which serves the control socket, are kept alive like a worker. Now and
then one more is started, which refreshes the lists of [allowlist] and ends.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from fastscreen import __version__, cachefile, cachemark, forks, notify, policy, privileges, reload
from fastscreen.allowlist import lists
from fastscreen.allowlist.process import End
from fastscreen.allowlist.turns import Turns
from fastscreen.cachecheck import Inode
from fastscreen.channel import Failed, Ready, Stop
from fastscreen.config import Config, ConfigError
from fastscreen.forks import Silent, hear, stop_pending
from fastscreen.holdings import Holdings, close_all
from fastscreen.place import Place, Pulse
from fastscreen.worker import one_line

START_SECONDS = 40.0  # opening the cache may wait for another process
STOP_SECONDS = 40.0  # a worker gives its clients 30
STOP_NOW_SECONDS = 2.0
OTHERS_END_SECONDS = 7.0  # a TLS process gives its clients 5
LOOK_SECONDS = 10.0  # between two looks whether the workers' loops turn
LOOKS_MOST = 6  # in a row that find one standing still; so many, for the whole machine may have stood still meanwhile
CACHE_DEATHS_SECONDS = 600.0  # two in this time, and the file is not trusted any more


class Supervisor:
    """One fastscreen from start to end. `path` is None for the built-in settings."""

    def __init__(self, path: Path | None, settings: Config) -> None:
        self._path = path
        self._held = Holdings(settings)
        self._stopping = False
        self._stop_by = 0.0
        self._look_at = math.inf
        self._cache_deaths: list[tuple[float, Inode]] = []
        self._turns = Turns()
        self._refresh_is_given_up = False

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong (told on stderr)."""
        held = self._held
        privileges.raise_descriptor_limit()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent's SIG_IGN would hide every death
        signal.pthread_sigmask(signal.SIG_BLOCK, forks.SIGNALS)
        try:
            user = privileges.user_of(held.config)
            count = policy.worker_count(held.config)
            odd = held.bind(user, count)
            if user:
                privileges.become(user)
            warnings = (*odd, *held.read(count))
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            held.close_control()
            print(f"fastscreen: {one_line(error)}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        held.share(count)
        if (code := self._start_all()) is not None:
            held.close_control()
            return code
        for warning in warnings:
            held.target.log.warning(warning)
        if os.geteuid() == 0:
            held.target.log.warning("running as root, and staying so: name a user without rights under user")
        where = ", ".join(name_of(group[0]) for group in held.groups.values())
        crew = f"{count} workers, " if count > 1 else ""
        held.info(f"daemon started -- fastscreen {__version__}, {crew}listening on {where}")
        notify.tell("READY=1", f"STATUS=listening on {where}")
        self._turns.configure(held.config, time.monotonic())
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._supervise()
        self._end_others()
        held.close_control()
        held.info("daemon stopped")
        held.target.close()
        return 0

    def _start_all(self) -> int | None:
        """Start TLS, then the workers, the first alone: it looks the cache's file over. Exit code when one cannot."""
        held, places = self._held, self._held.places
        for some in (held.tls if held.wants_tls else [], places[:1], places[1:]):
            try:
                for place in some:
                    self._start(place, look_over_cache=place.number == 0)
            except OSError as error:
                print(f"fastscreen: no process for {place.name}: {error.strerror}", file=sys.stderr)
                _kill(held.everyone)
                return 1
            by = time.monotonic() + START_SECONDS
            for place in some:
                match hear(held, place, by):
                    case Ready():
                        continue
                    case Failed(why, code):
                        print(f"fastscreen: {why}", file=sys.stderr)
                    case _:
                        code = 0 if stop_pending() else 1
                        if code:
                            print(f"fastscreen: {place.name} does not start", file=sys.stderr)
                _kill(held.everyone)
                return code
        return None

    def _start(self, place: Place, *, look_over_cache: bool) -> None:
        """OSError: no descriptors or processes."""
        if place is self._held.hub:
            forks.start_hub(self._held)
        elif place in self._held.tls:
            forks.start_tls(self._held, place)
        else:
            forks.start_worker(self._held, place, look_over_cache=look_over_cache)

    # ---- while they run

    def _supervise(self) -> None:
        held = self._held
        while any(place.pid for place in held.places) or not self._stopping:
            match self._next_signal():
                case signal.SIGCHLD:
                    self._bury()
                case signal.SIGHUP if not self._stopping:
                    notify.reloading()
                    self._reload()
                    notify.tell("READY=1")
                case signal.SIGTERM | signal.SIGINT:
                    self._stop()
            now = time.monotonic()
            held.watchdog.feed(now)
            self._look_after(now)
            if self._stopping and now >= self._stop_by:
                self._stop_by = now + STOP_SECONDS
                late = [place for place in held.places if place.pid]
                held.warn(f"{', '.join(place.name for place in late)} did not stop: killed")
                _kill(late)
            self._refresh(now)
            for place in self._missing():
                if now >= place.start_at:
                    self._replace(place)

    def _look_after(self, now: float) -> None:
        """Kill whose loop stands still: its clients wait for ever, and so would all that come after them."""
        if self._stopping or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        held = self._held
        for place in held.watched:
            if place.pid and place.pulse.missed(held.pulse(place)[0]) >= LOOKS_MOST:
                held.warn(f"{place.name} (process {place.pid}) hangs: killed")
                place.kill()
                place.pulse = Pulse()

    def _reload(self) -> None:
        held, before = self._held, self._held.config
        reload.hang_up(held, self._path)
        now = held.config
        if (now.allowlist, now.denylist) != (before.allowlist, before.denylist):
            self._give_up_refresh()  # it goes by the old settings; its files are whole at any time
            self._turns.configure(now, time.monotonic())

    def _refresh(self, now: float) -> None:
        """Begin a refresh of the lists, or end one that does not."""
        held, turns = self._held, self._turns
        if held.refresher.pid and now >= turns.end_by:
            held.warn("allowlist: the refresh does not end: killed")
            self._give_up_refresh()
            turns.end_by = math.inf
        if not held.refresher.pid and not self._stopping and now >= turns.due:
            turns.began(now)
            self._refresh_is_given_up = False
            try:
                forks.start_refresh(held)
            except OSError as error:
                turns.ended(1, now)
                held.warn(f"no process for the refresh of the lists: {error.strerror}; it is tried again")

    def _give_up_refresh(self) -> None:
        self._refresh_is_given_up = True
        self._held.refresher.kill()

    def _missing(self) -> list[Place]:
        """Who is to be started again."""
        if self._stopping:
            return []
        held = self._held
        places = [*held.places, *(held.tls if held.wants_tls else []), *([held.hub] if held.wants_hub else [])]
        return [place for place in places if not place.pid]

    def _next_signal(self) -> int | None:
        """Wait for a signal, or until something is due."""
        due = [place.start_at for place in self._missing()]
        turn = self._turns.end_by if self._held.refresher.pid else self._turns.due
        if turn < math.inf and not self._stopping:
            due.append(turn)
        if self._stopping:
            due.append(self._stop_by)
        else:
            due.append(self._look_at)
        if self._held.watchdog.interval:
            due.append(self._held.watchdog.due)
        info = signal.sigtimedwait(forks.SIGNALS, max(0.0, min(due) - time.monotonic()))
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
            for place in self._held.everyone:
                if place.pid == pid:
                    self._bury_one(place, os.waitstatus_to_exitcode(status))

    def _bury_one(self, place: Place, code: int) -> None:
        held, pid = self._held, place.pid
        place.ended()
        if place in held.tls:
            held.tls_ready[place.number] = 0
        if self._stopping:
            return
        if place is held.refresher:
            self._refreshed(pid, code)
            return
        held.warn(f"{place.name} (process {pid}) {how_ended(code)}: it is started again")
        if place in held.places and -code in cachefile.CRASHES:
            self._died_in_cache(cachemark.file_in_use(held.mark(place)))

    def _refreshed(self, pid: int, code: int) -> None:
        held = self._held
        self._turns.ended(code, time.monotonic())
        if code not in (End.DONE, End.AGAIN) and not self._refresh_is_given_up:
            held.warn(f"allowlist (process {pid}) {how_ended(code)}: the lists stay as they are")
        # Not by the code: it may have written one before it died, and so may a refresh by hand.
        if lists.versions(held.config) != held.list_versions:
            reload.read_tables_again(held)

    def _died_in_cache(self, inode: Inode | None) -> None:
        """Two deaths in the same file, and it is moved aside; one that replaced it meanwhile is not."""
        if inode is None:
            return
        held, now = self._held, time.monotonic()
        self._cache_deaths = [
            (at, which) for at, which in self._cache_deaths if at > now - CACHE_DEATHS_SECONDS and which == inode
        ] + [(now, inode)]
        if len(self._cache_deaths) < 2 or not held.config.cache.path:
            return
        path = Path(held.config.cache.path)
        try:
            aside = cachefile.move_aside(path, inode)
        except OSError as error:
            held.warn(f"cache lmdb:{path}: cannot be moved aside: {one_line(error)}")
            return
        self._cache_deaths.clear()
        if aside is None:
            return
        held.warn(f"cache lmdb:{path}: two workers died while they used it: moved to {aside}, a new one is started")

    def _replace(self, place: Place) -> None:
        held = self._held
        try:
            self._start(place, look_over_cache=True)
        except OSError as error:
            place.ended()
            held.warn(f"no process for {place.name}: {error.strerror}; it is tried again")
            return
        if place is held.hub:
            return
        match hear(held, place, time.monotonic() + START_SECONDS):
            case Ready():
                held.info(f"{place.name} is process {place.pid} now")
            case Failed(why):
                held.warn(f"{place.name} cannot start: {why}")
            case Silent():
                held.warn(f"{place.name} does not start: killed")
                place.kill()

    # ---- the end

    def _stop(self) -> None:
        """First SIGTERM: no new clients, those in hand finish. Second: stop at once."""
        held = self._held
        if self._stopping:
            self._stop_by = min(self._stop_by, time.monotonic() + STOP_NOW_SECONDS)
        else:
            self._stopping = True
            notify.tell("STOPPING=1", "STATUS=clients in hand may finish")
            self._stop_by = time.monotonic() + STOP_SECONDS
            held.info("stopping: clients in hand may finish")
        held.refresher.kill()
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for group in held.groups.values():
            close_all(group)
        held.groups.clear()
        held.order(Stop())

    def _end_others(self) -> None:
        """They end when their channels do: the TLS processes pass on the workers' last words, the hub shows the end."""
        others = [*self._held.tls, self._held.refresher, self._held.hub]
        for place in others:
            place.leave()
        end = time.monotonic() + OTHERS_END_SECONDS
        while any(place.pid for place in others):
            if signal.sigtimedwait({signal.SIGCHLD}, max(0.0, end - time.monotonic())) is None:
                _kill(others)
            self._bury()


def _kill(places: Iterable[Place]) -> None:
    for place in places:
        place.kill()


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
