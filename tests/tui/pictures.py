"""The pictures of the view for the pages: `python -m tui.pictures ../docs/pictures` in tests/.

Those of the present are from a demo as it runs, those of the past and of networks from the simulated daemon, which has
recorded days and remembers weeks. With `past` as a further argument, only the latter are taken.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from fastscreen.control.client import ask
from fastscreen.control.messages import StoryRequest
from fastscreen.demo import client_kinds
from fastscreen.demo.processes import Processes
from fastscreen.tui.app import Viewer
from fastscreen.tui.palette import FASTSCREEN
from fastscreen.tui.picture import standalone
from fastscreen.tui.views.connections import ConnectionsView
from tui.memory_world import Remembered
from tui.past_world import BOT
from tui.pilot import front_door, seen

SIZE = (100, 30)
TALL = (100, 38)  # a whole story
HISTORY = 95  # s: until the chart is full


async def take(stage: Processes, folder: Path) -> None:
    """Look at the demo for a while, then take the pictures."""
    app = Viewer([stage.control])

    def picture(name: str) -> None:
        (folder / f"{name}.svg").write_text(standalone(app.export_screenshot()), encoding="utf-8")

    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.theme = FASTSCREEN.name  # without a terminal, its colors are unknown
        await asyncio.sleep(HISTORY)
        picture("overview")
        app.go_to(ConnectionsView)
        await seen(pilot, "by age", "EHLO", "pregreet")
        await pilot.press("s")
        await seen(pilot, "by score")
        await asyncio.sleep(1)
        picture("connections")
        await pilot.resize_terminal(*TALL)
        app.open_story(refused(stage))
        await seen(pilot, "Timeline", "disconnect")
        picture("story")


def refused(stage: Processes) -> str:
    """A client on several lists that came once, and is gone."""
    told = [ask(stage.control, StoryRequest(client_kinds.LISTED.address(number))) for number in range(100)]
    once = [story for story in told if [event.kind for event in story.events].count("disconnect") == 1]
    return max(once, key=lambda story: sum(answer.state == "listed" for answer in story.lists)).address


async def take_past(folder: Path) -> None:
    """Go to a minute with a wave of rejected clients."""
    with tempfile.TemporaryDirectory() as made:
        async with front_door(Path(made), size=SIZE) as (app, pilot, server):

            def picture(name: str) -> None:
                (folder / f"{name}.svg").write_text(standalone(app.export_screenshot()), encoding="utf-8")

            app.theme = FASTSCREEN.name
            server.remembered = Remembered()
            await pilot.press("w")
            await seen(pilot, "262 networks, worst first")
            picture("networks")
            server.remembered = None
            await pilot.press("0", "v", "home")
            await seen(pilot, "Rejected on", "Enter goes to 19:33")
            picture("heat-map")
            await pilot.press("enter")
            await seen(pilot, "Verdicts of the minute")
            picture("past")
            await pilot.resize_terminal(*TALL)
            app.open_story(BOT)
            await seen(pilot, "recorded session 1 of")
            picture("past-story")


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    if sys.argv[2:] != ["past"]:
        with Processes() as made:
            asyncio.run(take(made, Path(sys.argv[1])))
    asyncio.run(take_past(Path(sys.argv[1])))
