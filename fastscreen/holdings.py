"""What the supervisor holds, and every process that it forks is given: sockets, shared memory, tables, the log."""

from __future__ import annotations

import contextlib
import mmap
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fastscreen import activation, channel, controlsocket, notify, policy, privileges, warningbook
from fastscreen.allowlist import lists
from fastscreen.channel import ReopenLog
from fastscreen.config import Config
from fastscreen.config.model import Endpoint, ProxyPort
from fastscreen.hub import questions
from fastscreen.listeners import inbox, listen, new_key
from fastscreen.listhealth import table
from fastscreen.listhealth.table import HealthTable
from fastscreen.logs import LogTarget
from fastscreen.place import Place
from fastscreen.starttls import certificates
from fastscreen.starttls.certificates import Certificates
from fastscreen.warningbook import WarningBook

RING_SIZE = 4096 + 65536 * 128  # octets a worker: 65,536 events


class Holdings:
    """One daemon's, from start to end. Made in the order of the methods: `bind` as root, `read`, `share`."""

    target: LogTarget
    tables: policy.Tables
    list_versions: dict[Path, tuple[int, int, int]]
    """Of the lists' tables, as they were when `tables` read them."""
    marks: memoryview
    """Two octets a worker: whether it is in the cache's file just now."""
    pulses: memoryview
    """An octet for each of `watched`, which it changes every second."""
    rings: list[memoryview]
    """Events, by worker."""
    questions: list[tuple[socket.socket, socket.socket]]
    """By worker: the hub's end and the worker's. Empty without a hub."""
    inboxes: list[tuple[socket.socket, socket.socket]]
    """By worker: where clients of its are passed to it, the sending and the receiving end. Empty with one worker."""
    books: list[memoryview]
    """Warnings: the workers', the TLS processes', the refreshes', the supervisor's, the hub's."""
    health: HealthTable
    """How the DNS lists are."""
    tls_pair: tuple[socket.socket, socket.socket]
    """Where clients that said STARTTLS go: the workers' end and the TLS processes', each for all of them."""
    tls_ready: memoryview
    """An octet a TLS process: whether it takes clients."""

    def __init__(self, settings: Config) -> None:
        self.config = settings
        self.started = time.time()
        self.watchdog = notify.Watchdog()
        self.key = new_key()
        """By which a client's worker is chosen."""
        self.groups: dict[Endpoint, list[socket.socket]] = {}
        """Listening sockets, one for each worker."""
        self.places: list[Place] = []
        """The workers'."""
        self.hub = Place("hub")
        self.refresher = Place("allowlist")
        """Where a refresh of the lists takes place, now and then."""
        self.tls: list[Place] = []
        """The TLS processes'."""
        self.certificates: Certificates | None = None
        self.control: controlsocket.ControlSocket | None = None
        self.metrics: controlsocket.ControlSocket | None = None
        """Where the hub serves /metrics."""

    def bind(self, user: str, count: int) -> list[str]:
        """What only root can do: ports, log, cache folder, control socket. Return warnings. OSError, PrivilegeError."""
        config = self.config
        self.target = LogTarget(config)
        given = activation.take()
        activation.check(given, config.listen.ports, count)
        for address, port in config.listen.ports.items():
            if (group := given.get(address)) is not None:
                activation.prepare(group, self.key, config.worker_prefix, by_client=port is None)
            self.groups[address] = group or self.listen(address, port, count)
        if user:
            self.target.give_to(user)
        if config.cache.path:
            privileges.give_folder(Path(config.cache.path).parent, user)
        controlsocket.check_group(config)
        if config.tls.certificates:
            try:
                self.certificates = certificates.read(config.tls.certificates)
            except OSError as error:
                raise OSError(error.errno, f"tls.certificates: {error.filename}: {error.strerror}") from None
        return [*self._make_folders(user), *self._make_control(user)]

    def listen(self, address: Endpoint, port: ProxyPort | None, count: int) -> list[socket.socket]:
        """Sockets for `count` workers. port: None for clients themselves. OSError: with the address in its text."""
        return listen(address, count, self.key, self.config.worker_prefix, by_client=port is None)

    def _make_folders(self, user: str) -> list[str]:
        """For the lists that are refreshed. What goes wrong is a warning: mail does not depend on it."""
        warnings = []
        for each in lists.lists_of(self.config) if lists.is_refreshed(self.config) else []:
            try:
                privileges.give_folder(each.path.parent, user, f"{each.name}.path")
            except OSError as error:
                warnings.append(f"{error.strerror}: the list is not refreshed")
        return warnings

    def _make_control(self, user: str) -> list[str]:
        """Bind it, as root where it must be. What goes wrong is a warning: mail does not depend on it."""
        path, where, group = self.config.control.path, self.config.metrics.listen, self.config.control.group
        warnings = []
        if path:
            try:
                self.control = controlsocket.make(Path(path), user, group)
            except OSError as error:
                warnings.append(f"control.path: {path}: {error.strerror}: no control socket")
        if where is not None:
            try:
                if isinstance(where, str):
                    self.metrics = controlsocket.make(Path(where), user, group)
                else:
                    (listener,) = listen(where, 1, self.key)
                    self.metrics = controlsocket.ControlSocket(None, listener)
            except OSError as error:
                warnings.append(f"metrics.listen: {where}: {error.strerror}: no metrics")
        return warnings

    @property
    def wants_hub(self) -> bool:
        return self.control is not None or self.metrics is not None

    def read(self, count: int) -> tuple[str, ...]:
        """Open the tables, as the user, as it will be at a reload. Return warnings. ConfigError, ValueError."""
        lists.begin(self.config)
        self.list_versions = lists.versions(self.config)
        self.tables = policy.Tables(self.config)
        return warnings_of(self.tables, count)

    def share(self, count: int) -> None:
        """Make the workers' places and the memory that outlives each of them."""
        self.places = [Place(f"worker {number + 1}", number) for number in range(count)]
        self.marks = memoryview(mmap.mmap(-1, 2 * count))
        self.health = HealthTable(memoryview(mmap.mmap(-1, table.SIZE)))
        self.health.claim(self.config.dnsbl.domains)
        self.rings = [memoryview(mmap.mmap(-1, RING_SIZE)) for _ in range(count)]
        self.inboxes = [inbox() for _ in range(count)] if count > 1 else []
        self.questions = [questions.pair() for _ in range(count)] if self.wants_hub else []
        processes = self.config.tls.processes
        self.tls = [Place(f"tls {number + 1}" if processes > 1 else "tls", number) for number in range(processes)]
        self.tls_pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tls_ready = memoryview(mmap.mmap(-1, processes))
        self.pulses = memoryview(mmap.mmap(-1, len(self.watched)))
        self.books = [memoryview(mmap.mmap(-1, warningbook.SIZE)) for _ in range(count + processes + 3)]
        self.target.log.on_warning = WarningBook(self.books[-2]).write

    @property
    def everyone(self) -> list[Place]:
        """All places, whether somebody is in them or not."""
        return [*self.places, *self.tls, self.refresher, self.hub]

    @property
    def watched(self) -> list[Place]:
        """Those that serve until they are told to stop: whose loop stands still is of no use to anybody."""
        return [*self.places, *self.tls, self.hub]

    def pulse(self, place: Place) -> memoryview:
        """The octet of one of these."""
        at = self.watched.index(place)
        return self.pulses[at : at + 1]

    @property
    def wants_tls(self) -> bool:
        return self.config.tls.level != "none" and self.certificates is not None

    def mark(self, place: Place) -> memoryview:
        """A worker's two octets of `marks`."""
        return self.marks[2 * place.number : 2 * place.number + 2]

    def order(self, order: channel.Order) -> None:
        """Tell the workers, and the others what is for them, too."""
        for place in self.everyone if isinstance(order, ReopenLog) else self.places:
            if place.pid and place.channel is not None:
                with contextlib.suppress(OSError):  # it has ended, and SIGCHLD tells
                    channel.send(place.channel, order)

    def close_control(self) -> None:
        for door in (self.control, self.metrics):
            if door is not None:
                door.close()
        self.control = self.metrics = None

    # ---- the log

    def info(self, text: str) -> None:
        self._say(self.target.log.info, text)

    def warn(self, text: str) -> None:
        self._say(self.target.log.warning, text)

    def _say(self, say: Callable[[str], object], text: str) -> None:
        """There is no loop that would write later, or find a log daemon that was restarted."""
        say(text)
        self.target.log.flush()
        if self.target.log.disconnected:
            with contextlib.suppress(OSError):
                self.target.open()
            self.target.log.flush()


def warnings_of(tables: policy.Tables, count: int) -> tuple[str, ...]:
    """What is odd in the tables: every worker finds the same, so it is told once. ValueError: no policy."""
    return tables.policy("", lambda text: None, policy.Share(0, count)).warnings


def close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
