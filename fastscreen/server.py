"""The screening process: loop, signals, reload. The core does the screening; this gives it what it needs and nothing
more runs while mail flows."""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401  (getfqdn wants it: as the user, Python's own files may be out of reach)
import operator
import os
import signal
import socket
import struct
import sys
from pathlib import Path

import uvloop

from fastscreen import __version__, config, policy, privileges
from fastscreen.cache import Cache
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint, Pass
from fastscreen.core import Screener
from fastscreen.listeners import listen
from fastscreen.logs import LogTarget
from fastscreen.resolver import Nameserver, TcpResolver, system_nameservers
from fastscreen.sink import Sink

TICK = 1.0  # s
TCP_QUESTIONS = 200  # at a time: what is truncated costs 30 times what is not


class Server:
    """One screener from start to end. `path` is None for the built-in settings."""

    def __init__(self, path: Path | None, settings: Config) -> None:
        self._path = path
        self._config = settings
        self._listeners: dict[Endpoint, socket.socket] = {}
        self._sink: Sink | None = None
        self._stopping = False
        self._reloading: asyncio.Task[None] | None = None
        self._reload_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> int:
        """Screen until SIGTERM. Exit code 0; 1: it could not start, 2: the configuration is wrong (told on stderr)."""
        privileges.raise_descriptor_limit()
        try:
            user = privileges.user_of(self._config)
            # As root: ports, log and cache folder. Everything else as the user, as it will be at a reload.
            self._target = LogTarget(self._config)
            self._log = self._target.log
            self._listeners = {address: listen(address) for address in self._config.listen.addresses}
            if user:
                self._target.give_to(user)
            if self._config.cache.path:
                privileges.give_folder(Path(self._config.cache.path).parent, user)
            if user:
                privileges.become(user)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._serve())
        except (OSError, ConfigError, ValueError, privileges.PrivilegeError) as error:
            print(f"fastscreen: {one_line(error)}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1

    # ---- while it runs

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        built = policy.build(self._config, self._mta_socket(self._config), self._log.warning)
        self._cache = self._open_cache(loop)
        self._screener = Screener(
            built.policy, self._log, self._cache, on_truncated=self._ask_over_tcp, on_drained=self._drained.set
        )
        self._use_resolvers(self._config)
        for listener in self._listeners.values():
            self._screener.listen(listener.fileno())
        loop.add_reader(self._screener.fileno(), self._screener.run)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGINT, self._terminate)
        for warning in built.warnings:
            self._log.warning(warning)
        if os.geteuid() == 0:
            self._log.warning("running as root, and staying so: name a user without rights under user")
        where = ", ".join(name_of(listener) for listener in self._listeners.values())
        self._log.info(f"daemon started -- fastscreen {__version__}, listening on {where}")
        self._log.flush()
        tick = loop.create_task(self._tick())
        await self._drained.wait()
        tick.cancel()
        loop.remove_reader(self._screener.fileno())
        await self._resolver.close()
        if self._cache is not None:
            self._cache.close()
        if self._sink is not None:
            self._sink.stop()
        self._log.info("daemon stopped")
        self._target.close()
        return 0

    def _mta_socket(self, settings: Config) -> str:
        """Where clients that passed go: the configuration's socket, or that of the embedded sink."""
        if isinstance(settings.handoff.to, Pass):
            return settings.handoff.to.path
        if self._sink is None:
            self._sink = Sink(self._log.warning)
            self._sink_path = str(self._sink.start(settings.hostname))
        return self._sink_path

    def _open_cache(self, loop: asyncio.AbstractEventLoop) -> Cache | None:
        """The cache, or None when the configuration wants none. What is wrong with its file is its own affair."""
        settings = self._config.cache
        if not settings.path:
            return None
        cache = Cache(
            settings.path,
            warn=self._log.warning,
            log=self._log.info,
            wake=loop.call_soon_threadsafe,
            enabled=policy.enabled_tests(self._config),
            cleanup_interval=settings.cleanup_interval,
            retention=settings.retention,
        )
        cache.open()
        cache.start()
        return cache

    async def _tick(self) -> None:
        """What the log's reader did not take at once goes out later; a log daemon that was restarted is found again."""
        while True:
            await asyncio.sleep(TICK)
            if self._log.disconnected:
                with contextlib.suppress(OSError):
                    self._target.open()
            self._log.flush()

    # ---- DNS beyond the core's own queries

    def _use_resolvers(self, settings: Config) -> None:
        """Ask the configuration's resolvers, or the system's. One that cannot be asked is left out with a warning."""
        servers = [Nameserver(server.host, server.port) for server in settings.dnsbl.resolvers] or system_nameservers()
        usable: dict[Nameserver, bytes] = {}
        for server in servers:
            try:
                usable[server] = packed(server)
            except OSError as error:
                self._log.warning(f"resolver {server} cannot be asked: {error.strerror or error}")
        self._resolver = TcpResolver(list(usable))
        self._screener.use_resolvers(usable.values())

    def _ask_over_tcp(self, token: int, name: str) -> None:
        """A DNSBL answer did not fit a datagram."""
        if len(self._tasks) >= TCP_QUESTIONS:
            raise RuntimeError(f"more than {TCP_QUESTIONS} truncated DNSBL answers at a time")
        task = asyncio.get_running_loop().create_task(self._answer_over_tcp(token, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_over_tcp(self, token: int, name: str) -> None:
        answer = await self._resolver.query_a(name)
        addresses = None if answer.outcome == "failed" else [socket.inet_aton(text) for text in answer.addresses]
        ttl = -1 if answer.ttl is None else answer.ttl
        self._screener.tcp_answer(token, addresses, ttl, ttl)

    # ---- signals

    def _terminate(self) -> None:
        """First SIGTERM: no new clients, those in hand finish. Second: stop at once."""
        if self._stopping:
            self._drained.set()
            return
        self._stopping = True
        self._log.info("stopping: clients in hand may finish")
        self._screener.drain()
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def _hang_up(self) -> None:
        """SIGHUP: open the log again, read the configuration anew."""
        if self._stopping:
            return
        try:
            self._target.open()
        except OSError as error:
            self._log.warning(f"log not opened again: {one_line(error)}")
        self._reload_due = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload_while_due())

    async def _reload_while_due(self) -> None:
        """A SIGHUP that comes during a reload is about a newer file."""
        while self._reload_due and not self._stopping:
            self._reload_due = False
            try:
                await self._reload()
            except Exception as error:
                self._log.warning(f"reload failed: {type(error).__name__}: {one_line(error)}")

    async def _reload(self) -> None:
        """Take over a new configuration, or keep the old one whole. Clients under test notice nothing."""
        if self._path is None:
            return
        loop = asyncio.get_running_loop()
        opened: dict[Endpoint, socket.socket] = {}
        try:
            settings = await loop.run_in_executor(None, config.load, self._path)
            mta = self._mta_socket(settings)
            built = await loop.run_in_executor(None, policy.build, settings, mta, self._log.warning)
            for address in settings.listen.addresses:
                if address not in self._listeners:
                    opened[address] = listen(address)
        except Exception as error:  # whatever it is: the old one stays, and the log tells
            for listener in opened.values():
                listener.close()
            self._log.warning(f"configuration not taken over: {one_line(error)}")
            self._log.flush()
            return
        if self._stopping:
            for listener in opened.values():
                listener.close()
            return
        for setting in ("user", "log", "cache.path"):
            if attribute(settings, setting) != attribute(self._config, setting):
                self._log.warning(f"{setting} changed: it takes effect when fastscreen is started again")
        for address in set(self._listeners) - set(settings.listen.addresses):
            self._screener.unlisten(self._listeners[address].fileno())
            self._listeners.pop(address).close()
        for address, listener in opened.items():
            self._listeners[address] = listener
            self._screener.listen(listener.fileno())
        if settings.dnsbl.resolvers != self._config.dnsbl.resolvers or not settings.dnsbl.resolvers:
            before = self._resolver
            self._use_resolvers(settings)
            await before.close()
        if self._cache is not None:
            self._cache.configure(
                policy.enabled_tests(settings), settings.cache.cleanup_interval, settings.cache.retention
            )
        self._screener.use_policy(built.policy)
        self._config = settings
        for warning in built.warnings:
            self._log.warning(warning)
        self._log.info("configuration reloaded")
        self._log.flush()


def one_line(error: Exception) -> str:
    """An error as the operator reads it: what, and where."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def packed(server: Nameserver) -> bytes:
    """struct sockaddr_in or sockaddr_in6, as the core passes it to connect(2)."""
    host, _, scope = server.address.partition("%")
    if ":" not in host:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", server.port) + socket.inet_aton(host) + bytes(8)
    index = socket.if_nametoindex(scope) if scope and not scope.isdecimal() else int(scope or 0)
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", server.port, 0)
    return head + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", index)


def attribute(settings: Config, name: str) -> object:
    return operator.attrgetter(name)(settings)
