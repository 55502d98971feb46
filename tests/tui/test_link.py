"""A daemon that is not there, goes away and comes back; several daemons."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastscreen.tui import link
from fastscreen.tui.app import Viewer
from tui.hub import Hub
from tui.pilot import driven, front_door, remember, seen, text, until, viewing
from tui.world import World


@driven
async def test_not_there_then_there(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "control", World())
    app = Viewer([str(hub.path)])
    async with app.run_test(size=(120, 24)) as pilot:
        await seen(pilot, "there is no such socket; is fastscreen running? (again in ", "nothing is known")
        await hub.start()
        await pilot.press("r")
        await seen(pilot, "● mx1.example.com", "Verdicts")
        assert "no such socket" not in text(app)
        await hub.stop()


@driven
async def test_lost_and_healed(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, hub):
        await pilot.press("2")
        await seen(pilot, "by age", "EHLO ")
        await hub.stop()
        await seen(pilot, "again in ", "EHLO ")  # what was known stays
        await hub.start()
        await seen(pilot, "EHLO ")
        await until(pilot, lambda: app.link.up)
        await until(pilot, lambda: "again in" not in text(app))
        count = len([request for request in hub.asked if request["do"] == "sessions"])
        await until(pilot, lambda: len([request for request in hub.asked if request["do"] == "sessions"]) > count)


@driven
async def test_events_go_on_after_a_lost_connection(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_app, pilot, hub):
        await pilot.press("4")
        await seen(pilot, "200 events")
        await hub.stop()
        await seen(pilot, "again in")
        await hub.start()
        await until(pilot, lambda: [request["do"] for request in hub.asked].count("events") == 2)
        hub.world.visit("denied", "192.0.2.201")
        hub.world.advance(0.01)
        hub.push()
        await seen(pilot, "192.0.2.201")


@driven
async def test_not_fastscreen(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x1b[31m220 ready")
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "control"):
        app = Viewer([str(tmp_path / "control")])
        async with app.run_test(size=(80, 24)) as pilot:
            await seen(pilot, "not fastscreen's protocol: a frame of")


@driven
async def test_a_hub_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastscreen.control.client.TIMEOUT", 0.2)
        async with front_door(tmp_path) as (app, pilot, hub):
            hub.silent.add("status")
            await seen(pilot, "no answer within")
            hub.silent.clear()
            await until(pilot, lambda: app.link.up)


@driven
async def test_several_daemons(tmp_path: Path) -> None:
    one, two = World(seed=1), World(seed=2)
    one.advance(20)
    two.advance(60)
    first, second = Hub(tmp_path / "1", one), Hub(tmp_path / "2", two)
    second.hostname = "mx2.example.com"
    async with first, second, viewing(first, second) as (app, pilot):
        await until(pilot, lambda: all(link.up for link in app.links))
        await seen(pilot, "● mx1.example.com  ● mx2.example.com")
        await pilot.press("2")
        await seen(pilot, f"{len(one.sessions)} connections")
        await pilot.press("right_square_bracket")
        await seen(pilot, f"{len(two.sessions)} connections")
        await pilot.press("left_square_bracket")
        await seen(pilot, f"{len(one.sessions)} connections")
        await pilot.click("#daemons", offset=(36, 0))
        assert app.link.name == "mx2.example.com"
        await second.stop()
        await seen(pilot, "again in")
        await pilot.press("left_square_bracket")
        await seen(pilot, f"{len(one.sessions)} connections")
        assert "again in" not in text(app)


@driven
async def test_history(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, _pilot, hub):
        before = hub.world.counts["connect"]
        remember(app, hub, 10)
        history = app.link.history
        assert len(history) == 10
        assert sum(sample.rates["connect"] for sample in history) == hub.world.counts["connect"] - before
        hub.world.started += 5  # another process now
        hub.world.counts["connect"] = 3
        remember(app, hub, 1)
        assert len(history) == 0
        remember(app, hub, 1)
        assert all(rate >= 0 for rate in history[0].rates.values())
        assert history.maxlen == link.HISTORY
