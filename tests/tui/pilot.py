"""The application under Textual's own pilot, and its screen as plain lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from textual._context import visible_screen_stack
from textual.pilot import Pilot

from fastscreen.control.client import record
from fastscreen.control.messages import Status
from fastscreen.tui.app import Viewer
from tui.server import FakeServer
from tui.world import World

TIMEOUT = 20.0  # s; only a test that fails waits so long


def driven(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def rows(app: Viewer) -> list[str]:
    """What the screen shows, line by line."""
    visible_screen_stack.set(app._background_screens)  # as the application does: what is in front shows what is behind
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def text(app: Viewer) -> str:
    return "\n".join(rows(app))


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for something that is on its way."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await pilot.pause(0.01)
    await pilot.pause()


async def seen(pilot: Pilot[None], *words: str) -> None:
    """Wait until the screen shows all of this."""
    app = pilot.app
    assert isinstance(app, Viewer)
    try:
        await until(pilot, lambda: all(word in text(app) for word in words))
    except TimeoutError:
        raise AssertionError(f"{words} not on the screen:\n{text(app)}") from None


async def next_poll(pilot: Pilot[None], server: FakeServer) -> None:
    """Wait until the status is asked for again; whatever else the view has asked for has been answered then."""

    def count() -> int:
        return sum(request["do"] == "status" for request in server.asked)

    before = count()
    await until(pilot, lambda: count() > before)


def remember(app: Viewer, server: FakeServer, seconds: int) -> None:
    """Give the view a past: so many polls of the world, without waiting for them."""
    for _ in range(seconds):
        server.world.advance(1.0)
        app.link._take(record(Status, server._do_status({})))


@asynccontextmanager
async def viewing(*servers: FakeServer, size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[Viewer, Pilot[None]]]:
    """The application on these servers, connected to the first."""
    app = Viewer([str(server.path) for server in servers])
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.link.up)
        yield app, pilot


@asynccontextmanager
async def front_door(
    folder: Path, world: World | None = None, size: tuple[int, int] = (80, 24), **named: Any
) -> AsyncIterator[tuple[Viewer, Pilot[None], FakeServer]]:
    """One server with a world of two minutes, and the application on it."""
    if world is None:
        world = World()
    world.advance(120)
    async with FakeServer(folder / "control", world, **named) as server, viewing(server, size=size) as (app, pilot):
        yield app, pilot, server
