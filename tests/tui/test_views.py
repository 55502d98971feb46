"""Every screen and every key of it, under Textual's pilot."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from textual import events

from fastscreen.tui.table import Table
from fastscreen.tui.views import VIEWS, key_of
from tui.memory_world import Remembered
from tui.pilot import driven, front_door, remember, rows, seen, text, until
from tui.world import KNOWN, World


def asked(server: object, verb: str) -> list[dict[str, object]]:
    return [request for request in getattr(server, "asked") if request["do"] == verb]  # noqa: B009


@driven
async def test_number_keys_and_clicks_go_to_screens(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        for at, kind in enumerate(VIEWS):
            await pilot.press(key_of(at))
            assert type(app.view) is kind
            assert app.view.display
        await pilot.click("#tabs", offset=(5, 0))
        assert app.view.title == "Overview"
        await pilot.click("#tabs", offset=(10, 0))
        assert app.view.title == "Connections"


@driven
async def test_keys_typed_ahead_reach_the_screen_that_they_are_for(tmp_path: Path) -> None:
    """On a slow line they come at once: none is taken for another screen's, and the line has what is typed."""
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("3")
        await seen(pilot, "Press / and type an address")
        for typed in "24/nonsense\x15198.51.100.9\x080/24\r":
            names = {"/": "slash", ".": "full_stop", "\r": "enter", "\x08": "backspace", "\x15": "ctrl+u"}
            key = names.get(typed, typed)
            app.post_message(events.Key(key, typed))
        await seen(pilot, "198.51.100.0/24", "4 Event")
        assert app.view.title == "Events"
        press = {"enter": None, "escape": None, "slash": "/", "space": " "}
        for name in ("2", "slash", "1", "9", "enter", "space"):
            app.post_message(events.Key(name, press.get(name, name)))
        await seen(pilot, "PAUSED: press space to continue")
        for name in ("slash", "8", "escape", "space"):
            app.post_message(events.Key(name, press.get(name, name)))
        await until(pilot, lambda: "PAUSED" not in text(app))
        assert app.view.title == "Connections"
        assert app.view.entry is not None
        assert app.view.entry.value == "198"
        await pilot.press("slash")
        await pilot.click("#tabs", offset=(5, 0))
        assert app.view.title == "Overview"


@driven
async def test_overview(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        remember(app, server, 90)
        await seen(pilot, "connects/s", "known, PASS OLD", "Sessions", "of 10,000", "dead.example.org", "failing")
        await seen(pilot, "1m29s ago", "mx1.example.com", "up 3d01h")
        held = sum(worker["sessions"] for worker in server._do_status({})["workers"])
        assert any(f"Sessions  {held:>8}" in row for row in rows(app))


@driven
async def test_stress_bypass_and_a_silent_worker_are_seen_everywhere(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        server.world.stress = True
        server.world.bypass_until = server.world.time + 1752
        server.world.missing = [2]
        await seen(pilot, " BYPASS 29m12s ", " STRESS ", "1 WORKER DOES NOT ANSWER", " 2 does not answer")
        await pilot.press("8")
        await seen(pilot, " BYPASS 29m12s ", " STRESS ")
        alarms = [segment for segment in app._daemons.render_line(0) if "BYPASS" in segment.text]
        assert [segment.style.bgcolor.name for segment in alarms if segment.style and segment.style.bgcolor] == ["red"]


@driven
async def test_connections_filter_sort_and_story(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        total = len(server.world.sessions)
        await pilot.press("2")
        await seen(pilot, f"{total} connections, sorted by age", "age▾", "EHLO ")
        await pilot.press("s")
        await seen(pilot, "sorted by score", "score▾")
        await pilot.press("s")
        await seen(pilot, "sorted by address", "address▾")
        await pilot.press("s")
        await seen(pilot, "sorted by age")
        await pilot.press("slash", *"score>", "enter")
        await seen(pilot, "filter: score>: a number is missing; example: score>=3")
        await pilot.press("slash", *"=3", "enter")
        bad = [session for session in server.world.sessions.values() if (session["score"] or 0) >= 3]
        await seen(pilot, f"{len(bad)} of {total} connections")
        table = app.view.query_one(Table)
        assert {row.cells[0][0] for row in table.rows} == {session["address"] for session in bad}
        address = table.rows[1].cells[0][0]
        await pilot.press("down", "enter")
        await seen(pilot, "3 Story", f" {address}", "Timeline", "waits for 6.0s")
        await pilot.press("escape")
        assert app.view.title == "Connections"


@driven
async def test_heading_sorts(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_app, pilot, _):
        await pilot.press("2")
        await seen(pilot, "sorted by age", "EHLO ")
        await pilot.click(Table, offset=(3, 0))
        await seen(pilot, "sorted by address", "address▾")


@driven
async def test_pause_freezes_the_table_and_not_the_counters(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("2")
        await seen(pilot, "sorted by age", "EHLO ")
        await pilot.press("space")
        await seen(pilot, "PAUSED")
        before = list(app.view.query_one(Table).rows)
        for _ in range(60):
            server.world.visit("silent", "192.0.2.99")
        total = len(server.world.sessions)
        await seen(pilot, f"{total} connections")
        assert app.view.query_one(Table).rows == before
        assert asked(server, "sessions")[-1]["limit"] == 1
        await pilot.press("space")
        await until(pilot, lambda: app.view.query_one(Table).rows != before)
        assert "PAUSED" not in text(app)


@driven
async def test_at_most_200_rows(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        for at in range(300):
            server.world.visit("silent", f"192.0.2.{at % 250}")
        await pilot.press("2")
        await seen(pilot, ", 200 shown")
        assert len(app.view.query_one(Table).rows) == 200


@driven
async def test_story(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(100, 60)) as (app, pilot, server):
        world = server.world
        world.visit("pregreet", "192.0.2.77")
        world.advance(10)
        world.visit("known", "192.0.2.77")
        world.advance(0.1)
        world.cache["192.0.2.77"] = {"pregreet": world.time + 3600, "dnsbl": world.time - 60, "pipelining": "new"}
        await pilot.press("3")
        await seen(pilot, "Press / and type an address")
        await pilot.press("slash", *"nonsense", "enter")
        await seen(pilot, "story: 'nonsense' is not an address")
        await pilot.press("slash", "ctrl+u", *"192.0.2.77", "enter")
        await seen(pilot, "now: handoff for 100ms", "failed ", "pregreet")
        await seen(pilot, "zen.spamhaus.org", "dead.example.org", "failed")
        await seen(
            pilot, "pregreet           1h00m left, until", "dnsbl              expired 1m00s ago", "not passed yet"
        )
        await seen(
            pilot, "events are complete since", "+0.000", "bytes: EHLO ", "550 5.7.1 Service unavailable", "PASS OLD"
        )
        times = [float(row.split()[0]) for row in rows(app) if row.strip().startswith("+")]
        assert times == sorted(times)
        assert times[0] == 0.0
        await pilot.press("slash", "ctrl+u", *"192.0.2.250", "enter")
        await seen(pilot, "192.0.2.250   now: not connected", "no entry: every test is due", "no event of this")


@driven
async def test_events_follow_filter_pause_and_lost(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("4")
        await seen(pilot, "200 events", "disconnect")
        await pilot.press("slash", *"kind:denylisted", "enter")
        await until(pilot, lambda: asked(server, "events")[-1]["filter"] == "kind:denylisted")
        await until(pilot, lambda: {row.cells[2][0] for row in app.view.query_one(Table).rows} == {"denylisted"})
        assert asked(server, "cancel")
        server.world.visit("denied", "192.0.2.201")
        server.world.advance(0.01)
        server.lost = 1234
        server.push()
        await seen(pilot, "1,234 lost", "1,234 events are missing", "192.0.2.201")
        await pilot.press("space")
        await seen(pilot, "PAUSED")
        server.world.visit("denied", "192.0.2.202")
        server.world.advance(0.01)
        before = rows(app)[4:]
        server.push()
        await until(pilot, lambda: "202" in str(app.view.exported()))
        assert rows(app)[4:] == before
        await pilot.press("space")
        await seen(pilot, "192.0.2.202")
        await pilot.press("enter")
        await seen(pilot, "3 Story", " 192.0.2.202   now: not connected")
        await pilot.press("4", "slash", "ctrl+u", *"score>", "enter")
        await seen(pilot, "a number is missing")


@driven
async def test_dnsbl(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(110, 24)) as (app, pilot, _hub):
        await pilot.press("5")
        await seen(pilot, "7 lists, threshold 3", "2 unhealthy")
        line = next(row for row in rows(app) if "zen.spamhaus.org" in row)
        assert line.split()[1] == "+3"
        assert line.split()[-3:] == ["11ms", "48ms", "ok"]
        await pilot.press("enter")
        await seen(pilot, "list:zen.spamhaus.org")
        await until(pilot, lambda: {row.cells[2][0] for row in app.view.query_one(Table).rows} == {"listed"})


@driven
async def test_lists_that_are_masked_alike_are_rows_of_their_own(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        lists = [
            {"list": name, "queries": 7 + at} for at, name in enumerate(("a.test", "bl.test", "bl.test", "z.test"))
        ]
        server.instead["dnsbl"] = {"lists": lists}
        await pilot.press("5")
        await seen(pilot, "4 lists")
        table = app.view.query_one(Table)
        await pilot.press("down", "down")
        chosen = table.chosen
        assert len({row.key for row in table.rows}) == 4
        lists[2]["queries"] = 55
        await until(pilot, lambda: table.rows[2].cells[2][0] == "55")
        assert table.chosen == chosen
        await pilot.press("up")
        assert table.rows[1].key == table.chosen != chosen
        await pilot.press("enter")
        await seen(pilot, "list:bl.test")


@driven
async def test_clients(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("6")
        await seen(pilot, "clients with most connections, by address", "█")
        await pilot.press("n")
        await seen(pilot, "by network (/24, /64)", "203.0.113.0/24")
        await pilot.press("enter")
        await seen(pilot, "4 Event")
        assert app.view.title == "Events"
        await pilot.press("6", "n")
        await seen(pilot, "by address", "198.18.")
        await pilot.press("enter")
        await seen(pilot, "Timeline")


@driven
async def test_cache_browse(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _hub):
        await pilot.press("7")
        await seen(pilot, "1.21 M entries, 142 MB of 1.07 GB", "/var/lib/fastscreen/cache.lmdb", "have expired")
        await seen(pilot, "12 entries, n: more")
        table = app.view.query_one(Table)
        last = table.rows[-1].key
        await pilot.press("n")
        await seen(pilot, f"after {last}")
        await until(pilot, lambda: table.rows and table.rows[0].key > last)
        await pilot.press("b")
        await until(pilot, lambda: table.rows and table.rows[-1].key == last)
        await pilot.press("slash", *"198.18.1.0/24", "enter")
        await seen(pilot, "5 entries of 198.18.1.0/24")
        assert {row.key for row in table.rows} == {address for address in KNOWN if address.startswith("198.18.1.")}
        await pilot.press("enter")
        await seen(pilot, "Timeline")


@driven
async def test_cache_delete_asks_first(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_app, pilot, server):
        await pilot.press("7")
        await seen(pilot, "12 entries")
        await pilot.press("D")
        await seen(pilot, "type a prefix first")
        await pilot.press("slash", *"198.18.1.0/24", "enter")
        await seen(pilot, "5 entries")
        for no in ("n", "escape", "enter", "q"):
            await pilot.press("d")
            await seen(pilot, "Delete 198.18.1.11 from the cache?")
            await pilot.press(no)
        assert not asked(server, "cache.delete")
        await pilot.press("d", "y")
        await seen(pilot, "1 entry deleted", "4 entries")
        assert "198.18.1.11" not in server.world.cache
        await pilot.press("D")
        await seen(pilot, "Delete all entries of 198.18.1.0/24 from the cache?")
        await pilot.press("y")
        await seen(pilot, "4 entries deleted", "0 entries")
        assert [request.get("prefix") for request in asked(server, "cache.delete")] == [None, "198.18.1.0/24"]


@driven
async def test_cache_delete_needs_the_right(tmp_path: Path) -> None:
    async with front_door(tmp_path, rights=("read",)) as (_app, pilot, server):
        await pilot.press("7")
        await seen(pilot, "read-only for this user", "198.18.")
        await pilot.press("d")
        await seen(pilot, "only root and fastscreen's user may delete")
        assert not asked(server, "cache.delete")


@driven
async def test_cache_delete_that_fails_is_told(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_app, pilot, server):
        server.refused["cache.delete"] = "cache.delete: the disk is [red]full[/]"
        await pilot.press("7")
        await seen(pilot, "12 entries")
        await pilot.press("d", "y")
        await seen(pilot, "cache.delete: the disk is [red]full[/]")


@driven
async def test_warnings(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("8")
        await seen(pilot, "answers take longer than the greet wait", "20 questions in a row")
        found = [row for row in rows(app) if "b.barra" in row or "dead" in row]
        assert "b.barra" in found[0]  # the newest first
        server.world.warnings.clear()
        await seen(pilot, "no warnings since the start")


@driven
async def test_a_screen_that_is_refused_or_gets_nonsense_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        for verb in ("sessions", "story", "dnsbl", "clients", "cache.stats", "warnings", "events"):
            server.refused[verb] = f"{verb}: not today"
        for key, verb in zip(
            "245678", ("sessions", "events", "dnsbl", "clients", "cache.stats", "warnings"), strict=True
        ):
            await pilot.press(key)
            await seen(pilot, f"{verb}: not today")
        app.open_story("192.0.2.1")
        await seen(pilot, "story: not today")
        server.refused.clear()
        server.instead["dnsbl"] = {"lists": 7}
        await pilot.press("5")
        await seen(pilot, "not fastscreen's protocol")
        await pilot.press("1")
        await seen(pilot, "Verdicts")


@driven
async def test_help(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("2", "question_mark")
        await seen(pilot, "Connections", "sort", "All screens", "command palette")
        await pilot.press("end")
        await seen(pilot, "Filter", "all terms must match")
        await pilot.press("2")  # goes nowhere while the help is in front
        await pilot.press("escape")
        assert app.view.title == "Connections"
        assert len(app.screen_stack) == 1


@driven
async def test_command_palette(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("colon")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press(*"Warnings")
        await seen(pilot, "Current faults, and the latest warnings")
        await pilot.press("enter")
        if len(app.screen_stack) == 2:
            await pilot.press("enter")
        await until(pilot, lambda: app.view.title == "Warnings")


@driven
async def test_themes(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        app.theme = "fastscreen"
        await pilot.press("5")
        await seen(pilot, "failing")
        seen_themes = []
        for _ in range(6):
            await pilot.press("t")
            await pilot.pause()
            seen_themes.append((app.theme, str(app.view.query_one(Table).render_line(1))))
        assert len({theme for theme, _ in seen_themes}) == 6
        assert len({line for _, line in seen_themes}) == 5  # the two colors of the terminal are the same here


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.chdir(tmp_path)
    world = World(hostile=b'=cmd|"/c calc"!A1')

    @driven
    async def run() -> None:
        async with front_door(tmp_path, world) as (app, pilot, _hub):
            await pilot.press("1", "2")
            await seen(pilot, "sorted by age")
            await pilot.press("space", "x")
            await seen(pilot, "rows to this file (.csv or .json)")
            await pilot.press("escape", "x")
            await seen(pilot, "rows to this file")
            await pilot.press("ctrl+u", *f"out.{ending}", "enter")
            await seen(pilot, f"rows written to out.{ending}")
            await pilot.press("x")
            await seen(pilot, "rows to this file")
            await pilot.press("ctrl+u", *f"out.{ending}", "enter")
            await seen(pilot, f"out.{ending}: File exists")
            count = len(app.view.query_one(Table).rows)
            with (tmp_path / f"out.{ending}").open(newline="") as file:
                found = list(csv.DictReader(file)) if ending == "csv" else json.load(file)
            assert len(found) == count
            said = {row["command"] for row in found} - {""}
            formula = '=cmd|"/c calc"!A1'
            assert said == {"'" + formula if ending == "csv" else formula}

    run()


def test_every_screen_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.cluster = {}
            server.remembered = Remembered()
            remember(app, server, 5)
            app.open_story(KNOWN[0])
            for at, view in enumerate(app.views):
                await pilot.press(key_of(at))
                await until(pilot, lambda view=view: (view.exported() or ((), ()))[1])  # type: ignore[misc]
                table = view.exported()
                assert table is not None
                assert {len(row) for row in table.rows} == {len(table.columns)}

    run()


def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (_app, pilot, _):
            await seen(pilot, "Verdicts")
            await pilot.press("p")
            await seen(pilot, "picture written to fastscreen-overview-")

    run()
    (picture,) = tmp_path.glob("fastscreen-overview-*.svg")
    assert "Verdicts" in picture.read_text()
    assert not re.search(r"@font-face|url\((?!#)|href", picture.read_text())  # nothing is fetched


@driven
async def test_quit(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running
