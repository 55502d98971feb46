"""The past in the view: steps, the bar that says so, what each screen shows of it, and the way back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from textual import events
from textual.filter import Monochrome, NoColor
from textual.pilot import Pilot

from fastscreen.tui.app import Viewer
from fastscreen.tui.past import Past, begin, moved
from fastscreen.tui.views import VIEWS, key_of
from fastscreen.tui.views.heat import LAYOUTS, bounds, layout
from tui.past_world import BOT, FIRST, WAVE
from tui.pilot import driven, front_door, rows, seen, text, until, viewing
from tui.server import FakeServer
from tui.test_hostile import HOSTILE, OURS
from tui.test_views import asked
from tui.world import START, World

NOW = int(START) + 120
MINUTE = NOW // 60 * 60
HAVE_PAST = ("Overview", "Connections", "Story", "Clients", "Heat map")


@contextmanager
def zone(name: str) -> Iterator[None]:
    """Times are shown in the reader's zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with zone("UTC"):
        yield


# ---- steps


def test_units() -> None:
    past = Past(int(START))
    assert past.text(NOW) == "Sat Nov 22 21:46"
    assert past.until - past.since == 60
    hour = past.other_unit()
    assert (hour.text(NOW), hour.since % 3600, hour.until - hour.since) == ("Sat Nov 22 21:00-22:00", 0, 3600)
    day = hour.other_unit()
    assert (day.text(NOW), day.until - day.since) == ("Sat Nov 22", 86_400)
    assert day.other_unit() == past
    assert past.text(NOW + 366 * 86_400) == "Sat Nov 22 2025 21:46"


def test_steps_of_a_day_keep_the_time_of_day() -> None:
    """Also where the clocks were changed in between."""
    with zone("Europe/Berlin"):
        before, after = 1_743_242_400, 1_743_242_400 + 23 * 3600  # 2025-03-29 11:00 and the next day
        assert Past(before).by(1, "day").minute == after
        assert Past(after).by(-1, "day").minute == before
        day = Past(after, "day")
        assert day.until - day.since == 23 * 3600
        autumn = Past(1_761_476_400, "day")  # 2025-10-26, in its 25 hours
        assert autumn.until - autumn.since == 25 * 3600
        assert [moved(before, at, "hour") - before for at in (1, -1)] == [3600, -3600]


def test_hours_of_a_zone_that_begins_within_ours() -> None:
    with zone("Asia/Kathmandu"):
        assert begin(START, "hour") % 3600 == 900
        assert (begin(START, "day") + 20_700) % 86_400 == 0


async def shown(pilot: Pilot[None], *words: str) -> None:
    await seen(pilot, "PAST", "N now", *words)


@driven
async def test_keys_step_by_minute_hour_and_day_and_return(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        assert "PAST" not in text(app)
        await pilot.press("left")
        await shown(pilot, " PAST  Sat Nov 22 21:47, ", "Verdicts of the minute")
        for key, time_shown in (
            ("left", "Sat Nov 22 21:46,"), ("less_than_sign", "Sat Nov 22 20:46,"),
            ("left_curly_bracket", "Fri Nov 21 20:46,"), ("right", "Fri Nov 21 20:47,"),
            ("right_curly_bracket", "Sat Nov 22 20:47,"), ("m", "Sat Nov 22 20:00-21:00,"),
            ("left", "Sat Nov 22 19:00-20:00,"), ("m", "Sat Nov 22,"), ("left", "Fri Nov 21,"),
            ("right", "Sat Nov 22,"), ("m", "Sat Nov 22 19:47,"),
        ):  # fmt: skip
            await pilot.press(key)
            await shown(pilot, f" PAST  {time_shown}")
        await pilot.press("greater_than_sign")
        await shown(pilot, "Sat Nov 22 20:47")
        await pilot.press("greater_than_sign")
        await shown(pilot, "Sat Nov 22 21:47")
        await pilot.press("right")  # beyond the last minute is now
        await seen(pilot, "connects/s")
        assert "PAST" not in text(app)
        await pilot.press("right", "less_than_sign")
        await shown(pilot, "Sat Nov 22 20:48")
        await pilot.press("N")
        await seen(pilot, "connects/s")
        assert app.past is None


@driven
async def test_keys_typed_ahead_all_count(tmp_path: Path) -> None:
    """Also before the daemon has said that it has a history."""
    async with front_door(tmp_path) as (app, pilot, server):
        for key in ("left", "left", "left", "less_than_sign", "right"):
            app.post_message(events.Key(key, None))
        await shown(pilot, "Sat Nov 22 20:46")
        assert len(asked(server, "history")) == 1
        await pilot.press("N")
        await seen(pilot, "connects/s")
        server.silent.add("history")
        for key in ("left", "left", "N"):
            app.post_message(events.Key(key, None))
        await pilot.pause(0.3)
        assert app.past is None
        assert "PAST" not in text(app)


@driven
async def test_a_time_is_typed_in(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        for typed, minute in (("21:30", "22 21:30"), ("yesterday 09:30", "21 09:30"), ("2h", "22 19:48")):
            await pilot.press("g")
            await seen(pilot, "Go to a time")
            await type_in(pilot, typed)
            await shown(pilot, f"Nov {minute}")
        await pilot.press("g")
        await seen(pilot, "Go to a time")
        await type_in(pilot, "soon")
        await seen(pilot, "soon is not a time; expected now, today")
        assert app.past is not None
        await pilot.press("g")
        await seen(pilot, "Go to a time")
        await type_in(pilot, "23:00")
        await seen(pilot, "connects/s")


async def type_in(pilot: Pilot[None], typed: str) -> None:
    names = {" ": "space", ":": "colon"}
    await pilot.press(*(names.get(char, char) for char in typed), "enter")


@driven
async def test_a_daemon_without_a_history(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        server.recorded = None
        await pilot.press("left")
        await seen(pilot, "no history is recorded: history.path is not set")
        assert app.past is None
        server.refused["history"] = "'history' is unknown; expected status, config"  # an older one
        await pilot.press("less_than_sign")
        await seen(pilot, "no history: 'history' is unknown")
        assert app.past is None


@driven
async def test_a_history_with_a_problem(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        server.instead["history"] = {"path": "/h", "problem": "/h/2025-11-20.sqlite: damaged \x1b[2J"}
        await pilot.press("less_than_sign")
        await shown(pilot, "/h/2025-11-20.sqlite: damaged \\033[2J", "Sat Nov 22 20:48: the history is empty")


@driven
async def test_the_past_is_asked_for_once(tmp_path: Path) -> None:
    """It does not change; but for a minute that is not over."""
    async with front_door(tmp_path) as (_, pilot, server):
        await pilot.press("less_than_sign")
        await shown(pilot, "Verdicts of the minute")
        await pilot.pause(1.2)
        assert len(asked(server, "history.minutes")) == 1


@driven
async def test_a_past_that_is_refused_is_asked_for_again(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        server.refused["history.minutes"] = "history: other requests are being answered; try again"
        await pilot.press("less_than_sign")
        await shown(pilot, "other requests are being answered")
        server.refused.clear()
        await shown(pilot, "Verdicts of the minute")


@driven
async def test_every_screen_says_that_it_is_the_past(tmp_path: Path) -> None:
    """The bar and the tab have another color, and screens that show the present only are not shown."""
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("less_than_sign")
        await shown(pilot)
        for at, kind in enumerate(VIEWS):
            await pilot.press(key_of(at))
            await shown(pilot, "Sat Nov 22 20:48")
            shown_as = {
                (style.color.name, style.reverse)
                for segment in app._past_bar.render_line(0)
                if (style := segment.style) is not None and style.color is not None
            }
            assert shown_as == {("yellow", True)}
            if kind.title in HAVE_PAST:
                assert "has no past" not in text(app)
                assert kind.past_keys is not None
            else:
                await seen(pilot, f"{kind.title} has no past: it shows the present only. Press N to return to now.")
                assert kind.past_keys is None
                count = len(server.asked)
                await pilot.press("slash", "d", "D", "n", "x")
                await seen(pilot, "this screen has nothing to export")
                assert {request["do"] for request in server.asked[count:]} <= {"status"}
        await pilot.press("N")
        await seen(pilot, "score.memory is not set")
        await pilot.press("0")
        await seen(pilot, "Enter goes to")
        await pilot.press("5")
        await seen(pilot, "7 lists, threshold 3")


@driven
async def test_another_daemon_is_shown_as_it_is_now(tmp_path: Path) -> None:
    world = World()
    world.advance(120)
    async with (
        FakeServer(tmp_path / "a", world) as first,
        FakeServer(tmp_path / "b", world) as second,
        viewing(first, second) as (app, pilot),
    ):
        await pilot.press("less_than_sign")
        await shown(pilot)
        await pilot.press("right_square_bracket")
        await seen(pilot, "connects/s")
        assert app.past is None
        assert not asked(second, "history.minutes")
        await pilot.press("left_square_bracket")
        await seen(pilot, "connects/s")


@driven
async def test_exports(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await go(pilot, WAVE)
        app.open_story(BOT)
        for at, view in enumerate(app.views):
            if view.past_keys is not None:
                await pilot.press(key_of(at))
                await until(pilot, lambda view=view: (view.exported() or ((), ()))[1])  # type: ignore[misc]
                table = view.exported()
                assert table is not None
                assert {len(row) for row in table.rows} == {len(table.columns)}
                assert table.columns[0] in ("time", "ended", "client")


@driven
async def test_a_larger_terminal_has_a_longer_chart(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        await go(pilot, WAVE)
        await shown(pilot, "\u2514 18:54")
        await pilot.resize_terminal(140, 40)
        await shown(pilot, "\u2514 18:24", "20:42 \u2518")
        spans = [request["until"] - request["since"] for request in asked(server, "history.minutes")]  # type: ignore[operator]
        assert spans[-1] == 138 * 60


# ---- screens


def outcomes(server: FakeServer, since: int, until: int) -> Counter[str]:
    assert server.recorded is not None
    found: Counter[str] = Counter()
    for at in range(since, until, 60):
        found.update(session["outcome"] for session in server.recorded.minute(at))
    return found


async def go(pilot: Pilot[None], minute: int) -> None:
    app = pilot.app
    assert isinstance(app, Viewer)
    app.go_to_past(minute)
    await until(pilot, lambda: app.past is not None and app.past.minute == minute)


@driven
async def test_overview_has_the_figures_of_the_minute(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await go(pilot, WAVE)
        counts = outcomes(server, WAVE, WAVE + 60)
        assert counts["rejected"] > 100
        await shown(pilot, f" {sum(counts.values())} sessions, ", "Verdicts of the minute", f" {counts['rejected']} ")
        lines = {row[1:24].strip(): row[24:].split() for row in rows(app) if "%" in row}
        assert {name: int(lines[label][0]) for name, label in (("rejected", "rejected"), ("deferred", "deferred"))} == {
            name: counts[name] for name in ("rejected", "deferred")
        }
        chart = rows(app)[4:-14]
        peak = max(range(len(chart[0])), key=lambda at: sum(line[at : at + 1] not in (" ", "") for line in chart[:4]))
        assert "▔" in "\n".join(line[peak : peak + 1] for line in chart), "the mark is below the wave"
        await pilot.press("m")
        begin = WAVE // 3600 * 3600
        hour = outcomes(server, begin, begin + 3600)
        await shown(pilot, "Verdicts of the hour", f" {hour['rejected']} ", f" {sum(hour.values()):,} sessions, ")


@driven
async def test_a_minute_without_sessions(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, _server):
        await go(pilot, FIRST - 3600)
        await shown(pilot, "no session was recorded in this minute")
        await shown(pilot, "Wed Nov 19 20:46, before the history: it begins Nov 19 21:46 ")
        await pilot.press("2")
        await shown(pilot, "0 sessions of this minute")
        await pilot.press("6")
        await shown(pilot, "0 clients with 0 sessions")
        app = pilot.app
        assert isinstance(app, Viewer)
        app.open_story(BOT)
        await shown(pilot, "no session was recorded until the end of this minute")


@driven
async def test_find_a_known_event_its_story_and_return(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(100, 40)) as (app, pilot, _):
        await pilot.press("2", "g")
        await seen(pilot, "Go to a time")
        await type_in(pilot, "19:33")
        await shown(pilot, "sessions of this minute", "rejected")
        await pilot.press("slash", *BOT, "enter")
        await shown(pilot, "1 session of this minute", f" {BOT} ")
        await pilot.press("enter")
        await shown(
            pilot,
            f" {BOT}   recorded session 1 of ",
            "Verdict      rejected, replied 550",
            "Connection   [192.0.2.77]:51234 to [198.51.100.2]:25",
            "HELO name ",
            "TLS          not announced",
            "Tests        made: pregreet, dnsbl, score",
            "found something: pregreet, dnsbl",
            "failed: dnsbl",
            "Score        11, threshold 3",
            "dnsbl +8: DNSBLs",
            "helo_not_qualified +1: HELO name is not fully qualified: ",
            "seen_network +2: enough neighbors in its /24 had committed offenses",
            "zen.spamhaus.org                 listed  +3  127.0.0.4",
            "dead.example.org                 no answer",
            "3 commands, 1 recipient, last reply 550",
            " > Nov 22 19:33:",
        )
        await pilot.press("n")
        await shown(pilot, "recorded session 2 of ", " > Nov 22 18:33:", "not in this minute: before it")
        await pilot.press("b", "b")
        await shown(pilot, "recorded session 1 of ")
        await pilot.press("escape")
        assert app.view.title == "Connections"
        await pilot.press("N")
        await seen(pilot, "sorted by age")


@driven
async def test_the_story_of_a_session_beyond_the_first_page(tmp_path: Path) -> None:
    """A client with very many sessions in an hour: the chosen one is shown, not the last one."""
    async with front_door(tmp_path, size=(100, 40)) as (app, pilot, server):
        assert server.recorded is not None
        minute = server.recorded.minute
        many = [{**minute(WAVE)[0], "address": BOT, "id": 1000 + at, "ended": WAVE + at / 10} for at in range(300)]
        server.recorded.minute = lambda at: many if at == WAVE else []  # type: ignore[assignment]
        await go(pilot, WAVE)
        app.open_story(BOT, 1017)
        await shown(pilot, "recorded session 1 of 18, Nov 22 19:33:01")
        app.open_story(BOT, 1290)
        await shown(pilot, "recorded session 10 of 100 or more, Nov 22 19:33:29")


@driven
async def test_sessions_of_a_cut_address_may_be_of_others(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(100, 60)) as (app, pilot, server):
        assert server.recorded is not None
        cut = {**server.recorded.minute(WAVE)[0], "address": "192.0.2.0"}
        server.instead["history.sessions"] = {"sessions": [cut]}
        app.open_story(BOT)
        words = "recorded for 192.0.2.0: history.mask cuts addresses, so it may be another client's"
        await seen(pilot, "Earlier sessions, from the history", words)
        await go(pilot, WAVE)
        await shown(pilot, "recorded session 1 of 1", words)
        server.instead["history.sessions"] = {"sessions": [{**cut, "address": "2001:db8::a"}]}
        app.open_story("2001:DB8:0::A")
        await shown(pilot, " 2001:DB8:0::A   recorded session 1 of 1")
        assert "history.mask" not in text(app)
        server.instead["history.sessions"] = {"sessions": [{**cut, "address": "192.0.2.1"}]}
        app.open_story("::ffff:192.0.2.1")
        await shown(pilot, " ::ffff:192.0.2.1   recorded session 1 of 1")
        assert "history.mask" not in text(app)


@driven
async def test_pages_of_connections(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        await go(pilot, WAVE)
        await pilot.press("2", "m")
        sessions = sum(outcomes(server, WAVE // 3600 * 3600, WAVE // 3600 * 3600 + 3600).values())
        await shown(pilot, "200 sessions of this hour", "n: older ones")
        pages = 1
        while "n: older ones" in text(pilot.app):  # type: ignore[arg-type]
            before = len(asked(server, "history.sessions"))
            await pilot.press("n")
            await until(pilot, lambda before=before: len(asked(server, "history.sessions")) > before)  # type: ignore[misc]
            await shown(pilot, "of this hour")
            pages += 1
        assert pages == -(-sessions // 200)
        await pilot.press("b")
        await shown(pilot, "200 sessions", "n: older ones")


@driven
async def test_a_search_that_ran_out_of_time_says_so(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        server.instead["history.sessions"] = {"sessions": [], "next": 99, "searched": float(WAVE)}
        await go(pilot, WAVE)
        await pilot.press("2")
        await shown(pilot, "0 sessions of this minute, newest first; searched back to 19:33:00, n: go on")


@driven
async def test_clients_of_the_past(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await go(pilot, WAVE)
        await pilot.press("6")
        counts = outcomes(server, WAVE, WAVE + 60)
        await shown(pilot, f" clients with {sum(counts.values())} sessions in this minute")
        await pilot.press("n")
        await shown(pilot, "networks (/24, /64) with", "203.0.113.0/24")
        await pilot.press("enter")
        await shown(pilot, "203.0.113.0/24", "sessions of this minute")
        assert app.view.title == "Connections"
        await pilot.press("enter")
        await shown(pilot, "recorded session 1 of")


@driven
async def test_the_story_of_a_live_client_continues_beyond_the_rings(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(100, 60)) as (app, pilot, server):
        server.world.visit("pregreet", BOT)
        server.world.advance(10)
        app.open_story(BOT)
        await seen(
            pilot, "Timeline", "550 5.7.1", "Earlier sessions, from the history", "Nov 22 19:33:", "Nov 22 18:33:"
        )
        lines = [row for row in rows(app) if row.startswith("   Nov ")]
        assert len(lines) == 20
        assert all("rejected 550, score" in line for line in lines)
        assert "and older ones: press n" in text(app)
        await pilot.press("n")
        await shown(pilot, "recorded session 1 of")
        await pilot.press("N")
        await seen(pilot, "Timeline")


@driven
async def test_a_session_in_the_rings_is_not_told_twice(tmp_path: Path) -> None:
    """Its times in the history and in the events differ a little."""
    async with front_door(tmp_path, size=(100, 60)) as (app, pilot, server):
        assert server.recorded is not None
        server.world.visit("pregreet", BOT)
        server.world.advance(10)
        (connect,) = [event for event in server.world.events if (event["address"], event["kind"]) == (BOT, "connect")]
        once = {**server.recorded.minute(WAVE)[0], "address": BOT, "helo": b"once"}
        same = {**once, "began": connect["time"] - 0.0003, "port": connect["port"], "helo": b"same"}
        other = {**same, "port": connect["port"] + 1, "helo": b"other-at-the-same-time"}
        server.instead["history.sessions"] = {"sessions": [same, other, once]}
        app.open_story(BOT)
        await seen(pilot, "earlier sessions 2 below", "Earlier sessions", "once", "other-at-the-same-time")
        assert "same" not in text(app).replace("at-the-same-time", "")


@driven
async def test_the_story_without_a_history_is_as_before(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        server.recorded = None
        server.world.visit("pregreet", BOT)
        server.world.advance(10)
        app.open_story(BOT)
        await seen(pilot, "Timeline")
        await pilot.press("n")
        await pilot.pause(0.2)
        assert "arlier sessions" not in text(app)
        assert app.past is None


# ---- the heat map


@pytest.mark.parametrize("hours", [23, 24, 25])
def test_every_layout_fits(hours: int) -> None:
    for width in range(80, 250):
        for height in range(17, 60):
            one = layout(hours * 60, width, height)
            assert 7 + one.columns * one.cells + 9 <= width
            assert -(-hours // one.hours) + 5 <= height
    assert layout(1440, 80, 21) == LAYOUTS[3]
    assert layout(1440, 140, 40) == LAYOUTS[0]


def test_levels_grow() -> None:
    assert bounds(160) == [10, 40, 90, 160]
    assert bounds(3) == [1, 1, 1, 3]
    assert bounds(0) == [1, 1, 1, 1]


@driven
async def test_the_heat_map_leads_to_the_minute(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("0")
        counts = outcomes(server, begin(START, "day"), MINUTE + 60)
        await seen(pilot, f" All sessions on Sat Nov 22: {sum(counts.values()):,} sessions")
        await pilot.press("v")
        await seen(pilot, f" Rejected on Sat Nov 22: {counts['rejected']:,} of {sum(counts.values()):,} sessions")
        await pilot.press("home")
        await seen(pilot, ">18:00", "19:32-19:34", "Enter goes to 19:33")
        cell = outcomes(server, WAVE - 60, WAVE + 60)
        await seen(pilot, f"  {cell['rejected']} of {sum(cell.values())} sessions, ")
        assert "X█" in next(row for row in rows(app) if row.startswith(">18:00"))
        await pilot.press("right")
        await seen(pilot, "19:34-19:36")
        await pilot.press("left", "down")
        await seen(pilot, ">20:00", "21:32-21:34")
        await pilot.press("up", "enter")
        await shown(pilot, "Sat Nov 22 19:33", "Verdicts of the minute")
        assert app.view.title == "Overview"
        await pilot.press("0")
        await shown(pilot, "19:32-19:34")
        await pilot.press("left_curly_bracket")
        await shown(pilot, "Rejected on Fri Nov 21", "19:32-19:34")
        for _ in range(8):
            await pilot.press("v")
        await seen(pilot, "Known clients on Fri Nov 21")
        await pilot.press("v", "V")
        await seen(pilot, "Known clients on")


@driven
async def test_a_click_moves_the_cursor_and_another_one_goes_there(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        await pilot.press("0")
        await seen(pilot, "Enter goes to")
        await pilot.click("HeatMap", offset=(7 + 30, 2 + 4))
        await seen(pilot, ">08:00", "09:00-09:02")
        await pilot.click("HeatMap", offset=(7 + 30, 2 + 4))
        await shown(pilot, "Sat Nov 22 09:0")
        assert app.view.title == "Overview"


# ---- sums that could not be read in time


@driven
async def test_sums_that_are_not_complete(tmp_path: Path) -> None:
    """Minutes that were not read are not shown as minutes without sessions."""
    async with front_door(tmp_path) as (app, pilot, server):
        day = begin(START, "day")
        sums = [{"time": float(at), "outcomes": {"rejected": 1000}, "cached": 0} for at in (day, day + 6 * 3600)]
        answer = {"since": day, "until": day + 86_400, "step": 60, "sums": sums, "complete": False}
        server.instead["history.minutes"] = answer
        await pilot.press("0")
        await seen(pilot, "All sessions on Sat Nov 22: 1,000 sessions", "time ran out: sessions since Nov 22 06:00 are")
        lines = {row[1:6]: row for row in rows(app)}
        assert "." in lines["04:00"] and lines["04:00"].split()[-1] == "0"
        assert lines["08:00"].split() == ["08:00"], "neither cells without sessions nor a total"
        await pilot.press("home", *["down"] * 4)
        await seen(pilot, "08:00-08:02  unknown")
        await pilot.press("enter")
        await shown(pilot, "Sat Nov 22 08:00", "time ran out: sessions since Nov 22 06:00 are missing")
        assert "no session was recorded" not in text(app)
        server.instead["history.minutes"] = {**answer, "sums": []}
        await pilot.press("left")
        await shown(pilot, "Sat Nov 22 07:59", "time ran out: sessions since Nov 22 00:00 are missing")


# ---- what clients send


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_names(tmp_path: Path, what: str) -> None:
    octets, shown_as = HOSTILE[what]

    @driven
    async def run() -> None:
        async with front_door(tmp_path, World(hostile=octets), size=(200, 50)) as (app, pilot, _):
            await go(pilot, WAVE)
            for key in ("2", "enter", "N"):
                await pilot.press(key)
                await seen(pilot, shown_as[:80])
                assert set(text(app)) <= OURS | {"\n"}

    run()


@pytest.mark.parametrize("colored", [True, False])
def test_without_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colored: bool) -> None:
    """Of the terminal's 16 colors, none is left, not even black on black; the bar is seen by its reversed letters."""
    if not colored:
        monkeypatch.setenv("NO_COLOR", "1")

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, _):
            await pilot.press("less_than_sign")
            await shown(pilot)
            assert app.theme == "ansi-dark"
            assert any(isinstance(each, NoColor) for each in app._filters) != colored
            assert not any(isinstance(each, Monochrome) for each in app._filters)
            bar = app._past_bar.render_line(0)
            assert all(segment.style and segment.style.reverse for segment in bar)

    run()
