"""One SMTP connection of a demo client's."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

TIMEOUT = 30.0  # s for a reply
_MAX_LINE = 4096  # octets


class SmtpClient:
    """Connects from an address of its own. OSError, EOFError: the other side would not, or has hung up."""

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

    def say(self, octets: bytes) -> None:
        """Send, without waiting: a few lines always fit the kernel's buffer."""
        self._writer.write(octets)

    async def hear(self) -> bytes:
        """The last line of one reply. EOFError: there is none any more."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                line = await self._reader.readline()
                if not line:
                    raise EOFError
                if line[3:4] != b"-":
                    return line

    async def ask(self, command: bytes) -> bytes:
        """A command and its reply."""
        self.say(command + b"\r\n")
        return await self.hear()

    async def greeted(self) -> bytes:
        """The greeting proper: a teaser in front of it ends with a line that announces more."""
        return await self.hear()

    async def teased(self) -> None:
        """The first line, whichever it is."""
        async with asyncio.timeout(TIMEOUT):
            if not await self._reader.readline():
                raise EOFError

    async def closed(self) -> None:
        """Wait until the other side has hung up."""
        async with asyncio.timeout(TIMEOUT):
            while await self._reader.read(_MAX_LINE):
                pass
