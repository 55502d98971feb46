"""Serve a world that lives by the clock, to look at: `python -m tui SOCKET [SECONDS]` in tests/."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tui.server import FakeServer
from tui.world import World

STEP = 0.25  # s


async def live(path: Path, seconds: float) -> None:
    """Let time pass as it does, for so long."""
    world = World()
    world.cluster = {}
    world.advance(120)
    async with FakeServer(path, world) as server:
        for _ in range(round(seconds / STEP)):
            await asyncio.sleep(STEP)
            world.advance(STEP)
            server.push()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 600.0))
