"""The names of clients that somebody looks at: found behind the scenes, remembered for a time, all of it bounded."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

AT_A_TIME = 16  # look-ups; what is beyond is looked up when it is asked for again
REMEMBERED = 4096  # addresses
KNOWN_SECONDS = 600.0
UNKNOWN_SECONDS = 60.0  # for which no name is an answer


class ClientNames:
    """look_up: an address's name or "", in bounded time. clock: s, monotonic."""

    def __init__(self, look_up: Callable[[str], Awaitable[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()  # until when, name; the oldest first
        self._under_way: dict[str, asyncio.Task[str]] = {}

    def name(self, address: str) -> str:
        """What is known now. "": no name, or not yet; then it is looked up, and an answer a moment later has it."""
        until, name = self._known.get(address, (-math.inf, ""))
        late = self._clock() - until
        if late >= 0:
            self._begin(address)
        return name if late < KNOWN_SECONDS else ""  # while it is asked for again, the old one

    async def found(self, address: str, seconds: float) -> str:
        """The same, after waiting so long for it."""
        name = self.name(address)
        task = self._under_way.get(address)
        if not name and task is not None:
            await asyncio.wait([task], timeout=seconds)
            name = self._known.get(address, (0.0, ""))[1]
        return name

    def _begin(self, address: str) -> None:
        if address not in self._under_way and len(self._under_way) < AT_A_TIME:
            task = asyncio.ensure_future(self._look_up(address))
            self._under_way[address] = task
            task.add_done_callback(lambda task: self._done(address, task))

    def _done(self, address: str, task: asyncio.Task[str]) -> None:
        del self._under_way[address]
        if task.cancelled():
            return
        name = "" if task.exception() is not None else task.result()
        self._known.pop(address, None)
        self._known[address] = (self._clock() + (KNOWN_SECONDS if name else UNKNOWN_SECONDS), name)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()
