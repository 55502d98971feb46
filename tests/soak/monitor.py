"""Looks at fastscreen's processes: memory, descriptors, threads, CPU."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from msgspec import Struct

from soak.world import World

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


class Sample(Struct, frozen=True):
    """One process. memory: private (anonymous) memory in bytes. cpu: s."""

    kind: str
    state: str
    memory: int
    descriptors: int
    threads: int
    cpu: float


def sample(world: World) -> dict[int, Sample]:
    """All processes of fastscreen, by pid."""
    found = {}
    for pid, kind in world.all_processes().items():
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            memory = next(
                int(line.split()[1]) << 10
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("RssAnon")
            )
            descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            cpu = (int(fields[11]) + int(fields[12])) / _TICK
            found[pid] = Sample(kind, fields[0], memory, descriptors, int(fields[17]), cpu)
    return found


async def watch(world: World) -> None:
    """Note every second which workers there are, so that the log can be judged by it."""
    while True:
        world.all_processes()
        await asyncio.sleep(1.0)
