"""The client's side of the control socket (docs/control.md): `Client` for programs with a loop, `ask` for commands.

Nothing that arrives is trusted: frames are bounded, what is not the protocol ends the connection with a ControlError,
and `record` checks an answer and makes its text printable.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from fastscreen.control import frames
from fastscreen.control.frames import LENGTH, MAX_FROM_DAEMON, MAX_TO_DAEMON, Map
from fastscreen.control.messages import (
    PROTOCOL,
    AnswerKind,
    CancelRequest,
    Event,
    EventsRequest,
    Hello,
    Reply,
    Request,
)
from fastscreen.escaping import cleaned, printable

DEFAULT_PATH = "/run/fastscreen/control"
MAX_BATCHES = 40  # of events, kept for a subscriber that is slow: 10 s at 4 per second
TIMEOUT = 10.0  # s to wait for the greeting or an answer
FULL_PAUSE = 0.25  # s between two attempts while too many connections are in use


class ControlError(Exception):
    """Something about the control socket; the text is one line for a person."""


class Unreachable(ControlError):
    """No fastscreen answers, or the connection is lost."""


class Absent(Unreachable):
    """The socket is missing, or nothing listens at it."""


class Forbidden(Unreachable):
    """This user may not use the socket."""


class Malformed(ControlError):
    """What arrived is not the protocol."""


class Refused(ControlError):
    """The answer is an error: fastscreen's own words."""


class Full(Refused):
    """Too many connections are in use."""


def record(kind: Any, answer: Any) -> Any:
    """An answer as a record of this kind, with all text of it printable. Raises Malformed."""
    try:
        return msgspec.convert(cleaned(answer), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"not fastscreen's protocol: {error!s:.200}") from None


def event(answer: Any) -> Event:
    """One event of a subscription, in the same way. Raises Malformed."""
    found: Event = record(Event, answer)
    return found


def pack(number: int, request: Request[Any]) -> bytes:
    """A request's frame. Raises ControlError when it is too long to send."""
    message = {"id": number, "do": request.verb, **msgspec.to_builtins(request)}
    try:
        return frames.pack(message, MAX_TO_DAEMON)
    except frames.TooLongError as error:
        raise ControlError(f"the request has {error}") from None


def body_length(head: bytes) -> int:
    """The number of bytes in a frame. Raises Malformed."""
    try:
        return frames.body_length(head, MAX_FROM_DAEMON)
    except frames.FrameError as error:
        raise Malformed(f"not fastscreen's protocol: {error}") from None


def unpack(body: bytes) -> Map:
    """The map in a frame. Raises Malformed."""
    try:
        return frames.unpack(body)
    except frames.FrameError as error:
        raise Malformed(f"not fastscreen's protocol: {error}") from None


def reply(message: Map) -> Reply:
    """A frame after the greeting. Raises Malformed."""
    try:
        return msgspec.convert(message, Reply)
    except msgspec.ValidationError as error:
        raise Malformed(f"not fastscreen's protocol: {error!s:.200}") from None


def greeting(message: Map) -> Hello:
    """The first frame, checked. Raises Malformed, Full."""
    if isinstance(message.get("error"), str):
        raise Full(printable(f"{message['error']:.500}"))
    if not isinstance(message.get("fastscreen"), str):
        raise Malformed("not fastscreen's protocol: no greeting")
    if message.get("protocol") != PROTOCOL:
        raise Malformed(f"protocol version {message.get('protocol')!r:.20}; this program speaks version {PROTOCOL}")
    hello: Hello = record(Hello, message)
    return hello


def answer(message: Reply) -> Any:
    """What an answer says. Raises Refused, Malformed."""
    if message.error is not UNSET:
        raise Refused(printable(f"{message.error:.500}"))
    if message.ok is UNSET:
        raise Malformed("not fastscreen's protocol: an answer with neither ok nor error")
    return message.ok


def unreachable(path: str, error: OSError) -> Unreachable:
    """A failure to connect, in plain words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Forbidden(f"{path}: no permission; root, fastscreen's user and members of control.group may use it")
    if error.errno == errno.ENOENT:
        return Absent(f"{path}: no such socket; is fastscreen running?")
    if error.errno == errno.ECONNREFUSED:
        return Absent(f"{path}: connection refused; fastscreen has stopped")
    return Unreachable(f"{path}: {error.strerror or error}")


class Subscription:
    """Batches of events as they come: `async for events, lost in subscription`.

    A reader that is slow loses the oldest batches, and `lost` counts their events.
    """

    def __init__(self, client: Client, request: int) -> None:
        self._client = client
        self._request = request
        self._batches: deque[tuple[list[Any], int]] = deque()
        self._lost = 0
        self._arrived = asyncio.Event()
        self._end: ControlError | None = None

    def put(self, message: Reply) -> None:
        """A frame for this subscription. Raises Malformed."""
        if message.error is not UNSET:
            self.finish(Refused(printable(f"{message.error:.500}")))
            return
        events, lost = message.events, 0 if message.lost is UNSET else message.lost
        if events is UNSET or lost < 0:
            raise Malformed("not fastscreen's protocol: no events for a subscription")
        if len(self._batches) == MAX_BATCHES:
            dropped, missed = self._batches.popleft()
            self._lost += len(dropped) + missed
        self._batches.append((events, lost))
        self._arrived.set()

    def finish(self, error: ControlError) -> None:
        """No more will come."""
        self._end = error
        self._arrived.set()

    async def cancel(self) -> None:
        """Tell fastscreen to stop; what still comes is ignored."""
        self._client.forget(self._request)
        self.finish(Unreachable("cancelled"))
        with contextlib.suppress(ControlError):
            await self._client.request(CancelRequest(of=self._request))

    def __aiter__(self) -> AsyncIterator[tuple[list[Any], int]]:
        return self

    async def __anext__(self) -> tuple[list[Any], int]:
        """The next batch. Raises ControlError when the connection ends or the subscription is cancelled."""
        while not self._batches:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        events, lost = self._batches.popleft()
        lost, self._lost = lost + self._lost, 0
        return events, lost


class Client:
    """One connection. Any number of requests may be under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self.hello = Hello()
        self.path = path
        self._reader = reader
        self._writer = writer
        self._last = 0  # the id of the latest request
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._end: ControlError | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, path: str = DEFAULT_PATH) -> Client:
        """Connect and read the greeting. Raises ControlError."""
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise unreachable(path, error) from None
        client = cls(reader, writer, path)
        try:
            client.hello = greeting(await asyncio.wait_for(client._frame(), TIMEOUT))
        except TimeoutError:
            writer.close()
            raise Unreachable(f"{path}: no greeting within {TIMEOUT:.0f} s") from None
        except ControlError:
            writer.close()
            raise
        client._task = asyncio.create_task(client._read())
        return client

    async def request(self, request: Request[AnswerKind]) -> AnswerKind:
        """The answer to a request. Raises ControlError."""
        number, future = self._send(request)
        try:
            found: AnswerKind = record(request.answer, await asyncio.wait_for(future, TIMEOUT))
            return found
        except TimeoutError:
            raise Unreachable(f"{self.path}: no answer within {TIMEOUT:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    async def subscribe(self, request: EventsRequest) -> Subscription:
        """Follow events. Raises ControlError, Refused when the filter is wrong."""
        number, future = self._send(request)
        subscription = self._subscriptions[number] = Subscription(self, number)
        try:
            await asyncio.wait_for(future, TIMEOUT)
        except TimeoutError:
            self.forget(number)
            raise Unreachable(f"{self.path}: no answer within {TIMEOUT:.0f} s") from None
        except BaseException:
            self.forget(number)
            raise
        finally:
            self._waiting.pop(number, None)
        return subscription

    def forget(self, number: int) -> None:
        """Ignore what comes for a subscription."""
        self._subscriptions.pop(number, None)

    async def close(self) -> None:
        """End the connection; requests under way raise Unreachable."""
        self._finish(Unreachable(f"{self.path}: closed"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _send(self, request: Request[Any]) -> tuple[int, asyncio.Future[Any]]:
        if self._end is not None:
            raise self._end
        frame = pack(self._last + 1, request)
        self._last += 1
        future = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        self._writer.write(frame)
        return self._last, future

    async def _frame(self) -> Map:
        try:
            length = body_length(await self._reader.readexactly(LENGTH))
            return unpack(await self._reader.readexactly(length))
        except asyncio.IncompleteReadError:
            raise Unreachable(f"{self.path}: fastscreen has closed the connection") from None
        except OSError as error:
            raise unreachable(self.path, error) from None

    async def _read(self) -> None:
        try:
            while True:
                self._take(reply(await self._frame()))
        except ControlError as error:
            self._finish(error)

    def _take(self, message: Reply) -> None:
        number = message.id
        if not isinstance(number, int):
            raise Malformed("not fastscreen's protocol: an answer without a number")
        future = self._waiting.get(number)
        if future is not None and not future.done():
            try:
                future.set_result(answer(message))
            except Refused as error:
                future.set_exception(error)
        elif number in self._subscriptions:
            self._subscriptions[number].put(message)

    def _finish(self, error: ControlError) -> None:
        if self._end is not None:
            return
        self._end = error
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        for subscription in self._subscriptions.values():
            subscription.finish(error)


def ask(path: str, request: Request[AnswerKind]) -> AnswerKind:
    """The answer to one request; blocks, at most `TIMEOUT` seconds for each step. Raises ControlError."""
    found: AnswerKind = record(request.answer, ask_raw(path, request))
    return found


def ask_raw(path: str, request: Request[Any]) -> Any:
    """The same as it came, with keys that this program does not know. Raises ControlError."""
    with _greeted(path) as control:
        control.sendall(pack(1, request))
        while (message := reply(_read_frame(control, path))).id != 1:
            pass
        return answer(message)


def look(path: str) -> None:
    """Whether a fastscreen answers; blocks, at most `TIMEOUT` seconds for each step. Raises ControlError."""
    with _greeted(path):
        pass


@contextlib.contextmanager
def _greeted(path: str) -> Iterator[socket.socket]:
    end = time.monotonic() + TIMEOUT
    with contextlib.ExitStack() as stack:
        try:
            while True:
                control = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                control.settimeout(TIMEOUT)
                control.connect(path)
                try:
                    greeting(_read_frame(control, path))
                    break
                except Full:  # others make room, and have time limits
                    control.close()
                    if time.monotonic() >= end:
                        raise
                    time.sleep(FULL_PAUSE)
            yield control
        except TimeoutError:
            raise Unreachable(f"{path}: no answer within {TIMEOUT:.0f} s") from None
        except OSError as error:
            raise unreachable(path, error) from None


def _read_frame(control: socket.socket, path: str) -> Map:
    return unpack(_read_bytes(control, body_length(_read_bytes(control, LENGTH, path)), path))


def _read_bytes(control: socket.socket, count: int, path: str) -> bytes:
    found = bytearray()
    while len(found) < count:
        if not (more := control.recv(count - len(found))):
            raise Unreachable(f"{path}: fastscreen has closed the connection")
        found += more
    return bytes(found)
