"""One caller at the control socket: frames in, answers and events out, all of it bounded."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from fastscreen.hub import frames
from fastscreen.hub.feed import A_SECOND, Feed
from fastscreen.hub.frames import FrameError, Request, RequestError

AT_A_TIME = 8  # requests of one caller
FEEDS_MOST = 8
EVENTS_HELD = 256 << 10  # octets not taken yet: no events are added
ANSWERS_HELD = 4 << 20  # octets not taken yet: the caller has left, as far as we are concerned

Map = dict[str, Any]
Answer = Callable[["Caller", Request], Awaitable[Any]]


class Caller:
    """uid: who connected, by the kernel's word. may_act: has the right to change something."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own_uid: int) -> None:
        self._reader = reader
        self._writer = writer
        self._busy = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: dict[int | float, Feed] = {}
        self._feeding: asyncio.Task[None] | None = None
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, self.uid, _ = struct.unpack("iii", peer)
        self.may_act = self.uid in (0, own_uid)

    async def serve(self, hello: Map, answer: Answer) -> None:
        """Talk until either side ends it."""
        try:
            self._send(hello | {"rights": ["read", "act"] if self.may_act else ["read"]})
            while True:
                body = await self._frame()
                await self._busy.acquire()
                task = asyncio.get_running_loop().create_task(self._answer(frames.request(body), answer))
                self._tasks.add(task)
                task.add_done_callback(self._done)
        except FrameError as error:
            self._send({"error": str(error)})
        except (asyncio.IncompleteReadError, OSError):
            pass  # the caller has left
        finally:
            for task in self._tasks:
                task.cancel()
            if self._feeding is not None:
                self._feeding.cancel()
            self._writer.close()

    def end(self) -> None:
        """Whatever is under way is over."""
        self._writer.transport.abort()

    def refuse(self, why: str) -> None:
        self._send({"error": why})
        self._writer.close()

    async def _frame(self) -> bytes:
        length = frames.body_length(await self._reader.readexactly(frames.LENGTH))
        return await self._reader.readexactly(length)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy.release()

    async def _answer(self, request: Request, answer: Answer) -> None:
        try:
            frame = frames.packed({"id": request.id, "ok": await answer(self, request)})
        except RequestError as error:
            frame = frames.packed({"id": request.id, "error": str(error)})
        self._write(frame)

    def _send(self, message: Map) -> None:
        self._write(frames.packed(message))

    def _write(self, frame: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > ANSWERS_HELD:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._writer.write(frame)

    # ---- subscriptions

    def follow(self, number: int | float, feed: Feed, recent: list[Map]) -> None:
        """Send events from now on, as those of request `number`. RequestError: too many, or the number is taken."""
        if number in self._feeds or len(self._feeds) >= FEEDS_MOST:
            raise RequestError(f"at most {FEEDS_MOST} subscriptions at a time, each with an id of its own")
        self._feeds[number] = feed
        loop = asyncio.get_running_loop()
        loop.call_soon(self._send_events, number, recent, 0)  # behind the `ok`
        if self._feeding is None:
            self._feeding = loop.create_task(self._feed())

    def cancel(self, number: int | float) -> bool:
        return self._feeds.pop(number, None) is not None

    async def _feed(self) -> None:
        while True:
            await asyncio.sleep(1 / A_SECOND)
            for number, feed in list(self._feeds.items()):
                if self._writer.transport.get_write_buffer_size() < EVENTS_HELD:
                    self._send_events(number, *feed.batch())

    def _send_events(self, number: int | float, events: list[Map], lost: int) -> None:
        if number in self._feeds and (events or lost):
            self._send({"id": number, "events": events, "lost": lost})
