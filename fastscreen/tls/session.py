"""One client in TLS: its socket, the worker's end of the plaintext, and what is on its way between them.

Each direction holds at most one read of CHUNK bytes that the other side has not taken; nothing more is read until they
are taken. The loop's readers and writers are used directly, because a transport would discard the screener's last
reply when a write to it fails.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any

from msgspec import Struct

from fastscreen.tls.handshake_limiter import HandshakeLimiter
from fastscreen.tls.tunnel import Tunnel

CHUNK = 65536
READS = 16  # of one side in a turn
END_SECONDS = 30.0  # for the client to take some of what is left when the screener is gone
ENDS = 10  # so often at most
LATE = 0.2  # s: a timer so late says that this process stood still
LATE_GRACE = 0.05  # s: after that, what came meanwhile has its turn first


class TlsShared(Struct):
    """What a process's sessions share. handshake_time: s. say: logs a line. failed: logs an error of this program's.
    ended: is told of each that is over."""

    loop: asyncio.AbstractEventLoop
    context: SSLContext
    limiter: HandshakeLimiter[Session]
    handshake_time: float
    log_level: int
    say: Callable[[str], object]
    failed: Callable[[str, BaseException], object]
    ended: Callable[[Session], object]
    buffer: memoryview


class Session:
    """From the worker's packet to the end of both sockets, which are closed here."""

    def __init__(self, shared: TlsShared, client: socket.socket, plain: socket.socket, name: str) -> None:
        """name: `[address]:port`, for the log."""
        self._shared = shared
        self._client, self._plain = client, plain
        self._name = name
        self._tunnel: Tunnel | None = None
        self._to_client: bytes | memoryview = b""
        self._to_plain: bytes | memoryview = b""
        self._client_ended = self._plain_ended = self._plain_told = False
        self._closing = self._over = False
        self._sent = self._ends = 0  # bytes to the client; how often it was looked at since the screener has gone
        self._reading_client = self._writing_client = self._reading_plain = self._writing_plain = False
        self._timer: asyncio.TimerHandle | None = None
        shared.say(f"CONNECT from {name}")

    def start(self) -> None:
        """Wait for the client's first bytes: until then, it costs next to nothing."""
        shared = self._shared
        self._set_timer(shared.handshake_time, self._handshake_failed)
        self._watch()

    # ---- what the loop calls

    def _safely(self, step: Callable[..., object], *rest: Any) -> None:
        """Every call from the loop: a fault in this program ends this client's session, and no other."""
        try:
            step(*rest)
        except Exception as error:
            self._shared.failed("a TLS session", error)
            self.end()

    def _set_timer(self, seconds: float, step: Callable[..., object], *rest: Any) -> None:
        """Call later. When this process stood still meanwhile, what came in time comes first."""
        loop = self._shared.loop
        due = loop.time() + seconds

        def over() -> None:
            if loop.time() > due + LATE:
                self._timer = loop.call_later(LATE_GRACE, self._safely, step, *rest)
            else:
                self._safely(step, *rest)

        self._timer = loop.call_later(seconds, over)

    def _client_ready(self) -> None:
        if self._tunnel is None:
            shared = self._shared
            self._reading_client = False
            shared.loop.remove_reader(self._client.fileno())
            shared.limiter.enter(self)
            return
        self._read_on(self._reads_client, self._read_client)

    def _read_client(self) -> bool:
        """Read once. False: there is no more now."""
        tunnel, buffer = self._tunnel, self._shared.buffer
        assert tunnel is not None
        try:
            got = self._client.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lost()
            return False
        if got:
            tunnel.feed(buffer[:got])
        else:
            tunnel.feed_end()
            self._client_ended = True
        self._go_on(tunnel)
        return True

    def _read_on(self, wanted: Callable[[], bool], read: Callable[[], bool]) -> None:
        """Read until there is no more: when the other end is lost, libuv tells that once and then is silent."""
        for _ in range(READS):
            if self._over or not wanted() or not read():
                return
        self._shared.loop.call_soon(self._safely, self._read_on, wanted, read)

    def _reads_client(self) -> bool:
        return self._reading_client

    def _reads_plain(self) -> bool:
        return self._reading_plain

    def begin(self) -> None:
        """Its turn has come."""
        self._safely(self._begin)

    def _begin(self) -> None:
        if not self._over:
            self._tunnel = Tunnel(self._shared.context)
            self._watch()
            self._client_ready()

    def _plain_ready(self) -> None:
        if self._tunnel is None or not self._tunnel.open:
            # The screener never speaks first: this is its farewell, which nobody could read.
            self._handshake_failed()
        else:
            self._read_on(self._reads_plain, self._read_plain)

    def _read_plain(self) -> bool:
        """Read once. False: there is no more now."""
        tunnel, buffer = self._tunnel, self._shared.buffer
        assert tunnel is not None
        try:
            got = self._plain.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            got = 0
        if got:
            tunnel.write(buffer[:got])
            self._go_on(tunnel)
            return True
        tunnel.finish()
        self._plain_ended = True
        self._closing = hung_up(self._plain)
        self._to_plain = b"" if self._closing else self._to_plain
        self._limit_end()
        self._go_on(tunnel)
        return False

    def _writable(self) -> None:
        assert self._tunnel is not None  # before it there is nothing to write
        self._go_on(self._tunnel)

    # ---- what is on its way

    def _go_on(self, tunnel: Tunnel) -> None:
        """Carry on as far as both sides take it."""
        if not tunnel.open and not self._handshake(tunnel):
            return
        try:
            self._inwards(tunnel)
        except OSError:  # the screener has closed its end; its last word may still be there
            self._to_plain = b""
            self._plain_told = True
        try:
            self._outwards(tunnel)
        except OSError:
            self._lost()
            return
        both_ended = self._plain_ended and self._plain_told and not self._to_plain
        if tunnel.broken or ((self._closing or both_ended) and not self._to_client):
            self.end()
        else:
            self._watch()

    def _handshake(self, tunnel: Tunnel) -> bool:
        """False: not over yet, or failed."""
        shared = self._shared
        if not tunnel.shake_hands():
            try:
                self._outwards(tunnel)
            except OSError:
                tunnel.broken = "connection lost"
            if tunnel.broken or self._client_ended:
                if shared.log_level:
                    shared.say(f"SSL_accept error from {self._name}: {tunnel.broken or 'lost connection'}")
                self._handshake_failed()
            else:
                self._watch()
            return False
        shared.limiter.leave(self)
        self._cancel_timer()
        self._to_plain = tunnel.version_byte()  # the core's history records it
        if shared.log_level:
            shared.say(f"Anonymous TLS connection established from {self._name}: {tunnel.summary()}")
        return True

    def _inwards(self, tunnel: Tunnel) -> None:
        """From the client to the screener. OSError: the screener is gone."""
        buffer = self._shared.buffer
        while not self._plain_told:
            if self._to_plain:
                self._to_plain = rest(self._plain, self._to_plain)
                if self._to_plain:
                    return
            got = tunnel.read(buffer)
            if not got:
                break
            left = rest(self._plain, buffer[:got])
            self._to_plain = bytes(left)
        if (tunnel.ended or tunnel.broken) and not self._plain_told:
            self._plain_told = True
            self._plain.shutdown(socket.SHUT_WR)

    def _outwards(self, tunnel: Tunnel) -> None:
        """From the screener, or from TLS itself, to the client. OSError: the client is gone."""
        while True:
            if not self._to_client:
                self._to_client = tunnel.to_client()
                if not self._to_client:
                    break
            size = len(self._to_client)
            self._to_client = bytes(rest(self._client, self._to_client))
            self._sent += size - len(self._to_client)
            if self._to_client:
                self._limit_end()
                return
        if self._plain_ended:
            self._client.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        """Let the loop call for what can go on, and for nothing else."""
        loop = self._shared.loop
        is_open = self._tunnel is not None and self._tunnel.open
        room = not self._to_client and not self._to_plain
        read_client = room and not self._client_ended and not self._closing and not (is_open and self._plain_told)
        read_plain = not self._plain_ended and not (is_open and self._to_client)
        if read_client != self._reading_client:
            self._reading_client = read_client
            if read_client:
                loop.add_reader(self._client.fileno(), self._safely, self._client_ready)
            else:
                loop.remove_reader(self._client.fileno())
        if read_plain != self._reading_plain:
            self._reading_plain = read_plain
            if read_plain:
                loop.add_reader(self._plain.fileno(), self._safely, self._plain_ready)
            else:
                loop.remove_reader(self._plain.fileno())
        if bool(self._to_client) != self._writing_client:
            self._writing_client = not self._writing_client
            if self._writing_client:
                loop.add_writer(self._client.fileno(), self._safely, self._writable)
            else:
                loop.remove_writer(self._client.fileno())
        if bool(self._to_plain) != self._writing_plain:
            self._writing_plain = not self._writing_plain
            if self._writing_plain:
                loop.add_writer(self._plain.fileno(), self._safely, self._writable)
            else:
                loop.remove_writer(self._plain.fileno())

    # ---- the end

    def _handshake_failed(self) -> None:
        self._shared.say(f"TLS handshake failed for service=smtpd peer={self._name}")
        self.end()

    def _lost(self) -> None:
        """The client is gone."""
        if self._tunnel is not None and not self._tunnel.open:
            self._handshake_failed()
        else:
            self.end()

    def _limit_end(self) -> None:
        """What is left for the client is stuck: see later whether the screener still is there."""
        if self._timer is None:
            self._set_timer(END_SECONDS, self._look_at_end, self._sent)

    def _look_at_end(self, sent: int) -> None:
        self._timer = None
        if self._closing or hung_up(self._plain):
            self._ends += 1
            if self._sent == sent or self._ends == ENDS:
                self.end()
                return
        if self._to_client or self._plain_ended:
            self._limit_end()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Close both sockets. The screener sees a hang-up, if it has not ended itself."""
        if self._over:
            return
        self._over = True
        shared = self._shared
        self._cancel_timer()
        try:
            for each in (self._client, self._plain):
                shared.loop.remove_reader(each.fileno())
                shared.loop.remove_writer(each.fileno())
                each.close()
        finally:
            shared.limiter.leave(self)
            shared.say(f"DISCONNECT {self._name}")
            shared.ended(self)


def rest(to: socket.socket, data: bytes | memoryview) -> bytes | memoryview:
    """Send, and return what was not taken. OSError: the connection is lost."""
    try:
        return data[to.send(data) :]
    except (BlockingIOError, InterruptedError):
        return data


def hung_up(end: socket.socket) -> bool:
    """Whether the other end is closed, and not only for writing."""
    poll = select.poll()
    poll.register(end.fileno(), 0)  # POLLHUP and POLLERR are told in any case
    return bool(poll.poll(0))
