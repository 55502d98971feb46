"""The process that plays the clients and the name server: `python -m fastscreen.demo.crowd`.

It prints the name server's port, reads the screener's address (`HOST PORT`), and plays until its standard input ends:
then the demo has ended, in whatever way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from random import Random

from fastscreen.demo import cast
from fastscreen.demo.clients import BEHAVIOURS, Server
from fastscreen.demo.lists import LISTS
from fastscreen.demo.nameserver import NameServer

SEED = 25
RATE = 20.0  # connections/s, as they come by chance
WAVE_FIRST, WAVE_EVERY = 3.0, 30.0  # s
WAVE_SIZE, WAVE_LENGTH = 200, 1.0  # clients, s
MAX_CLIENTS = 600  # clients at a time; whoever would be more stays away


def arrivals(random: Random) -> Iterator[tuple[float, cast.Part, str]]:
    """Who comes when, for ever: (s after the one before, kind, address). The first of each kind is among the first."""
    regular = [part for part in cast.PARTS if part.share]
    first = regular.copy()
    random.shuffle(first)
    for part in first:
        yield random.expovariate(RATE), part, part.address(0)
    shares = [part.share for part in regular]
    while True:
        part = random.choices(regular, shares)[0]
        yield random.expovariate(RATE), part, part.address(random.randrange(part.members))


class Load:
    """Clients on their way."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._luck = Random(SEED + 1)

    async def play(self) -> None:
        """Send clients until cancelled."""
        await asyncio.gather(self._regulars(), self._waves())

    async def _regulars(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for pause, part, address in arrivals(Random(SEED)):
            due += pause
            await asyncio.sleep(due - loop.time())
            self._begin(part, address)

    async def _waves(self) -> None:
        random = Random(SEED + 2)
        await asyncio.sleep(WAVE_FIRST)
        while True:
            for number in random.sample(range(cast.BOTNET.members), WAVE_SIZE):
                self._begin(cast.BOTNET, cast.BOTNET.address(number))
                await asyncio.sleep(WAVE_LENGTH / WAVE_SIZE)
            await asyncio.sleep(WAVE_EVERY)

    def _begin(self, part: cast.Part, address: str) -> None:
        if len(self._tasks) < MAX_CLIENTS:
            task = asyncio.create_task(self._one(part, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, part: cast.Part, address: str) -> None:
        # Turned away, cut off, kept waiting: all of it is what the demo shows.
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
            await BEHAVIOURS[part](self._server, address, Random(self._luck.random()))


async def _main() -> None:
    loop = asyncio.get_running_loop()
    nameserver = NameServer(LISTS)
    print(await nameserver.start(), flush=True)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    host, _, port = (await orders.readline()).decode().strip().rpartition(" ")
    if not port:
        return
    playing = asyncio.create_task(Load((host, int(port))).play())
    await orders.read()
    playing.cancel()


if __name__ == "__main__":
    # Ctrl-C at the terminal is the demo's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_main())
