"""The process that simulates the clients and the name server: `python -m fastscreen.demo.load`.

It prints the port of the name server, reads the address of fastscreen (`HOST PORT`), and runs until its standard input
ends, which happens however the demo ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from random import Random

from fastscreen.demo import client_kinds
from fastscreen.demo.clients import BEHAVIORS, Server
from fastscreen.demo.lists import LISTS
from fastscreen.demo.nameserver import NameServer

SEED = 25
RATE = 20.0  # connections per second, on average
WAVE_FIRST, WAVE_INTERVAL = 3.0, 30.0  # s
WAVE_SIZE, WAVE_DURATION = 200, 1.0  # clients, s
MAX_CLIENTS = 600  # simultaneous clients


def arrivals(random: Random) -> Iterator[tuple[float, client_kinds.ClientKind, str]]:
    """Endless connections: (s since the previous one, kind, address). They begin with one client of each kind."""
    regular = [kind for kind in client_kinds.CLIENT_KINDS if kind.share]
    first = regular.copy()
    random.shuffle(first)
    for kind in first:
        yield random.expovariate(RATE), kind, kind.address(0)
    shares = [kind.share for kind in regular]
    while True:
        kind = random.choices(regular, shares)[0]
        yield random.expovariate(RATE), kind, kind.address(random.randrange(kind.members))


class Load:
    """Runs clients."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = Random(SEED + 1)

    async def run(self) -> None:
        """Start clients until cancelled."""
        await asyncio.gather(self._regulars(), self._waves())

    async def _regulars(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for pause, kind, address in arrivals(Random(SEED)):
            due += pause
            await asyncio.sleep(due - loop.time())
            self._begin(kind, address)

    async def _waves(self) -> None:
        random = Random(SEED + 2)
        await asyncio.sleep(WAVE_FIRST)
        while True:
            for number in random.sample(range(client_kinds.BOTNET.members), WAVE_SIZE):
                self._begin(client_kinds.BOTNET, client_kinds.BOTNET.address(number))
                await asyncio.sleep(WAVE_DURATION / WAVE_SIZE)
            await asyncio.sleep(WAVE_INTERVAL)

    def _begin(self, kind: client_kinds.ClientKind, address: str) -> None:
        if len(self._tasks) < MAX_CLIENTS:
            task = asyncio.create_task(self._one(kind, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, kind: client_kinds.ClientKind, address: str) -> None:
        # Being rejected, disconnected or delayed is the purpose of the demo.
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
            await BEHAVIORS[kind](self._server, address, Random(self._random.random()))


async def _main() -> None:
    loop = asyncio.get_running_loop()
    nameserver = NameServer(LISTS)
    print(await nameserver.start(), flush=True)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    host, _, port = (await stdin.readline()).decode().strip().rpartition(" ")
    if not port:
        return
    task = asyncio.create_task(Load((host, int(port))).run())
    await stdin.read()
    task.cancel()


if __name__ == "__main__":
    # Ctrl-C is handled by the main process of the demo.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_main())
