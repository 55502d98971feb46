"""An SMTP connection of a simulated client."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

TIMEOUT = 30.0  # s for a reply
_MAX_LINE = 4096  # bytes


class SmtpClient:
    """An SMTP client with its own source address. Raises OSError or EOFError if the server disconnects."""

    def __init__(self, server: tuple[str, int], source: str) -> None:
        self._server = server
        self._source = source

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            *self._server, local_addr=(self._source, 0), limit=_MAX_LINE
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    def send(self, data: bytes) -> None:
        """Send without waiting, because a few lines always fit into the kernel's buffer."""
        self._writer.write(data)

    async def read_reply(self) -> bytes:
        """Return the last line of a reply. Raises EOFError at the end of the connection."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                line = await self._reader.readline()
                if not line:
                    raise EOFError
                if line[3:4] != b"-":
                    return line

    async def ask(self, command: bytes) -> bytes:
        """Send a command, and return its reply."""
        self.send(command + b"\r\n")
        return await self.read_reply()

    async def greeting(self) -> bytes:
        """Return the last line of the greeting. The teaser is a previous line of the same reply."""
        return await self.read_reply()

    async def teaser(self) -> None:
        """Wait for the first line of the greeting."""
        async with asyncio.timeout(TIMEOUT):
            if not await self._reader.readline():
                raise EOFError

    async def wait_closed(self) -> None:
        """Wait until the server disconnects."""
        async with asyncio.timeout(TIMEOUT):
            while await self._reader.read(_MAX_LINE):
                pass
