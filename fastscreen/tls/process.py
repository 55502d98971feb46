"""A TLS process: takes clients from the workers, and does nothing else. It may end at any time and be started anew."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import select
import socket
import ssl
from datetime import UTC, datetime, timedelta

import uvloop
from msgspec import Struct

from fastscreen.config import Config
from fastscreen.escaping import one_line
from fastscreen.process import child, ipc
from fastscreen.process import fd_passing as fds
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Failed, Ready, Reload, ReopenLog
from fastscreen.process.log_output import LogTarget
from fastscreen.process.loop_errors import LoopErrors
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.context import Chain, ContextError, chains, new_context
from fastscreen.tls.expiry import validity
from fastscreen.tls.handshake_limiter import HandshakeLimiter
from fastscreen.tls.session import CHUNK, Session, TlsShared

_PR_SET_NAME = 15
NAME = b"fastscreen-tls"  # as top and ps show it, at most 15 octets
NICENESS = 5  # where there is not CPU enough, screening goes first
BATCH = 32  # clients taken from the workers in one turn: those in TLS are not kept waiting by a burst
END_SECONDS = 5.0  # for clients to take the screener's last words
DAY = timedelta(days=1)
RESERVED_DESCRIPTORS = 50  # that are nobody's client


class TlsArgs(Struct, frozen=True):
    """What a TLS process has. number: from 0. channel: to the supervisor. clients: where workers send them, the same
    for every process.

    ready: one shared octet, 1 while this process takes clients. certificates: as read at the start. pulse: an octet
    that changes every second, as long as clients are taken. conditions: of this process.
    """

    number: int
    channel: socket.socket
    clients: socket.socket
    ready: memoryview
    certificates: Certificates
    pulse: memoryview
    conditions: Conditions


class TlsProcess:
    """One from start to end, in a process of its own that is already the user without rights."""

    def __init__(self, settings: Config, target: LogTarget, args: TlsArgs) -> None:
        self._config = settings
        self._target = target
        self._log = target.log
        self._args = args
        self._sessions: set[Session] = set()
        self._flushing = self._paused = False
        self._turns = 0  # of `_take`
        self._exit_code = 0
        self._errors = LoopErrors(self._log, self._give_up)
        self._take = self._errors.guard("taking clients", self._take_some)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = max(1, (soft - RESERVED_DESCRIPTORS) // 2)

    def run(self) -> int:
        """Serve until the supervisor is gone or says so. Exit code 0; else it was told why."""
        os.nice(NICENESS)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME)
        try:
            self._context, self._chains = prepared(self._config, self._args.certificates)
        except ContextError as error:
            with contextlib.suppress(OSError):
                ipc.send(self._args.channel, Failed(f"{self._config.source}: {error}"[:1000], 2))
            return 2
        self._warn_of_expiry()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        self._errors.install(loop)
        self._ended = asyncio.Event()
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
            self._say,
            self._errors.tell,
            self._left,
            memoryview(bytearray(CHUNK)),
        )
        loop.add_reader(self._args.clients.fileno(), self._take)
        loop.add_reader(self._args.channel.fileno(), self._errors.guard("an order of the supervisor", self._ordered))
        self._args.ready[0] = 1
        ipc.send(self._args.channel, Ready())
        ticks = [loop.create_task(self._beat()), loop.create_task(self._tick())]
        await self._ended.wait()
        self._args.ready[0] = 0
        loop.remove_reader(self._args.clients.fileno())
        by = loop.time() + END_SECONDS
        while self._sessions and loop.time() < by:
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            session.end()
        for tick in ticks:
            tick.cancel()
        self._target.close()
        return self._exit_code

    def _give_up(self) -> None:
        """Clients cannot be taken: the supervisor starts another process."""
        self._exit_code = 1
        self._ended.set()

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

    def _say(self, text: str) -> None:
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

    async def _beat(self) -> None:
        """Tell the supervisor that this process works: that clients do not wait while it takes none."""
        waited, turns = False, 0
        while True:
            await asyncio.sleep(child.TICK)
            waits = not self._paused and _is_readable(self._args.clients)
            if not (waits and waited and turns == self._turns):
                child.beat(self._args.pulse)
            waited, turns = waits, self._turns

    async def _tick(self) -> None:
        """Long handshakes give up their places; a log daemon that was restarted is found again."""
        while True:
            await asyncio.sleep(child.TICK)
            try:
                self._shared.limiter.admit()
                if datetime.now(UTC) - self._expiry_told > DAY:
                    self._warn_of_expiry()
                self._target.tick()
            except Exception as error:
                self._errors.tell("the TLS process's housekeeping", error)

    # ---- the supervisor's orders

    def _ordered(self) -> None:
        try:
            order, descriptors = ipc.receive_order(self._args.channel)
        except BlockingIOError:
            return
        match order:
            case ReopenLog():
                self._target.reopen()  # what goes wrong, the supervisor tells
            case Reload():
                self._reload(descriptors)
            case _:
                asyncio.get_running_loop().remove_reader(self._args.channel.fileno())
                self._ended.set()

    def _reload(self, descriptors: list[int]) -> None:
        """New handshakes go by the new settings; what cannot be used leaves the old ones whole."""
        report: ipc.Report = Ready()
        memory, *copies = descriptors
        try:
            settings, _ = ipc.read_settings(memory)
            if len(copies) != len(settings.tls.certificates):
                raise OSError("no descriptors for the certificates")
            context, found = prepared(settings, Certificates(settings.tls.certificates, copies))
            shared = self._shared
            shared.context = context
            shared.handshake_time, shared.log_level = settings.tls.handshake_time, settings.tls.log_level
            shared.limiter.places = settings.tls.handshakes
            self._config = settings
            self._chains = found
            self._warn_of_expiry()
        except Exception as error:  # whatever it is: the old one stays
            report = Failed(one_line(error))
        for copy in copies:
            os.close(copy)
        with contextlib.suppress(OSError):
            ipc.send(self._args.channel, report)


def _is_readable(end: socket.socket) -> bool:
    poll = select.poll()
    poll.register(end.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def prepared(settings: Config, certificates: Certificates) -> tuple[ssl.SSLContext, list[Chain]]:
    """The context for new clients, and the chains in it. ContextError: what is wrong."""
    found = chains(certificates.contents())
    return new_context(settings.tls, found), found
