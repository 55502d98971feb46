"""What the supervisor holds, and every process that it forks is given: sockets, shared memory, tables, the log."""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fastscreen.allowlist import lists
from fastscreen.cache import use_mark
from fastscreen.config import Config
from fastscreen.config.model import Endpoint, ProxyPort
from fastscreen.control import worker_rpc
from fastscreen.daemon import control_listener, systemd_notify, systemd_sockets
from fastscreen.daemon.cluster_parts import ClusterParts
from fastscreen.daemon.history_parts import HistoryParts
from fastscreen.daemon.listeners import inbox, listen, new_key
from fastscreen.dns.health import state
from fastscreen.dns.health.state import HealthTable
from fastscreen.process import conditions, ipc, oom, privileges, reload_state, warning_ring
from fastscreen.process.child import Child
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.ipc import ReopenLog
from fastscreen.process.log_output import LogTarget
from fastscreen.process.reload_state import ReloadState
from fastscreen.process.signals import SignalReader
from fastscreen.process.warning_ring import WarningRing
from fastscreen.screening import policy
from fastscreen.tls import key_reader
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.key_reader import KeyReader

WARN_SECONDS = 60.0  # between two warnings about an attempt that keeps failing
RING_SIZE = 4096 + 65536 * 128  # bytes per worker: 65,536 events


class Resources:
    """One daemon's, from start to end. Made in the order of the methods: `bind` as root, `read`, `share`."""

    target: LogTarget
    tables: policy.Tables
    list_versions: dict[Path, tuple[int, int, int]]
    """Of the lists' tables, as they were when `tables` read them."""
    marks: memoryview
    """`use_mark.SIZE` bytes for each worker: the cache file that it is using at the moment."""
    pulses: memoryview
    """One byte for each process of `watched`, which the process changes every second."""
    rings: list[memoryview]
    """Events, by worker."""
    rpc_pairs: list[tuple[socket.socket, socket.socket]]
    """By worker: the control server's end and the worker's. Empty without a control server."""
    warning_rings: list[memoryview]
    """Warnings: the workers', the TLS processes', the cluster process's, the recorder's, the refreshes', the
    supervisor's, the control server's."""
    condition_memory: list[memoryview]
    """Conditions of each process, in the order of `warning_rings`."""
    conditions: Conditions
    """The supervisor's own."""
    reload_state: ReloadState
    """How the last reload ended."""
    health: HealthTable
    """How the DNS lists are."""
    tls_pair: tuple[socket.socket, socket.socket]
    """Where clients that said STARTTLS go: the workers' end and the TLS processes', each for all of them."""
    tls_ready: memoryview
    """One byte per TLS process: whether it accepts clients."""

    def __init__(self, settings: Config) -> None:
        self.config = settings
        self.started = time.time()
        self.watchdog = systemd_notify.Watchdog()
        self.key = new_key()
        """By which a client's worker is chosen."""
        self.groups: dict[Endpoint, list[socket.socket]] = {}
        """Listening sockets, one for each worker."""
        self.children: list[Child] = []
        """The workers'."""
        self.control_process = Child("control server", kind="control")
        self.cluster: ClusterParts | None = None
        """Of the process that shares passes with other hosts; None: `[cluster]` names no server."""
        self.history: HistoryParts | None = None
        """Of the recorder; None: neither `history.path` nor `score.memory` is set."""
        self.refresher = Child("allowlist")
        """Where a refresh of the lists takes place, now and then."""
        self.tls: list[Child] = []
        """The TLS processes'."""
        self.certificates: Certificates | None = None
        self.key_reader: KeyReader | None = None
        """Reads renewed keys that only root may read; None: not needed, or not possible."""
        self.control: control_listener.ControlSocket | None = None
        self.metrics: control_listener.ControlSocket | None = None
        """Where the control server serves /metrics."""
        self.user = ""
        """The user that this process becomes; "": it stays as it is."""
        self.inboxes: list[tuple[socket.socket, socket.socket]] = []
        """By worker: where its clients are passed to it, the sending and the receiving end. Empty with one worker."""
        self.trials: list[Child] = []
        """Children that try something and report how it went."""
        self.former: list[Child] = []
        """Processes of the program before a restart, which let their clients finish."""
        self.oom = oom.opened()
        self.signals: SignalReader | None = None
        """Where the supervisor's signals arrive."""
        self.early_conditions: list[tuple[Kind, str]] = []
        """Found before there is memory for conditions."""
        self.starting = True
        """The first start, at which a child that fails ends the daemon, is not over."""
        self.stopping = False
        self._repeated: dict[str, tuple[str, float]] = {}
        """The last warning about each attempt that keeps failing, and when it was logged."""
        self.activated: set[Endpoint] = set()
        """Addresses whose sockets a service manager made."""

    def bind(self, user: str, count: int) -> list[str]:
        """What only root can do: ports, log, cache folder, control socket. Return warnings. OSError, PrivilegeError."""
        config = self.config
        self.target = LogTarget(config, user)
        if self.target.problem:
            print(f"fastscreen: warning: {self.target.problem}; retried every second", file=sys.stderr)
        self.user = user
        given = systemd_sockets.take(config.listen.ports, count)
        self.activated = given.units
        systemd_sockets.check(given.groups, config.listen.ports, count)
        for address, group in given.groups.items():
            by_client = config.listen.ports[address] is None
            systemd_sockets.prepare(group, self.key, config.worker_prefix, by_client=by_client)
        self.groups = dict(given.groups)
        wanted = {address: port for address, port in config.listen.ports.items() if address not in self.groups}
        opened, odd = self.open_ports(wanted, count, others=len(self.groups))
        self.groups = {
            address: (self.groups | opened)[address] for address in config.listen.ports if address not in odd
        }
        if config.cache.path:
            privileges.give_folder(Path(config.cache.path).parent, user)
        control_listener.check_group(config)
        if config.tls.certificates:
            try:
                self.certificates = key_reader.read_files(config.tls.certificates, user)
            except OSError as error:
                raise OSError(error.errno, f"tls.certificates: {error.filename}: {error.strerror}") from None
            self.key_reader = key_reader.start(config.tls.certificates, user)
        self.early_conditions += [(Kind.LISTEN, "; ".join(odd.values()))] if odd else []
        return [*odd.values(), *self._make_folders(user)]

    def open_ports(
        self, ports: Mapping[Endpoint, ProxyPort | None], count: int, *, others: int = 0
    ) -> tuple[dict[Endpoint, list[socket.socket]], dict[Endpoint, str]]:
        """Listen on these addresses, or on none of them: OSError. Return the sockets, and what is wrong with addresses
        that were omitted: where the kernel lacks IPv6, fastscreen serves IPv4 only, as Postfix does.

        others: how many further addresses are served.
        """
        opened: dict[Endpoint, list[socket.socket]] = {}
        omitted: dict[Endpoint, str] = {}
        try:
            for address, port in ports.items():
                try:
                    opened[address] = self.listen(address, port, count)
                except OSError as error:
                    if error.errno != errno.EAFNOSUPPORT or len(omitted) + 1 >= len(ports) + others:
                        raise
                    omitted[address] = f"listen: {address} is omitted: the kernel does not support IPv6"
        except BaseException:
            for group in opened.values():
                close_all(group)
            raise
        return opened, omitted

    def listen(self, address: Endpoint, port: ProxyPort | None, count: int) -> list[socket.socket]:
        """Sockets for `count` workers. port: None for clients themselves. OSError: with the address in its text."""
        return listen(address, count, self.key, self.config.worker_prefix, by_client=port is None)

    def _make_folders(self, user: str) -> list[str]:
        """For lists that are refreshed, and the history. What goes wrong is a warning: mail does not depend on it."""
        warnings = []
        for each in lists.lists_of(self.config) if lists.is_refreshed(self.config) else []:
            try:
                privileges.give_folder(each.path.parent, user, f"{each.name}.path")
            except OSError as error:
                warnings.append(f"{error.strerror}: the list is not refreshed")
        if self.config.history.path:
            try:
                privileges.give_folder(Path(self.config.history.path), user, "history.path", 0o700)
            except OSError as error:
                warnings.append(f"{error.strerror}: no session is recorded until it can be used")
        if self.config.score.memory:
            try:
                privileges.give_folder(Path(self.config.score.memory).parent, user, "score.memory")
            except OSError as error:
                warnings.append(f"{error.strerror}: the memory of offenses is empty until it can be used")
        return warnings

    @property
    def wants_control(self) -> bool:
        return self.control is not None or self.metrics is not None

    @property
    def may_want_control(self) -> bool:
        """Now or later."""
        return bool(self.config.control.path) or self.config.metrics.listen is not None

    def read(self, count: int) -> tuple[str, ...]:
        """Open the tables, as the user, as it will be at a reload. Return warnings. ConfigError, ValueError."""
        lists.begin(self.config)
        self.list_versions = lists.versions(self.config)
        self.tables = policy.Tables(self.config)
        return warnings_of(self.tables, count)

    def share(self, count: int) -> None:
        """Make the workers' places and the memory that outlives each of them."""
        self.children = [Child(f"worker {number + 1}", number, "worker") for number in range(count)]
        self.marks = memoryview(mmap.mmap(-1, use_mark.SIZE * count))
        self.health = HealthTable(memoryview(mmap.mmap(-1, state.SIZE)))
        self.health.claim(self.config.dnsbl.domains)
        self.rings = [memoryview(mmap.mmap(-1, RING_SIZE)) for _ in range(count)]
        if not self.inboxes and count > 1:  # a restart keeps them
            self.inboxes = [inbox() for _ in range(count)]
        self.rpc_pairs = [worker_rpc.pair() for _ in range(count)] if self.may_want_control else []
        processes = self.config.tls.processes
        self.tls = [
            Child(f"tls {number + 1}" if processes > 1 else "tls", number, "tls") for number in range(processes)
        ]
        if self.config.cluster.enabled:
            self.cluster = ClusterParts(count)
        if self.config.history.path or self.config.score.memory:
            self.history = HistoryParts(count)
        self.tls_pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tls_ready = memoryview(mmap.mmap(-1, processes))
        self.pulses = memoryview(mmap.mmap(-1, len(self.watched)))
        self.warning_rings = [memoryview(mmap.mmap(-1, warning_ring.SIZE)) for _ in range(count + processes + 5)]
        self.target.log.on_warning = WarningRing(self.warning_rings[-2]).write
        self.condition_memory = [memoryview(mmap.mmap(-1, conditions.SIZE)) for _ in self.warning_rings]
        self.conditions = Conditions(self.condition_memory[-2])
        self.target.watch(self.conditions)
        self.reload_state = ReloadState(memoryview(mmap.mmap(-1, reload_state.SIZE)))
        for kind, text in self.early_conditions:
            self.conditions.begin(kind, text)

    @property
    def everyone(self) -> list[Child]:
        """All places, whether somebody is in them or not."""
        return [*self.children, *self.tls, self.refresher, *self.optional, self.control_process]

    @property
    def watched(self) -> list[Child]:
        """Those that serve until they are told to stop: whose loop stands still is of no use to anybody."""
        return [*self.children, *self.tls, *self.optional, self.control_process]

    @property
    def optional(self) -> list[Child]:
        """The cluster process and the recorder, where the configuration has them."""
        return [parts.child for parts in (self.cluster, self.history) if parts is not None]

    def heartbeat(self, child: Child) -> memoryview:
        """The byte in `pulses` of one of these processes."""
        at = self.watched.index(child)
        return self.pulses[at : at + 1]

    @property
    def wants_tls(self) -> bool:
        return self.config.tls.level != "none" and self.certificates is not None

    def mark(self, child: Child) -> memoryview:
        """A worker's part of `marks`."""
        return self.marks[use_mark.SIZE * child.number : use_mark.SIZE * (child.number + 1)]

    def order(self, order: ipc.Order) -> None:
        """Tell the workers, and the others what is for them, too."""
        for child in [*self.everyone, *self.former] if isinstance(order, ReopenLog) else self.children:
            if child.pid and child.channel is not None:
                with contextlib.suppress(OSError):  # it has ended, and SIGCHLD tells
                    ipc.send(child.channel, order)

    def close_control(self) -> None:
        for bound in (self.control, self.metrics):
            if bound is not None:
                bound.close()
        self.control = self.metrics = None

    # ---- the log

    def info(self, text: str) -> None:
        self._log(self.target.log.info, text)

    def warn(self, text: str) -> None:
        self._log(self.target.log.warning, text)

    def warn_rarely(self, subject: str, text: str) -> None:
        """Log an attempt that keeps failing: when the text changes, otherwise once a minute."""
        now = time.monotonic()
        before, at = self._repeated.get(subject, ("", 0.0))
        if text != before or now >= at + WARN_SECONDS:
            self._repeated[subject] = text, now
            self.warn(text)

    def _log(self, write: Callable[[str], object], text: str) -> None:
        """No event loop would write later, or find a log daemon that was restarted."""
        write(text)
        self.target.tick()


def warnings_of(tables: policy.Tables, count: int) -> tuple[str, ...]:
    """What is odd in the tables: every worker finds the same, so it is told once. ValueError: no policy."""
    return tables.policy("", lambda text: None, policy.Share(0, count)).warnings


def close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
