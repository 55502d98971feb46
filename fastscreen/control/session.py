"""One caller at the control socket: frames in, answers and events out, all of it bounded in number, bytes and time."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fastscreen.control import frames, protocol
from fastscreen.control.event_feed import BATCHES_PER_SECOND, Feed
from fastscreen.control.frames import FrameError
from fastscreen.control.messages import Event, Hello, Reply
from fastscreen.control.protocol import Request, RequestError

AT_A_TIME = 8  # requests of one caller
MAX_FEEDS = 8
EVENTS_HELD = 256 << 10  # bytes not taken yet: no events are added
ANSWERS_HELD = 4 << 20  # bytes not taken yet: the caller has left, as far as we are concerned
REQUEST_SECONDS = 10.0  # until the first request is complete, and for each one that has begun
TAKE_SECONDS = 30.0  # in which at least something of what waits must be taken
CLOSE_SECONDS = 5.0  # for the last answers to be taken
STUCK_SECONDS = 1.0  # after which a caller that takes nothing counts as one that does not read
LOOK_SECONDS = 0.05  # between two looks whether a caller has taken its answers

Answer = Callable[["Caller", Request], Awaitable[Any]]


class Caller:
    """uid: who connected, by the kernel's word (SO_PEERCRED). may_act: has the right to change something.

    before_write: is called with the size of each frame before it is sent, and may end callers.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        own_uid: int,
        before_write: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._before_write = before_write
        self._loop = asyncio.get_running_loop()
        self._busy = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: dict[int | float, Feed] = {}
        self._feeding: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._written = 0
        self._taken = 0
        self._stuck_since: float | None = None
        self._request_by: float | None = self._loop.time() + REQUEST_SECONDS
        self._close_by: float | None = None
        self._asked_at = self._taken_at = self._loop.time()
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, self.uid, _ = struct.unpack("iii", peer)
        self.may_act = self.uid in (0, own_uid)
        self.rank = 2 if self.uid == 0 else 1 if self.may_act else 0

    async def serve(self, hello: Hello, answer: Answer) -> None:
        """Talk until either side ends it, and return when the connection is over."""
        self._serving = asyncio.current_task()
        try:
            self._send(msgspec.structs.replace(hello, rights=["read", "act"] if self.may_act else ["read"]))
            while True:
                body = await self._frame()
                await self._busy.acquire()
                self._asked_at = self._loop.time()
                task = self._loop.create_task(self._answer(body, answer))
                self._tasks.add(task)
                task.add_done_callback(self._done)
        except FrameError as error:
            self._send(Reply(error=str(error)))
        except (asyncio.IncompleteReadError, OSError):
            pass  # the caller has left, or will say no more
        except asyncio.CancelledError:
            pass  # by `end`
        finally:
            for task in self._tasks:
                task.cancel()
            if self._feeding is not None:
                self._feeding.cancel()
            self._feeds.clear()
            await self._close()

    async def _close(self) -> None:
        """Give it the last answers, but not for longer than it takes to read them."""
        self._request_by = None
        self._close_by = self._loop.time() + CLOSE_SECONDS
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._writer.transport.abort()

    def end(self) -> None:
        """Whatever is under way is over."""
        self._writer.transport.abort()
        if self._serving is not None:
            self._serving.cancel()

    def refuse(self, why: str) -> None:
        """Say why in the place of a greeting. A new connection has room for it in the kernel, so nothing waits."""
        self._send(Reply(error=why))
        self._writer.close()
        self._loop.call_later(CLOSE_SECONDS, self._writer.transport.abort)

    async def _frame(self) -> bytes:
        head = await self._reader.readexactly(1)
        if self._request_by is None:
            self._request_by = self._loop.time() + REQUEST_SECONDS
        head += await self._reader.readexactly(frames.LENGTH - 1)
        body = await self._reader.readexactly(frames.body_length(head, frames.MAX_TO_DAEMON))
        self._request_by = None
        return body

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy.release()

    async def _answer(self, body: bytes, answer: Answer) -> None:
        while self.held > EVENTS_HELD:  # no work for a caller that does not read
            await asyncio.sleep(LOOK_SECONDS)
        try:
            request = protocol.request(body)  # not earlier: decoded, it may be a hundred times as large
        except FrameError as error:
            self._send(Reply(error=str(error)))
            if self._serving is not None:
                self._serving.cancel()
            return
        try:
            frame = protocol.pack(Reply(request.id, ok=await answer(self, request)))
        except RequestError as error:
            frame = protocol.pack(Reply(request.id, error=str(error)))
        self._write(frame)

    def _send(self, message: Hello | Reply) -> None:
        self._write(protocol.pack(message))

    def _write(self, frame: bytes) -> None:
        if self.held > ANSWERS_HELD:
            self._writer.transport.abort()
            return
        self._before_write(len(frame))
        if not self._writer.is_closing():
            self._written += len(frame)
            self._writer.write(frame)

    # ---- what the choice of who makes room depends on

    @property
    def held(self) -> int:
        """Bytes that wait for it."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def idle(self) -> bool:
        """It asks nothing, and follows no events or does not take them."""
        self._look()
        stuck = self._stuck_since is not None and self._loop.time() >= self._stuck_since + STUCK_SECONDS
        return stuck or not (self._tasks or self._feeds)

    @property
    def follows(self) -> bool:
        """It follows events."""
        return bool(self._feeds)

    @property
    def last_active(self) -> float:
        """When it last asked, or took something; s, monotonic."""
        self._look()
        return max(self._asked_at, self._taken_at)

    def is_overdue(self, now: float) -> bool:
        """Its first request, the rest of a request, or its reading of what waits has taken too long."""
        self._look()
        late = self._stuck_since is not None and now >= self._stuck_since + TAKE_SECONDS
        return late or any(by is not None and now >= by for by in (self._request_by, self._close_by))

    def _look(self) -> None:
        """Note whether it has taken anything since the last look."""
        held, now = self.held, self._loop.time()
        if self._written - held != self._taken:
            self._taken = self._written - held
            self._taken_at = now
            self._stuck_since = None
        if not held:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now

    # ---- subscriptions

    def follow(self, number: int | float, feed: Feed, recent: list[Event]) -> None:
        """Send events from now on, as those of request `number`. RequestError: too many, or the number is taken."""
        if number in self._feeds or len(self._feeds) >= MAX_FEEDS:
            raise RequestError(f"at most {MAX_FEEDS} subscriptions at a time, each with a different id")
        self._feeds[number] = feed
        self._loop.call_soon(self._send_events, number, recent, 0)  # behind the `ok`
        if self._feeding is None:
            self._feeding = self._loop.create_task(self._feed())

    def cancel(self, number: int | float) -> bool:
        return self._feeds.pop(number, None) is not None

    async def _feed(self) -> None:
        while True:
            await asyncio.sleep(1 / BATCHES_PER_SECOND)
            for number, feed in list(self._feeds.items()):
                if self.held < EVENTS_HELD:
                    self._send_events(number, *feed.batch())

    def _send_events(self, number: int | float, events: list[Event], lost: int) -> None:
        if number in self._feeds and (events or lost):
            self._send(Reply(number, events=events, lost=lost))
