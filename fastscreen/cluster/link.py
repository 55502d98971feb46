"""One connection to a server, with requests in a pipeline: each is sent at once, and replies come in the same order.

Redis-py connects and authenticates. After that, the connection has a protocol of its own, because redis-py's commands
do not fit: a connection that was cancelled between a command and its reply gives the next command the wrong reply
(redis-py #2624, #2665), its pool hands commands one connection each, it retries on its own terms, and its streams wake
a task for each reply. Here a caller that stops waiting does not disturb the others, and any error closes the
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis._parsers import _AsyncHiredisParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from fastscreen.escaping import escape_text, one_line, unexpected

TIMEOUT = 1.0  # s, for a reply
CONNECT_TIMEOUT = 1.0  # s, for a connection; as much again for TLS and the first replies
REPLY_MAX = 4 << 20  # bytes: of 100 values, 50 kB are usual
TEXT_MAX = 200

Command = tuple[bytes | str | int, ...]
_NOT_ENOUGH = object()


_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its own type has one element


class StoreError(ConnectionError):
    """The server cannot be used now; one line. refused: it is connected, but refuses this."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class BoundedParser(_AsyncHiredisParser):
    """Reads no reply of more than REPLY_MAX bytes."""

    __slots__ = ("_taken",)

    async def read_response(self, disable_decoding: bool = False, push_request: bool = False) -> Any:
        self._taken = 0
        return await super().read_response(disable_decoding, push_request)

    async def read_from_socket(self) -> bool:
        read = await self._stream.read(self._read_size) if self._stream is not None else b""
        if not read or self._reader is None:
            raise RedisConnectionError("the server closed the connection")
        self._taken += len(read)
        if self._taken > REPLY_MAX:
            raise RedisConnectionError(f"sent a reply of more than {REPLY_MAX} bytes")
        self._reader.feed(read)
        return True


class _Replies(asyncio.Protocol):
    """Reads replies for a link. before: the protocol that the connection had, which learns of its end."""

    def __init__(self, link: Link, before: asyncio.BaseProtocol) -> None:
        self._link = link
        self._before = before
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BoundedParser.parse_error, notEnoughData=_NOT_ENOUGH
        )
        self._taken = 0

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            self._taken += len(data)
            while (reply := self._reader.gets()) is not _NOT_ENOUGH:
                self._taken = 0
                self._link.take(reply)
            if self._taken > REPLY_MAX:
                raise RedisConnectionError(f"sent a reply of more than {REPLY_MAX} bytes")
        except Exception as error:
            self._link.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self._link.fail(exc or RedisConnectionError("the server closed the connection"))


class _Call:
    """Commands that were sent together, and their replies so far."""

    __slots__ = ("by", "future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], missing: int, by: float) -> None:
        self.future = future
        self.missing = missing
        self.by = by  # s, by the loop's clock
        self.replies: list[Any] = []


class Link:
    """connection: redis-py's, without time-outs, retries and health checks of its own. name: the server, for messages.

    on_push: takes what the server sends unasked, once a channel was subscribed to; after that, nothing else can be
    called.
    """

    def __init__(
        self, connection: AbstractConnection, name: str, on_push: Callable[[Any], object] | None = None
    ) -> None:
        self._connection = connection
        self._name = name
        self._on_push = on_push
        self._calls: deque[_Call] = deque()
        self._awaits_sign = False
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[StoreError] = self._loop.create_future()
        """Done when the connection is of no more use."""

    async def open(self) -> None:
        """Connect, with TLS and authentication where they are configured. StoreError."""
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT):
                await self._connection.connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            await self.close()
            raise StoreError(problem(error, self._name), refused=isinstance(error, AuthenticationError)) from None
        except BaseException:
            await self.close()
            raise
        try:
            self._take_over()
        except RedisError as error:
            self.fail(error)

    def _take_over(self) -> None:
        """From now on, replies come to this object. RedisError: the server has sent what nobody asked for."""
        reader, writer = self._connection._reader, self._connection._writer
        assert reader is not None and writer is not None
        self._transport = writer.transport
        writer.transport.set_protocol(_Replies(self, writer.transport.get_protocol()))
        if reader._buffer:  # type: ignore[attr-defined]
            raise RedisConnectionError("sent a reply to no command")

    async def call(self, *commands: Command) -> list[Any]:
        """Send commands together; return their replies, among them ResponseErrors. StoreError: the connection is lost.

        Cancelling it is harmless: the replies are read all the same.
        """
        if self.lost.done():
            raise StoreError(str(self.lost.result()))
        call = _Call(self._loop.create_future(), len(commands), self._loop.time() + TIMEOUT)
        self._calls.append(call)
        if self._watch is None:
            self._watch = self._loop.call_later(TIMEOUT, self._check)
        assert self._transport is not None
        # What the transport keeps unsent is bounded by the number of calls under way, and by TIMEOUT.
        self._transport.write(b"".join(map(_pack, commands)))
        return await call.future

    def ping_subscription(self) -> None:
        """Ask for a sign of life, which goes to on_push; without one since the last time, the connection is lost."""
        if self._awaits_sign:
            self.lose(StoreError(f"{self._name}: no sign of life from the subscription"))
            return
        self._awaits_sign = True
        if self._transport is not None and not self.lost.done():
            self._transport.write(_pack((b"PING",)))

    def fail(self, error: Exception) -> None:
        """Something went wrong with the connection."""
        self.lose(StoreError(problem(error, self._name)))

    def _check(self) -> None:
        """A call may have waited for too long; one timer is for all of them."""
        self._watch = None
        if self._calls:
            left = self._calls[0].by - self._loop.time()
            if left <= 0:
                self.lose(StoreError(problem(TimeoutError(), self._name)))
            else:
                self._watch = self._loop.call_later(left, self._check)

    def lose(self, error: StoreError) -> None:
        """The connection is of no more use: all who wait for a reply get this error."""
        if self.lost.done():
            return
        if self._watch is not None:
            self._watch.cancel()
        self.lost.set_result(error)
        calls, self._calls = self._calls, deque()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)
                call.future.exception()  # the caller may have stopped waiting

    async def close(self) -> None:
        """Close the connection, without waiting for the server."""
        self.lose(StoreError(f"{self._name}: closed"))
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            # What the server has not taken is not worth waiting for; neither is a TLS farewell.
            writer.transport.abort()
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    def take(self, reply: Any) -> None:
        """The server has sent a reply. RedisError: the connection is of no more use."""
        if isinstance(reply, RedisConnectionError):
            raise reply
        if self._calls:
            self._take(self._calls[0], reply)
        elif self._on_push is not None:
            self._awaits_sign = False
            self._on_push(reply)
        else:
            raise RedisConnectionError("sent a reply to no command")

    def _take(self, call: _Call, reply: Any) -> None:
        call.replies.append(reply)
        call.missing -= 1
        if not call.missing:
            self._calls.popleft()
            if not call.future.done():
                call.future.set_result(call.replies)


def problem(error: BaseException, name: str) -> str:
    """What is wrong with the server, in one printable line."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, RedisConnectionError) and isinstance(cause, OSError) and cause.strerror:
        error = cause  # redis says the same with the address, which is in the name
    match error:
        case TimeoutError():
            return f"{name}: no answer within {TIMEOUT:g} s"
        case AuthenticationError() | NoPermissionError():
            what = "refuses the user or the password"
        case BusyLoadingError():
            what = "is still loading its data"
        case RedisError() | OSError() | ValueError():
            return f"{name}: {escape_text(one_line(error), TEXT_MAX)}"
        case _:
            return f"{name}: {escape_text(unexpected(error), TEXT_MAX)}"
    return f"{name}: {what}: {escape_text(one_line(error), TEXT_MAX)}"
