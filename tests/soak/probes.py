"""Does everything work? Asked after each fault, until it does."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter

from soak.smtp import GoneError, Message, Smtp, now
from soak.traffic import Traffic
from soak.world import Refusal, Window, World

RECOVERY_SECONDS = 15.0
"""Within this time after the end of a fault everything must work."""
GIVE_UP_SECONDS = 60.0
SERVED_SECONDS = 3.0
"""Known clients are connected to the MTA sooner."""
REMEMBERED_SECONDS = 1.5
"""A client that passed is connected sooner: less than the greet wait."""
_KNOWN = 8
_LOG_TAIL = 400_000

_COUNT_STORED = """
import lmdb, socket, sys
with lmdb.open(sys.argv[1], subdir=False, readonly=True, lock=False).begin() as transaction:
    print(sum(transaction.get(socket.inet_aton(address)) is not None for address in sys.argv[2:]))
"""


class Probes:
    """The checks of a run."""

    def __init__(self, world: World, traffic: Traffic) -> None:
        self._world = world
        self._traffic = traffic

    async def recover(self, window: Window) -> None:
        """Wait until everything works, and note how long it took."""
        began = now()
        seen: Counter[str] = Counter()
        while True:
            round_began = now()
            problems = await self.problems()
            seen.update(re.sub(r"[0-9.]{7,}", "IP", problem) for problem in set(problems))
            if not problems or now() > began + GIVE_UP_SECONDS:
                break
            await asyncio.sleep(0.3)
        window.recovery = round(round_began - began, 1)
        window.recovered = now()
        window.seen = dict(seen)
        where = f"after {window.fault} ({window.detail})"
        if problems:
            window.problem = f"not recovered in {GIVE_UP_SECONDS:.0f} s"
            self._world.violate(f"recovery {where}: {window.problem}: {sorted(set(problems))}")
        elif window.recovery > RECOVERY_SECONDS:
            window.problem = "late"
            self._world.violate(f"recovery {where}: took {window.recovery} s: {window.seen}")

    async def problems(self) -> list[str]:
        """What does not work now."""
        known = [f"127.11.0.{number + 1}" for number in range(_KNOWN)]
        asked = await asyncio.gather(
            self._control(), *(self._known(source) for source in known), *(self._new(number) for number in range(4))
        )
        problems = [problem for problem in asked if problem]
        if missing := await self._not_logged(known):
            problems.append(f"log: {missing} of {len(known)} known clients are missing")
        return problems

    async def _known(self, source: str) -> str:
        client = Smtp(source)
        try:
            await client.open(SERVED_SECONDS)
            code, text = await client.reply(SERVED_SECONDS)
            if code != 220:
                return f"known client: {code} {text[:60]}"
            await client.ask("QUIT", 8)
        except GoneError as error:
            return f"known client: {error}"
        finally:
            client.close()
        return ""

    async def _new(self, number: int) -> str:
        """A newcomer delivers a message, through Continue or after a 450, and is remembered."""
        world = self._world
        source, message = world.new_address("127.12"), Message("probe", world.traffic_chance)
        world.messages.append(message)
        world.kinds[source] = "probe"
        before = world.counts["TLS handshakes"]
        refusal = await self._traffic.deliver(source, message, tls=number % 2 == 0, seconds=8)
        if refusal is not None and refusal.code == 450:
            refusal = await self._traffic.deliver(source, message, seconds=8)
        if refusal is not None:
            return f"newcomer: {refusal.code} {refusal.text}"
        if number % 2 == 0 and world.counts["TLS handshakes"] == before:
            return "newcomer: no STARTTLS"
        await asyncio.sleep(0.3)
        client = Smtp(source)
        try:
            await client.open(5)
            code, _ = await client.reply(5)
            if code != 220 or now() - client.began > REMEMBERED_SECONDS:
                return "newcomer: not remembered"
            await client.ask("QUIT", 8)
        except GoneError as error:
            return f"newcomer again: {error}"
        finally:
            client.close()
        return ""

    async def _control(self) -> str:
        status = await self._world.ask({"do": "status"})
        if status is None:
            return "control socket: no answer"
        if status.get("missing") or len(status["workers"]) != self._world.options.workers:
            return "control socket: workers are missing"
        return ""

    async def _not_logged(self, sources: list[str]) -> int:
        """How many of these clients the end of the log does not name."""
        for _ in range(10):
            try:
                with (self._world.folder / "log/log").open("rb") as log:
                    log.seek(max(0, log.seek(0, 2) - _LOG_TAIL))
                    tail = log.read().decode("latin-1")
            except OSError:
                tail = ""
            missing = sum(f"[{source}]" not in tail for source in sources)
            if not missing:
                break
            await asyncio.sleep(0.2)
        return missing

    async def storing(self, window: Window) -> None:
        """After a fault of the cache: what clients of all workers pass reaches the file again."""
        world, began = self._world, now()
        found, sources = -1, [""]
        while now() < began + GIVE_UP_SECONDS:
            round_began = now()
            sources = [world.new_address("127.12") for _ in range(8)]
            world.kinds |= dict.fromkeys(sources, "probe")
            messages = [Message("probe", world.traffic_chance) for _ in sources]
            world.messages += messages
            tried = await asyncio.gather(*map(self._pass, sources, messages))
            await asyncio.sleep(2.5)
            sources = [source for source, refusal in zip(sources, tried, strict=True) if refusal is None]
            found = await self._stored(sources)
            if sources and found == len(sources):
                window.recovery = max(window.recovery, round(round_began - began, 1))
                if round_began - began > RECOVERY_SECONDS:
                    world.violate(f"recovery after {window.fault}: stored again after {round_began - began:.1f} s")
                return
        window.problem = "nothing is stored"
        world.violate(
            f"after {window.fault} ({window.detail}): {found} of {len(sources)} passes reach the cache's file"
        )

    async def _pass(self, source: str, message: Message) -> Refusal | None:
        refusal = await self._traffic.deliver(source, message, seconds=10)
        return await self._traffic.deliver(source, message, seconds=10) if refusal is not None else None

    async def _stored(self, sources: list[str]) -> int:
        """How many have a record in the file. A child looks: a damaged map would be SIGBUS."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COUNT_STORED, str(self._world.folder / "cache/cache"), *sources),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await child.communicate()
        return int(out) if out.strip().isdigit() else -1
