"""Injects the faults, one at a time and sometimes two, and waits after each until everything works again."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Sequence

from soak import file_faults, neighbor_faults, process_faults
from soak.faults import FAULTS, Fault
from soak.probes import Probes
from soak.smtp import now
from soak.world import Window, World

__all__ = ["Nemesis", "file_faults", "neighbor_faults", "process_faults"]

PAUSE_SECONDS = (1.0, 3.0)
SHORT_MINUTES = 5.0
"""A run that is shorter leaves out the faults that are marked as long."""
TWO_AT_ONCE = 0.15


def chosen(names: Sequence[str], without: Sequence[str], minutes: float) -> list[str]:
    """The names of the faults of a run. ValueError: an unknown name."""
    for name in (*names, *without):
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; expected one of {', '.join(FAULTS)}")
    if names:
        return [name for name in names if name not in without]
    return [name for name, one in FAULTS.items() if name not in without and not (one.long and minutes < SHORT_MINUTES)]


class Nemesis:
    """The schedule is the seed's; only how long recovery takes is not."""

    def __init__(self, world: World, probes: Probes) -> None:
        self._world = world
        self._probes = probes
        options = world.options
        self._chance = random.Random(options.seed)  # nobody else's: what a fault draws depends on what it finds
        self._names = chosen(options.faults, options.without, options.minutes)
        self._bag: list[str] = []

    async def run(self) -> None:
        """Until the time is over."""
        world = self._world
        end = now() + world.options.minutes * 60
        while now() < end:
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
            faults = [FAULTS[name] for name in self._draw()]
            windows = await asyncio.gather(*map(self._inject, faults))
            last = max(windows, key=lambda window: window.end)
            await self._probes.recover(last)
            if any(one.name.startswith("cache") for one in faults):
                await self._probes.storing(last)
            for window in windows:
                window.recovery, window.recovered = last.recovery, last.recovered
                window.seen, window.problem = last.seen, last.problem
            names = " + ".join(one.name for one in faults)
            world.say(f"  {names}: works after {last.recovery} s", last.seen or "")

    def _draw(self) -> list[str]:
        """Each fault once before any comes twice."""
        drawn: list[str] = []
        for _ in range(2 if len(self._names) > 3 and self._chance.random() < TWO_AT_ONCE else 1):
            if not self._bag:
                self._bag = list(self._names)
                self._chance.shuffle(self._bag)
            # Two that start fastscreen again would be in each other's way, and so would two of the same files.
            if drawn and not _may_meet(FAULTS[drawn[0]], FAULTS[self._bag[-1]]):
                break
            drawn.append(self._bag.pop())
        return drawn

    async def _inject(self, fault: Fault) -> Window:
        world = self._world
        seconds = self._chance.uniform(fault.least, fault.most)
        window = Window(fault.name, now(), float("inf"))
        world.windows.append(window)
        try:
            async with fault.holding(world) as detail:
                window.detail = detail
                world.say(f"fault {fault.name} for {seconds:.0f} s:", detail)
                await asyncio.sleep(seconds)
        except Exception as error:
            traceback.print_exception(error)
            world.violate(f"the tool itself: fault {fault.name}: {error!r}")
        window.end = now()
        return window


def _may_meet(one: Fault, other: Fault) -> bool:
    return not (one.restarts or other.restarts) and one.row != other.row
