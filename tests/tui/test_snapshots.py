"""Each screen at 80x24 as text. After a change that is wanted: FASTSCREEN_SNAPSHOTS=write pytest THIS_FILE"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen.tui.views import VIEWS, key_of
from tui.memory_world import FEEDBACK, Remembered
from tui.past_world import WAVE
from tui.pilot import driven, front_door, next_poll, remember, rows, seen, until
from tui.world import START, Map

SCREENS = Path(__file__).parent / "screens"
ADDRESS = "192.0.2.77"
SIGNS = {
    "Overview": "4m59s ago",
    "Connections": "EHLO",
    "Story": "+0.000",
    "Events": "200 events",
    "DNSBL": "failing",
    "Clients": "█",
    "Cache": "12 entries",
    "Warnings": "greet wait",
    "Cluster": "present",
    "Heat map": "Enter goes to",
    "Networks": " networks, worst first",
}


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown in the reader's zone; here that is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("at", range(len(VIEWS)), ids=lambda at: VIEWS[at].title.lower())
def test_screen(tmp_path: Path, at: int) -> None:
    title = VIEWS[at].title

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.cluster = {} if title == "Cluster" else None
            server.remembered = Remembered() if title == "Networks" else None
            remember(app, server, 290)
            server.world.visit("pregreet", ADDRESS)
            remember(app, server, 10)
            if title == "Story":
                app.open_story(ADDRESS)
            else:
                await pilot.press(key_of(at))
            await seen(pilot, SIGNS[title])
            await next_poll(pilot, server)
            compare(title.lower().replace(" ", "-"), rows(app))

    run()


PAST = {
    "overview": ("Verdicts of the minute",),
    "connections": ("rejected",),
    "story": ("recorded session 1 of",),
    "events": ("has no past",),
    "clients": ("sessions in this minute", "█"),
    "heat-map": ("Enter goes to",),
}


@pytest.mark.parametrize("size", [(80, 24), (140, 36)], ids=["80x24", "wide"])
@pytest.mark.parametrize("name", PAST)
def test_the_past(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    title = name.replace("-", " ").capitalize()
    at = next(at for at, kind in enumerate(VIEWS) if kind.title == title)

    @driven
    async def run() -> None:
        async with front_door(tmp_path, size=size) as (app, pilot, server):
            app.go_to_past(WAVE)
            await seen(pilot, "PAST")
            if name == "story":
                app.open_story(ADDRESS)
            else:
                await pilot.press(key_of(at))
            await seen(pilot, "PAST", "N now", *PAST[name])
            await next_poll(pilot, server)
            compare(f"past-{name}{'' if size[0] == 80 else '-wide'}", rows(app), size)

    run()


def test_help(tmp_path: Path) -> None:
    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, _):
            await seen(pilot, "Verdicts", "failing")
            await pilot.press("question_mark")
            await seen(pilot, "All screens", "mx1.example.com", "q quit")
            compare("help", rows(app))

    run()


FAULTS = [
    {
        "kind": "tables",
        "since": START - 400.0,
        "text": "tables not read again: /etc/fastscreen/fastscreen.toml: cidr:/etc/fastscreen/access: cannot be read: "
        "No such file or directory; the previous ones stay in use",
        "remedy": "correct the file; it is read again when it changes",
    },
    {
        "kind": "mta",
        "since": START - 100_000.0,
        "text": "clients cannot be handed off to pass:/var/spool/postfix/private/smtpd; they are replied 4xx and come "
        "again",
        "remedy": "start the mail server, or correct handoff.to; retried with each client",
    },
]


def test_faults_are_on_every_screen(tmp_path: Path) -> None:
    """One red line, the most important first; it goes with the last fault. Nothing else is pushed off the screen."""

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.conditions = FAULTS
            remember(app, server, 300)
            await seen(pilot, "2 faults (8)  MTA: clients cannot be handed off", "4m59s ago", "failing")
            compare("overview-faults", rows(app))
            for at in range(len(VIEWS)):
                await pilot.press(key_of(at))
                await seen(pilot, "2 faults (8)  MTA:")
                assert "q quit" in rows(app)[-1]
            server.world.conditions = FAULTS[:1]
            await seen(pilot, "1 fault (8)  TABLES: tables not read again")
            server.world.conditions = []
            await until(pilot, lambda: "fault" not in "\n".join(rows(app)))

    run()


def test_all_faults_with_their_remedies(tmp_path: Path) -> None:
    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.conditions = FAULTS
            remember(app, server, 300)
            await seen(pilot, "2 faults (8)")
            await pilot.click("#faults")
            await seen(pilot, "Current faults", "start the mail server", "it is read again", "greet wait")
            compare("warnings-faults", rows(app))

    run()


CLUSTERS: dict[str, tuple[str, Map]] = {
    "refused": (
        "not storing since",
        {
            "problem": "refuses records: 192.0.2.9:6379: OOM command not allowed when used memory > 'maxmemory'.",
            "queue": 12_403,
            "queue_bytes": 1_736_420,
            "queue_age": 252.0,
            "queue_dropped": 91,
            "ignored": {"bad_mac": 12, "newer": 2, "deleted": 4},
        },
    ),
    "lost": (
        "not connected",
        {
            "connected": False,
            "since": START + 168.0,
            "role": "",
            "queue": 204,
            "queue_bytes": 28_560,
            "problem": "192.0.2.9:6379: no answer within 1 s",
        },
    ),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_in_trouble(tmp_path: Path, name: str) -> None:
    what, cluster = CLUSTERS[name]

    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.cluster = {}
            remember(app, server, 60)
            server.world.cluster = cluster
            server.world.conditions = [{"kind": "cluster", "since": START + 170.0, "text": f"cluster: {name}"}]
            remember(app, server, 240)
            await seen(pilot, what, "4m59s ago", "failing", "1 fault (8)")
            compare(f"overview-cluster-{name}", rows(app))
            await pilot.press("9")
            await seen(pilot, what, "Retried automatically", "mx4")
            compare(f"cluster-{name}", rows(app))

    run()


def test_overview_and_cluster_of_a_large_terminal(tmp_path: Path) -> None:
    @driven
    async def run() -> None:
        async with front_door(tmp_path, size=(120, 36)) as (app, pilot, server):
            server.world.cluster = {"offenses": {"stored": 3_120, "found": 1_204, "queue": 12, "dropped": 0}}
            remember(app, server, 300)
            await seen(pilot, "mx4 away", "4m59s ago", "failing")
            compare("overview-cluster-large", rows(app), (120, 36))
            await pilot.press("9")
            await seen(pilot, "present", "4m59s ago")
            compare("cluster-large", rows(app), (120, 36))

    run()


def test_overview_of_a_cluster(tmp_path: Path) -> None:
    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            server.world.cluster = {}
            remember(app, server, 300)
            await seen(pilot, "mx4 away", "4m59s ago", "failing")
            compare("overview-cluster", rows(app))

    run()


NETWORKS: dict[str, tuple[tuple[str, ...], str]] = {
    "list": ((), " networks, worst first"),
    "as": (("a",), "7 AS, "),
    "addresses": (("j", "enter"), "40 of 40 addresses bad"),
    "delete": (("d",), "Delete all addresses of 198.51.0.0/24"),
    "feedback": ((), "MTA's log: "),
}


@pytest.mark.parametrize("size", [(80, 24), (140, 36)], ids=["80x24", "wide"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    keys, sign = NETWORKS[name]

    @driven
    async def run() -> None:
        async with front_door(tmp_path, size=size) as (app, pilot, server):
            server.remembered = Remembered()
            server.feedback = FEEDBACK if name == "feedback" else None
            remember(app, server, 300)
            await pilot.press("w")
            await seen(pilot, "262 networks, ", "198.51.9.0/24")
            await pilot.press(*keys)
            await seen(pilot, sign)
            await next_poll(pilot, server)
            compare(f"networks-{name}{'' if size[0] == 80 else '-wide'}", rows(app), size)

    run()


TROUBLED_NETWORKS = {
    "off": "score.memory is not set",
    "empty": "no network with a bad address",
    "unreadable": "Permission denied",
    "suspended": "cannot be written: No space",
}


@pytest.mark.parametrize("name", TROUBLED_NETWORKS)
def test_networks_without_a_memory(tmp_path: Path, name: str) -> None:
    @driven
    async def run() -> None:
        async with front_door(tmp_path) as (app, pilot, server):
            path = "score.memory lmdb:/var/lib/fastscreen/offenses"
            if name != "off":
                server.remembered = Remembered(networks=3)
            if name == "empty":
                assert server.remembered is not None
                server.remembered.members.clear()
            if name == "unreadable":
                server.refused["reputation.list"] = f"{path}: Permission denied"
            if name == "suspended":
                assert server.remembered is not None
                server.remembered.problem = f"{path}: cannot be written: No space left on device"
            remember(app, server, 300)
            await pilot.press("w")
            await seen(pilot, TROUBLED_NETWORKS[name])
            await next_poll(pilot, server)
            compare(f"networks-{name}", rows(app))
            if name != "off":
                await pilot.press("1")
                await seen(pilot, "Offenses ", "failing")
                compare(f"overview-offenses-{name}", rows(app))

    run()


def compare(name: str, found: list[str], size: tuple[int, int] = (80, 24)) -> None:
    path = SCREENS / f"{name}.txt"
    if os.environ.get("FASTSCREEN_SNAPSHOTS") == "write":
        SCREENS.mkdir(exist_ok=True)
        path.write_text("\n".join(found) + "\n")
    assert found == path.read_text().splitlines()
    assert all(len(row) <= size[0] for row in found)
    assert len(found) == size[1]
