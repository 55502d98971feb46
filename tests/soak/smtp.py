"""One SMTP connection of a client, in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import socket
import ssl
import struct
import time

from soak.settings import ADDRESS, BALANCER_PORT, PORT

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE
now = time.monotonic


class GoneError(Exception):
    """The connection ended, or nothing came in time."""


class Smtp:
    """source: the client's address. balancer: it comes through a load balancer, which sends a PROXY v1 header."""

    def __init__(self, source: str, *, balancer: bool = False) -> None:
        self.source = source
        self.port = 0
        self.began = 0.0
        self._balancer = balancer

    async def open(self, seconds: float = 60.0) -> None:
        """Connect. GoneError."""
        self.began = now()
        port = BALANCER_PORT if self._balancer else PORT
        local = "127.99.0.1" if self._balancer else self.source
        try:
            self.reader, self.writer = await asyncio.wait_for(
                asyncio.open_connection(ADDRESS, port, local_addr=(local, 0), limit=1 << 17), seconds
            )
        except (OSError, TimeoutError) as error:
            raise GoneError(f"connect: {type(error).__name__}") from None
        self.port = self.writer.get_extra_info("sockname")[1]
        if self._balancer:
            self.send(f"PROXY TCP4 {self.source} {ADDRESS} {self.port} {PORT}\r\n".encode())

    async def reply(self, seconds: float = 60.0) -> tuple[int, str]:
        """Read a reply: code and text. GoneError."""
        text = ""
        while True:
            line = await self.read_line(seconds)
            text += line
            if line[3:4] != "-":
                return int(line[:3]) if line[:3].isdigit() else 0, text.strip()

    async def read_line(self, seconds: float) -> str:
        """The next line, which may be of a reply that goes on. GoneError."""
        try:
            line = (await asyncio.wait_for(self.reader.readline(), seconds)).decode("latin-1")
        except (OSError, TimeoutError, ValueError) as error:
            raise GoneError(type(error).__name__) from None
        if not line.endswith("\n"):
            raise GoneError("end of file")
        return line

    async def ask(self, command: str, seconds: float = 60.0) -> tuple[int, str]:
        """Send a command and read its reply. GoneError."""
        self.send(command.encode() + b"\r\n")
        return await self.reply(seconds)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def start_tls(self) -> None:
        """Make the handshake. GoneError."""
        try:
            await asyncio.wait_for(self.writer.start_tls(TLS), 35)
        except (OSError, TimeoutError) as error:
            raise GoneError(f"TLS: {type(error).__name__}") from None

    def close(self) -> None:
        with contextlib.suppress(AttributeError, OSError, RuntimeError):
            self.writer.close()

    def reset(self) -> None:
        """End it with a RST."""
        with contextlib.suppress(AttributeError, OSError, RuntimeError):
            end = self.writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


class Message:
    """One message of a good client. sent: how often its last line was sent. accepted: s, monotonic; 0: not yet."""

    _numbers = itertools.count(1)

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.name = f"m{next(self._numbers)}"
        self.kind = kind
        size = chance.choice((50, 500, 5000, 50000))
        self.body = (
            f"X-Id: {self.name}\r\nSubject: soak\r\n\r\n".encode() + (b"x" * 70 + b"\r\n") * (size // 72) + b"\r\n.\r\n"
        )
        self.sum = hashlib.sha256(self.body).hexdigest()[:16]
        self.sent = 0
        self.accepted = 0.0
