"""A TLS process: takes clients from the workers and does nothing else. It may end at any time and be started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import socket
import ssl
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from fastscreen.config import Config, ConfigError
from fastscreen.process import fd_passing as fds
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Ready
from fastscreen.process.log_output import LogTarget
from fastscreen.process.startup import ForkedProcess
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.context import Chain, ContextError, chains, new_context
from fastscreen.tls.expiry import validity
from fastscreen.tls.handshake_limiter import HandshakeLimiter
from fastscreen.tls.session import CHUNK, Session, TlsShared

BATCH = 32  # clients taken from the workers in one turn: those in TLS are not kept waiting by a burst
END_SECONDS = 5.0  # for clients to take the screener's last words
DAY = timedelta(days=1)
RESERVED_DESCRIPTORS = 50  # that are nobody's client


class TlsArgs(Struct, frozen=True):
    """What a TLS process has. number: from 0. channel: to the supervisor. clients: where workers send them, the same
    for every process.

    ready: one byte of shared memory, 1 while this process takes clients. certificates: as read at the start. heartbeat:
    a byte that changes every second while clients are taken. conditions: of this process.
    """

    number: int
    channel: socket.socket
    clients: socket.socket
    ready: memoryview
    certificates: Certificates
    heartbeat: memoryview
    conditions: Conditions


class TlsProcess(ForkedProcess):
    """One TLS process from start to end."""

    NAME = "fastscreen-tls"
    NICENESS = 5  # screening goes first

    def __init__(self, config: Config, target: LogTarget, args: TlsArgs) -> None:
        super().__init__(config, target, args.channel, args.heartbeat)
        self._args = args
        self._sessions: set[Session] = set()
        self._flushing = self._paused = False
        self._turns = 0  # of `_take`
        self._waited, self._last_turns = False, 0  # at the last heartbeat
        self._take = self._errors.guard("taking clients", self._take_some)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = max(1, (soft - RESERVED_DESCRIPTORS) // 2)

    async def start(self) -> None:
        try:
            self._context, self._chains = prepared(self._config, self._args.certificates)
        except ContextError as error:
            raise ConfigError(f"{self._config.source}: {error}") from None
        self._warn_of_expiry()
        loop = asyncio.get_running_loop()
        settings = self._config.tls
        limiter: HandshakeLimiter[Session] = HandshakeLimiter(
            settings.handshakes, lambda session: loop.call_soon(session.begin), loop.time
        )
        self._shared = TlsShared(
            loop,
            self._context,
            limiter,
            settings.handshake_time,
            settings.log_level,
            self._log_line,
            self._errors.report,
            self._left,
            memoryview(bytearray(CHUNK)),
        )
        loop.add_reader(self._args.clients.fileno(), self._take)
        self._args.ready[0] = 1
        self.report(Ready())

    async def close(self) -> None:
        """Give clients time to take the screener's last replies."""
        loop = self._shared.loop
        self._args.ready[0] = 0
        loop.remove_reader(self._args.clients.fileno())
        by = loop.time() + END_SECONDS
        while self._sessions and loop.time() < by:
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            session.end()

    # ---- clients

    def _take_some(self) -> None:
        self._turns += 1
        for _ in range(BATCH):
            if len(self._sessions) >= self._room:
                # The others wait in the socket, or another process takes them; when it is full, they are told 454.
                self._paused = True
                self._shared.loop.remove_reader(self._args.clients.fileno())
                return
            try:
                name, descriptors, _ = fds.receive(self._args.clients, 128, 2, socket.MSG_DONTWAIT)
            except OSError:  # another process was quicker, or there are no more
                return
            if len(descriptors) != 2:
                for descriptor in descriptors:
                    os.close(descriptor)
                continue  # the system has none left: the worker sees a hang-up
            client, plain = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            client.setblocking(False)
            plain.setblocking(False)
            session = Session(self._shared, client, plain, name.decode("ascii", "replace"))
            self._sessions.add(session)
            session.start()

    def _left(self, session: Session) -> None:
        self._sessions.discard(session)
        if self._paused and not self._ended.is_set():
            self._paused = False
            self._shared.loop.add_reader(self._args.clients.fileno(), self._take)

    # ---- the log

    def _log_line(self, text: str) -> None:
        self._log.info(text)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """One write for all lines of a turn."""
        if not self._flushing:
            self._flushing = True
            self._shared.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._log.flush()

    def _warn_of_expiry(self) -> None:
        """At the start, at SIGHUP, and once a day; one process for all."""
        now = datetime.now(UTC)
        self._expiry_told = now
        for chain in self._chains if self._args.number == 0 else ():
            with contextlib.suppress(ContextError):
                well, text = validity(chain, now)
                if not well:
                    self._log.warning(f"tls.certificates: {text}")
        self._log.flush()

    def makes_progress(self) -> bool:
        """Clients do not wait while this process takes none."""
        waits = not self._paused and _is_readable(self._args.clients)
        makes_progress = not (waits and self._waited and self._turns == self._last_turns)
        self._waited, self._last_turns = waits, self._turns
        return makes_progress

    async def housekeeping(self, second: int) -> None:
        """Long handshakes give up their places."""
        self._shared.limiter.admit()
        if datetime.now(UTC) - self._expiry_told > DAY:
            self._warn_of_expiry()

    # ---- the supervisor's orders

    def take(self, config: Config, descriptors: list[int]) -> None:
        """Use new settings for new handshakes."""
        if len(descriptors) != len(config.tls.certificates):
            raise OSError("no descriptors for the certificates")
        context, found = prepared(config, Certificates(config.tls.certificates, descriptors))
        shared = self._shared
        shared.context = context
        shared.handshake_time, shared.log_level = config.tls.handshake_time, config.tls.log_level
        shared.limiter.places = config.tls.handshakes
        self._chains = found
        self._warn_of_expiry()


def _is_readable(end: socket.socket) -> bool:
    poll = select.poll()
    poll.register(end.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def prepared(settings: Config, certificates: Certificates) -> tuple[ssl.SSLContext, list[Chain]]:
    """The context for new clients, and the chains in it. ContextError: what is wrong."""
    found = chains(certificates.contents())
    return new_context(settings.tls, found), found
