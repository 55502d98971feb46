"""Good clients: they deliver messages, and come again when they are deferred or lose the connection, as an MTA does."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

from soak.smtp import GoneError, Message, Smtp, now
from soak.world import Refusal, World

KNOWN = [f"127.10.{number // 20}.{number % 20 + 1}" for number in range(60)]
MAX_PENDING = 1500
RETRY_MAX_SECONDS = 8.0
_COMMANDS = ("EHLO good.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.test>", "DATA")


class Traffic:
    """The good clients of a run. `pending`: messages that are not accepted yet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.traffic_chance
        self.pending = 0
        self.is_on = True
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run it as a task. An exception is a bug of this tool, and is shown."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.violate(f"the tool itself: {error!r}")
            traceback.print_exception(error)

    async def known_clients(self, rate: float) -> None:
        """Clients that passed before, `rate` per second."""
        while self.is_on:
            await asyncio.sleep(self._chance.expovariate(rate))
            if self.pending < MAX_PENDING:
                self.spawn(self.send(self._chance.choice(KNOWN), "known"))

    async def new_clients(self, rate: float) -> None:
        """Clients with new addresses: some with STARTTLS, some through a balancer."""
        while self.is_on:
            await asyncio.sleep(self._chance.expovariate(rate))
            if self.pending < MAX_PENDING:
                tls, balancer = self._chance.random() < 0.4, self._chance.random() < 0.2
                self.spawn(self.send(self._world.new_address("127.20"), "new", tls=tls, balancer=balancer))

    async def send(self, source: str, kind: str, *, tls: bool = False, balancer: bool = False) -> None:
        """Deliver one message, however often it takes."""
        world = self._world
        message = Message(kind, self._chance)
        world.messages.append(message)
        world.kinds[source] = kind
        self.pending += 1
        wait = 1.0
        try:
            while (refusal := await self.deliver(source, message, tls=tls, balancer=balancer)) is not None:
                world.refusals.append(refusal)
                if refusal.code >= 500:
                    return
                world.counts[f"{kind}: tried again"] += 1
                await asyncio.sleep(wait + self._chance.random())
                wait = min(wait * 2, RETRY_MAX_SECONDS)
            world.counts[f"{kind}: delivered"] += 1
        finally:
            self.pending -= 1

    async def deliver(
        self, source: str, message: Message, *, tls: bool = False, balancer: bool = False, seconds: float = 60.0
    ) -> Refusal | None:
        """One attempt. None: accepted."""
        client = Smtp(source, balancer=balancer)
        code, text = 0, ""
        try:
            await client.open(seconds)
            code, text = await client.reply(seconds)
            if message.kind == "known":
                self._world.waits.append((now(), now() - client.began))
            commands = list(_COMMANDS)
            if code == 220:
                code, text = await client.ask(commands.pop(0), seconds)
                if code == 250 and tls and "STARTTLS" in text:
                    code, text = await self._start_tls(client, seconds)
            while code in (250, 354) and commands:
                code, text = await client.ask(commands.pop(0), seconds)
            if code == 354:
                client.send(message.body)
                message.sent += 1
                code, text = await client.reply(seconds)
                if code == 250:
                    message.accepted = now()
                    client.send(b"QUIT\r\n")
                    return None
            return Refusal(now(), message.kind, code, f"{source} {text[:100]}")
        except GoneError as error:
            return Refusal(now(), message.kind, 0, f"{source} {error}")
        finally:
            client.close()

    async def _start_tls(self, client: Smtp, seconds: float) -> tuple[int, str]:
        code, _ = await client.ask("STARTTLS", seconds)
        if code != 220:
            self._world.counts[f"STARTTLS: {code}"] += 1
            return 250, ""
        await client.start_tls()
        self._world.counts["TLS handshakes"] += 1
        return await client.ask("EHLO good.example.org", seconds)

    async def make_known(self) -> None:
        """Before the faults: the addresses of known clients pass."""
        for first in range(0, len(KNOWN), 20):
            group = KNOWN[first : first + 20]
            await asyncio.gather(*(self.send(source, "first") for source in group))
