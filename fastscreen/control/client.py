"""The control socket seen from the client (docs/control.md): `Client` for programs with a loop, `ask` for commands.

What comes is not believed: frames are bounded, and what is not the protocol ends the connection with a ControlError.
What the values mean, and whether their octets may reach a terminal, is the caller's to check.
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

import msgpack  # type: ignore[import-untyped]

DEFAULT_PATH = "/run/fastscreen/control"
PROTOCOL = 1
LENGTH = 4  # octets in front of a frame
MAX_FROM_DAEMON = 1 << 20  # octets of a frame
MAX_TO_DAEMON = 64 << 10
MAX_BATCHES = 40  # of events, kept for a subscriber that is slow: 10 s at 4 a second
TIMEOUT = 10.0  # s to wait for the greeting or an answer
FULL_PAUSE = 0.25  # s between two attempts while all places are in use

Map = dict[str, Any]


class ControlError(Exception):
    """Something about the control socket; the text is one line for a person."""


class Unreachable(ControlError):
    """Nobody is there, nobody answers, or the connection is lost."""


class Absent(Unreachable):
    """There is no socket, or nobody listens at it."""


class Forbidden(Unreachable):
    """The socket is there, and not for this user."""


class Malformed(ControlError):
    """What came is not the protocol."""


class Refused(ControlError):
    """The answer is an error: fastscreen's own words."""


class Full(Refused):
    """There is no place for one more caller just now."""


def packed(message: Map) -> bytes:
    """A frame. Raises ControlError when it is too long to send."""
    body: bytes = msgpack.packb(message)
    if len(body) > MAX_TO_DAEMON:
        raise ControlError(f"the request has {len(body)} octets, more than {MAX_TO_DAEMON}")
    return len(body).to_bytes(LENGTH, "big") + body


def body_length(head: bytes) -> int:
    """The octets behind a frame's length. Raises Malformed."""
    length = int.from_bytes(head, "big")
    if not 0 < length <= MAX_FROM_DAEMON:
        raise Malformed(f"not fastscreen's protocol: a frame of {length} octets")
    return length


def unpacked(body: bytes) -> Map:
    """The map in a frame; text that is not UTF-8 is mended. Raises Malformed."""
    try:
        message = msgpack.unpackb(body, unicode_errors="replace")
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(f"not fastscreen's protocol: {type(error).__name__} in a frame") from None
    if not isinstance(message, dict):
        raise Malformed("not fastscreen's protocol: a frame without a map")
    return message


def greeting(message: Map) -> Map:
    """The first frame, checked. Raises Malformed, Full."""
    if isinstance(message.get("error"), str):
        raise Full(f"{message['error']:.500}")
    if not isinstance(message.get("fastscreen"), str):
        raise Malformed("not fastscreen's protocol: no greeting")
    if message.get("protocol") != PROTOCOL:
        raise Malformed(f"protocol version {message.get('protocol')!r:.20}, this program speaks {PROTOCOL}")
    return message


def answer(message: Map) -> Any:
    """What an answer says. Raises Refused, Malformed."""
    if "error" in message:
        raise Refused(f"{message['error']:.500}" if isinstance(message["error"], str) else "refused, without a reason")
    if "ok" not in message:
        raise Malformed("not fastscreen's protocol: an answer that is none")
    return message["ok"]


def unreachable(path: str, error: OSError) -> Unreachable:
    """The same in plain words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Forbidden(f"{path}: no permission; root, the screening user and members of control.group may use it")
    if error.errno == errno.ENOENT:
        return Absent(f"{path}: there is no such socket; is fastscreen running?")
    if error.errno == errno.ECONNREFUSED:
        return Absent(f"{path}: nobody answers; fastscreen has stopped")
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

    def put(self, message: Map) -> None:
        """A frame for this subscription. Raises Malformed."""
        if "error" in message:
            self.finish(Refused(f"{message['error']!s:.500}"))
            return
        events, lost = message.get("events"), message.get("lost", 0)
        if not isinstance(events, list) or not isinstance(lost, int) or lost < 0:
            raise Malformed("not fastscreen's protocol: events that are none")
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
            await self._client.request("cancel", of=self._request)

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
        self.hello: Map = {}
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

    async def request(self, verb: str, **arguments: Any) -> Any:
        """What fastscreen answers to a verb. Raises ControlError."""
        number, future = self._send(verb, arguments)
        try:
            return await asyncio.wait_for(future, TIMEOUT)
        except TimeoutError:
            raise Unreachable(f"{self.path}: no answer within {TIMEOUT:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    async def subscribe(self, filter: str = "", rate: int = 200, recent: int = 100) -> Subscription:
        """Follow events. Raises ControlError, Refused when the filter is wrong."""
        number, future = self._send("events", {"filter": filter, "rate": rate, "recent": recent})
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
        """End the connection; whoever waits is told."""
        self._finish(Unreachable(f"{self.path}: closed"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _send(self, verb: str, arguments: Map) -> tuple[int, asyncio.Future[Any]]:
        if self._end is not None:
            raise self._end
        frame = packed({"id": self._last + 1, "do": verb, **arguments})
        self._last += 1
        future = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        self._writer.write(frame)
        return self._last, future

    async def _frame(self) -> Map:
        try:
            length = body_length(await self._reader.readexactly(LENGTH))
            return unpacked(await self._reader.readexactly(length))
        except asyncio.IncompleteReadError:
            raise Unreachable(f"{self.path}: fastscreen has closed the connection") from None
        except OSError as error:
            raise unreachable(self.path, error) from None

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._frame())
        except ControlError as error:
            self._finish(error)

    def _take(self, message: Map) -> None:
        number = message.get("id")
        if not isinstance(number, int):
            raise Malformed("not fastscreen's protocol: an answer to nothing")
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


def ask(path: str, verb: str, **arguments: Any) -> Any:
    """What fastscreen answers to one request; blocks, at most `TIMEOUT` seconds for each step. Raises ControlError."""
    with _greeted(path) as control:
        control.sendall(packed({"id": 1, "do": verb, **arguments}))
        while (message := _read_frame(control, path)).get("id") != 1:
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
    return unpacked(_read_octets(control, body_length(_read_octets(control, LENGTH, path)), path))


def _read_octets(control: socket.socket, count: int, path: str) -> bytes:
    octets = bytearray()
    while len(octets) < count:
        if not (more := control.recv(count - len(octets))):
            raise Unreachable(f"{path}: fastscreen has closed the connection")
        octets += more
    return bytes(octets)
