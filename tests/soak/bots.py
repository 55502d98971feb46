"""Bad clients. Those of REJECTED must never reach the MTA; the others are a nuisance."""

from __future__ import annotations

import asyncio
import os
import socket

from soak.settings import GREET_SECONDS, LISTED
from soak.smtp import GoneError, Message, Smtp
from soak.traffic import Traffic
from soak.world import World

REJECTED = {"listed": LISTED, "pregreet": "127.67", "pipelining": "127.68", "http": "127.69", "bare LF": "127.70"}
OTHERS = {
    "silent": "127.71",
    "slow reader": "127.72",
    "reset": "127.73",
    "half-close": "127.74",
    "TLS stall": "127.75",
    "TLS garbage": "127.76",
}
MAX_TASKS = 3000
_SPAM = ("EHLO bot", "MAIL FROM:<x@example.com>", "RCPT TO:<b@example.test>")


class Bots:
    """The bad clients of a run."""

    def __init__(self, world: World, traffic: Traffic) -> None:
        self._world = world
        self._traffic = traffic
        self._chance = world.traffic_chance

    async def come(self, rate: float) -> None:
        """One of a random kind, `rate` per second."""
        kinds = [*REJECTED, *REJECTED, *OTHERS]
        while self._traffic.is_on:
            await asyncio.sleep(self._chance.expovariate(rate))
            if len(self._traffic.tasks) < MAX_TASKS:
                self._traffic.spawn(self._one(self._chance.choice(kinds)))

    async def _one(self, kind: str) -> None:
        source = self._world.new_address((REJECTED | OTHERS)[kind])
        self._world.kinds[source] = kind
        self._world.counts[f"bot: {kind}"] += 1
        client = Smtp(source, balancer=kind in REJECTED and self._chance.random() < 0.2)
        try:
            await client.open()
            match kind:
                case "silent":
                    await client.reply(self._chance.uniform(5, 40))
                    await client.reply(self._chance.uniform(5, 40))
                case "reset":
                    await asyncio.sleep(self._chance.uniform(0, 2 * GREET_SECONDS))
                    client.reset()
                case "slow reader":
                    await self._read_slowly(client)
                case "half-close":
                    await self._close_half(client)
                case "TLS stall" | "TLS garbage":
                    await self._stall_in_tls(client, garbage=kind == "TLS garbage")
                case _:
                    await self._spam(client, kind)
        except (GoneError, OSError):
            pass
        finally:
            client.close()

    async def _spam(self, client: Smtp, kind: str) -> None:
        end = b"\n" if kind == "bare LF" else b"\r\n"
        if kind == "pregreet":
            client.send(b"EHLO bot\r\n")
        await client.reply()
        if kind == "http":
            await client.ask("GET / HTTP/1.1")
        if kind == "pipelining":
            client.send(b"".join(line.encode() + end for line in _SPAM))
        code = 0
        for line in _SPAM:
            if kind != "pipelining":
                client.send(line.encode() + end)
            code, _ = await client.reply()
        if code == 250 and (await client.ask("DATA"))[0] == 354:
            client.send(Message("spam", self._chance).body)
            await client.reply()

    async def _read_slowly(self, client: Smtp) -> None:
        await client.reply()
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        for _ in range(15):
            client.send(b"NOOP\r\n")
            await asyncio.sleep(0.2)

    async def _close_half(self, client: Smtp) -> None:
        await client.reply()
        client.send(
            self._chance.choice((b"EHLO bot\r\n", b"EHLO bot\r\nMAIL FROM:<x@example.com>\r\n", b"EHLO b", b""))
        )
        client.writer.write_eof()
        while True:
            await client.reply(20)

    async def _stall_in_tls(self, client: Smtp, *, garbage: bool) -> None:
        await client.reply()
        await client.ask("EHLO bot")
        if (await client.ask("STARTTLS"))[0] == 220:
            if garbage:
                client.send(os.urandom(self._chance.choice((5, 300, 20000))))
            await client.reply(self._chance.uniform(5, 40))
