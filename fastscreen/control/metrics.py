"""/metrics over HTTP/1.0 for Prometheus: one answer a connection, few at a time, nobody is waited for long.

A scrape asks the workers what `status` and `dnsbl` ask them; those answers are shared and spaced (crew.py), so that
whoever scrapes how often, a worker hears two questions in half a second at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from fastscreen.control import stats
from fastscreen.control.context import ServerContext
from fastscreen.control.metric_families import Snapshot, Worker
from fastscreen.control.worker_rpc import Lists, Stats

MAX_SCRAPERS = 8
MAX_REQUEST = 8192  # octets, headers and all
TIMEOUT = 10.0  # s for a request to come, and for its answer to be read
_NO_BODY = b"Content-Length: 0\r\nConnection: close\r\n\r\n"


async def serve(context: ServerContext, listener: socket.socket) -> asyncio.Server:
    """Serve at a listening socket, TCP or Unix."""
    door = _Door(context)
    if listener.family == socket.AF_UNIX:
        return await asyncio.start_unix_server(door.called, sock=listener, limit=MAX_REQUEST)
    return await asyncio.start_server(door.called, sock=listener, limit=MAX_REQUEST)


class _Door:
    def __init__(self, context: ServerContext) -> None:
        self._house = context
        self._scrapers: dict[asyncio.StreamWriter, bool] = {}
        """The oldest first; whether it has asked."""

    async def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._scrapers) >= MAX_SCRAPERS and not self._make_room():
            writer.transport.abort()
            return
        self._scrapers[writer] = False
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT):
                    request = await _request(reader)
                if writer not in self._scrapers:
                    return
                self._scrapers[writer] = True
                writer.write(await self._answer(request))
                writer.close()
                async with asyncio.timeout(TIMEOUT):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._scrapers.pop(writer, None)

    def _make_room(self) -> bool:
        """Hang up on the caller that has been silent for longest, or else on one that does not read its answer."""
        silent = (writer for writer, asked in self._scrapers.items() if not asked)
        deaf = (writer for writer in self._scrapers if writer.transport.get_write_buffer_size())
        victim = next(silent, None) or next(deaf, None)
        if victim is not None:
            del self._scrapers[victim]
            victim.transport.abort()
        return victim is not None

    async def _answer(self, request: tuple[bytes, bytes] | None) -> bytes:
        if request is None:
            return b"HTTP/1.0 400 Bad Request\r\n" + _NO_BODY
        method, path = request
        if method not in (b"GET", b"HEAD"):
            return b"HTTP/1.0 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n" + _NO_BODY
        if path.partition(b"?")[0] != b"/metrics":
            return b"HTTP/1.0 404 Not Found\r\n" + _NO_BODY
        context = self._house
        body = generate_latest(await _snapshot(context))
        head = f"HTTP/1.0 200 OK\r\nContent-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (body if method == b"GET" else b"")


async def _snapshot(context: ServerContext) -> Snapshot:
    status, dnsbl = await stats.status(context), await stats.dnsbl(context)
    answers, lists = (
        await context.worker_rpc.ask_all(Stats()),
        await context.worker_rpc.ask_all(Lists()),
    )  # the same answers again
    workers = {
        str(at + 1): Worker(about, stats.by_name(context, listed or []))
        for at, (about, listed) in enumerate(zip(answers, lists, strict=True))
        if about is not None
    }
    return Snapshot(status, dnsbl, context.rings.details(), workers)


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Method and path, once the headers have ended; None: it is no request, or too long a one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    words = head.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return None
    return words[0], words[1]
