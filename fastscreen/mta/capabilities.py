"""What the MTAs behind `handoff.continue_to` announce in their reply to EHLO, so that clients are told no more.

It is asked for once at the start, and then learnt from every session that goes on: but for that one, no MTA has to log
connections of ours that bring no mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

from msgspec import Struct

from fastscreen.config.model import Proxy, Target
from fastscreen.core import read_reply
from fastscreen.mta.ehlo_keywords import Keyword, parse_keywords

LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
"""The header, version 2, of a connection that is its sender's own."""

RETRY = 30.0  # s between two questions to an MTA that did not answer
TIMEOUT = 30.0  # s for all of one


class Capabilities(Struct, frozen=True):
    """What an MTA announces. size: of its SIZE, None when it names none; 0: any."""

    keywords: Keyword
    size: int | None

    def both(self, other: Capabilities) -> Capabilities:
        """What two MTAs announce both."""
        sizes = [size for size in (self.size, other.size) if size]
        return Capabilities(self.keywords & other.keywords, min(sizes, default=0))


def parse_capabilities(reply: bytes) -> Capabilities:
    """Read a reply to EHLO; what cannot be read is not announced."""
    keywords = Keyword(0)
    size: int | None = None
    for line in reply.split(b"\n")[1:]:
        word, _, value = line[4:].strip().decode("ascii", "replace").partition(" ")
        keywords |= parse_keywords([word]) & ~Keyword.SILENT if re.fullmatch(r"[A-Za-z0-9-]+", word) else Keyword(0)
        if word.upper() == "SIZE":
            size = int(value) if re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) else 0
    return Capabilities(keywords, size)


class MtaCapabilities:
    """What is known of the MTAs of one configuration.

    use: is told what all announce that are known, whenever that changes.
    """

    def __init__(self, proxy: Proxy, version: int, use: Callable[[Capabilities], object]) -> None:
        self._targets = proxy.targets
        self._version = version
        self._use = use
        self._known: dict[int, Capabilities] = {}

    def learn(self, at: int, reply: bytes) -> int:
        """Target `at` gave this reply to EHLO. Returns its keywords."""
        offer = parse_capabilities(reply)
        if self._known.get(at) != offer:
            self._known[at] = offer
            every = offer
            for other in self._known.values():
                every = every.both(other)
            self._use(every)
        return int(offer.keywords)

    async def ask(self, hostname: str) -> None:
        """Ask each MTA, those that do not answer again and again."""
        while missing := [at for at in range(len(self._targets)) if at not in self._known]:
            for at in missing:
                with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
                    async with asyncio.timeout(TIMEOUT):
                        self.learn(at, await asked(self._targets[at], self._version, hostname))
            await asyncio.sleep(RETRY if len(self._known) < len(self._targets) else 0)


async def asked(target: Target, version: int, hostname: str) -> bytes:
    """An MTA's reply to EHLO. OSError, EOFError, ValueError: it did not give one."""
    if isinstance(target.where, str):
        reader, writer = await asyncio.open_unix_connection(target.where)
    else:
        reader, writer = await asyncio.open_connection(target.where.host, target.where.port)
    try:
        writer.write(LOCAL if version == 2 else own_header(writer))
        await _reply(reader, 220)
        writer.write(f"EHLO {hostname}\r\n".encode())
        offer = await _reply(reader, 250)
        writer.write(b"QUIT\r\n")
        with contextlib.suppress(OSError, EOFError, ValueError):  # it has said what was asked
            await _reply(reader, 221)
        return offer
    finally:
        writer.close()


def own_header(writer: asyncio.StreamWriter) -> bytes:
    """The header, version 1, of a connection that is its sender's own.

    It names the ends that the connection has: Haraka refuses `UNKNOWN`, which is left to Unix sockets, which have none.
    """
    own, mta = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    if not (isinstance(own, tuple) and isinstance(mta, tuple)):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in own[0] else "TCP4"
    return f"PROXY {family} {own[0]} {mta[0]} {own[1]} {mta[1]}\r\n".encode()


async def _reply(reader: asyncio.StreamReader, expected: int) -> bytes:
    reply = b""
    while (read := read_reply(reply)) is None:
        try:
            reply += await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise ValueError("a line without an end") from None
    if read[1] != expected:
        raise ValueError(f"{read[1]} instead of {expected}")
    return reply
