"""What the view says about the cluster, in Overview and on its own screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from fastscreen.control.messages import Cluster, ClusterOffenses, ClusterPeer, Condition, Status
from fastscreen.escaping import escape_bytes
from fastscreen.tui.palette import BAD, WARN
from fastscreen.tui.table import Table
from fastscreen.tui.views.cluster import NOT_CONFIGURED, overview, summary
from tui.pilot import driven, front_door, remember, rows, seen, text, until
from tui.test_hostile import OURS
from tui.world import World

NOW = 1_763_848_000.0
PEERS = [ClusterPeer("mx2", NOW - 2), ClusterPeer("mx3", NOW - 1), ClusterPeer("mx4", NOW - 240, away=True)]
USUAL: dict[str, Any] = {
    "running": True,
    "connected": True,
    "since": NOW - 7200,
    "server": "192.0.2.9:6379",
    "role": "primary",
    "name": "mx1",
    "round_trip": 0.0004,
    "asked": 1310,
    "found": 1204,
    "peers": PEERS,
}
REFUSED: dict[str, Any] = {"problem": "refuses records: 192.0.2.9:6379: OOM"}
LOST: dict[str, Any] = {"connected": False, "since": NOW - 252, "problem": "192.0.2.9:6379: no answer within 1 s"}


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown in the reader's zone."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def status(conditions: list[Condition] | None = None, **different: Any) -> Status:
    cluster = Cluster(**{**USUAL, **different})
    return Status(NOW, NOW - 9000, "0.1.0", "mx1.example", 1, conditions=conditions or [], cluster=cluster)


def line(width: int = 119, conditions: list[Condition] | None = None, **different: Any) -> Text:
    found = status(conditions, **different)
    assert found.cluster is not None
    return summary(found.cluster, found, width)


def screen(width: int = 80, height: int = 21, **different: Any) -> list[Text]:
    found = status(**different)
    assert found.cluster is not None
    return overview(found.cluster, found, [], width, height)


def styled(line: Text, role: str) -> list[str]:
    """The parts of a line that have this role."""
    return [line.plain[span.start : span.end] for span in line.spans if span.style == role]


# ---- the line in Overview


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (119, "connected to 192.0.2.9:6379 (primary), 0.4ms; 1,204 of 1,310 found; queue 0; mx2, mx3; mx4 away 4m00s"),
        (79, "192.0.2.9:6379, 0.4ms; 92 % found; queue 0; mx2, mx3; mx4 away 4m00s"),
        (76, "connected, 0.4ms; 92 % found; queue 0; mx2, mx3; mx4 away 4m00s"),
        (66, "connected, 0.4ms; 92 % found; queue 0; 3 peers, 1 away"),
    ],
)
def test_line_has_what_there_is_room_for(width: int, shown: str) -> None:
    assert line(width).plain == f" Cluster  {shown}"
    assert styled(line(width), BAD) == []


@pytest.mark.parametrize("peers", [PEERS[:0], PEERS[:1], PEERS, PEERS * 30], ids=len)
@pytest.mark.parametrize("different", [{}, REFUSED, LOST, {"ignored": {"bad_mac": 12_345}}], ids=str)
def test_line_fits(peers: list[ClusterPeer], different: dict[str, Any]) -> None:
    for width in range(79, 200):
        found = line(width, peers=peers, server="valkey-with-a-long-name.example.net:6379", **different)
        assert len(found.plain) <= width
        if "problem" not in different:
            assert "queue 0" in found.plain
            assert "away" in found.plain or len(peers) < 3
            assert "12,345 bad MACs" in found.plain or not different


def test_line_of_many_peers_counts_them() -> None:
    assert "; 90 peers, 30 away" in line(peers=PEERS * 30).plain
    assert line(peers=[]).plain.endswith("; no peers")
    assert line(peers=PEERS[:1]).plain.endswith("; mx2")
    assert line(70, peers=[ClusterPeer("a" * 60, NOW)]).plain.endswith("; 1 peer")


def test_what_needs_attention_in_a_working_cluster_stands_out() -> None:
    assert styled(line(), WARN) == ["mx4 away 4m00s"]
    assert styled(line(ignored={"bad_mac": 1, "deleted": 9}), BAD) == ["1 bad MAC"]
    assert styled(line(ignored={"bad_mac": 2}), BAD) == ["2 bad MACs"]
    assert "bad MAC" not in line(ignored={"deleted": 9}).plain


def test_line_in_trouble_says_what_holds_and_since_when(utc: None) -> None:
    lost = "not connected since 21:42:28 (4m12s): 192.0.2.9:6379: no answer within 1 s; 204 queued"
    assert styled(line(**LOST, queue=204), BAD) == [lost]
    assert styled(line(**LOST), BAD) == [lost.removesuffix("; 204 queued")]
    assert styled(line(88, **LOST, queue=204), BAD) == [lost.replace(" (4m12s)", "")]
    assert styled(line(79, **LOST, queue=204), BAD) == [lost.replace(" (4m12s)", "").removesuffix("; 204 queued")]
    held = [Condition("disk", NOW - 10), Condition("cluster", NOW - 60), Condition("cluster_records", NOW - 5)]
    assert styled(line(conditions=held, **REFUSED), BAD) == [
        "not storing since 21:45:40 (1m00s): refuses records: 192.0.2.9:6379: OOM"
    ]
    assert styled(line(**REFUSED), BAD) == ["not storing: refuses records: 192.0.2.9:6379: OOM"]
    assert styled(line(**{**LOST, "since": NOW - 90_000}), BAD)[0].startswith(
        "not connected since Nov 21 20:46 (1d01h):"
    )
    assert styled(line(running=False), BAD) == ["process not running: it is started again automatically; see the log"]
    assert styled(line(**{**LOST, "problem": ""}), WARN) == ["connecting since 21:42:28 (4m12s)"]


# ---- the screen


def test_problem_is_shown_whole_with_what_happens_meanwhile() -> None:
    lines = screen(**{**LOST, "problem": "word " * 30 + "end"})
    assert [style for line in lines[:3] for style in styled(line, BAD)] == [line.plain[1:] for line in lines[:3]]
    assert lines[2].plain.endswith("end")
    assert "Clients are screened without it" in lines[3].plain
    assert "until the server takes them" in "".join(line.plain for line in screen(**REFUSED))
    assert "started again" in "".join(line.plain for line in screen(running=False))


def test_counters_that_should_be_zero_stand_out() -> None:
    lines = screen(
        ignored={"bad_mac": 12, "foreign": 5, "newer": 2, "future": 1, "expired": 7, "deleted": 4, "of_2030": 3},
        late=8,
        unanswered=24,
        worker_packets_dropped=21,
        packets_dropped=22,
        queue_dropped=23,
    )
    assert [part.split()[-1] for line in lines for part in styled(line, BAD)] == ["12"]
    warned = [part for line in lines for part in styled(line, WARN)]
    assert sorted(int(part.split()[-1]) for part in warned) == [1, 2, 3, 5, 8, 21, 22, 23, 24]
    quiet = screen()
    assert [part for line in quiet for part in (*styled(line, WARN), *styled(line, BAD))] == []


def test_offenses_have_a_line_if_they_are_shared() -> None:
    shared = ClusterOffenses(stored=3120, found=1_204_000, queue=12)
    (line,) = [line for line in screen(offenses=shared) if line.plain.startswith(" Offenses")]
    assert line.plain == " Offenses 3,120 stored, 1.2 M found, 12 in the queue"
    assert styled(line, WARN) == []
    (line,) = [line for line in screen(offenses=ClusterOffenses(dropped=7)) if line.plain.startswith(" Offenses")]
    assert styled(line, WARN) == [", 7 dropped"]
    for nothing in (None, ClusterOffenses()):
        assert not any("Offenses" in line.plain for line in screen(offenses=nothing))


def test_slow_queue_stands_out() -> None:
    slow = screen(queue=1204, queue_bytes=168_560, queue_age=42.0)
    assert [part.split() for line in slow for part in styled(line, WARN)] == [
        ["queue", "1,204"],
        ["queue", "size", "169", "kB"],
        ["oldest", "waits", "42s"],
    ]
    assert not any(styled(line, WARN) for line in screen(queue=3, queue_bytes=420, queue_age=0.05))


@pytest.mark.parametrize(("height", "peers"), [(20, 3), (21, 3), (21, 40), (33, 3), (33, 40), (60, 100)])
@pytest.mark.parametrize(
    "different",
    [{}, LOST, {"offenses": ClusterOffenses(7)}, {**LOST, "offenses": ClusterOffenses(7)}],
    ids=["connected", "lost", "offenses", "lost-offenses"],
)
def test_peers_have_room(height: int, peers: int, different: dict[str, Any]) -> None:
    above = screen(80, height, peers=[PEERS[0]] * peers, **different)
    assert height - len(above) - 2 >= 3  # the note and the headings
    assert any("look-ups/s" in line.plain for line in above)


@driven
async def test_screen(tmp_path: Path) -> None:
    async with front_door(tmp_path, size=(100, 30)) as (app, pilot, server):
        world = server.world
        world.cluster = {}
        remember(app, server, 60)
        await seen(pilot, "mx4 away 4m12s")
        await pilot.press("9")
        await seen(pilot, "connected since", "round trip 0.4ms", "192.0.2.9:6379 (primary)", "this host mx1")
        await seen(pilot, "look-ups/s", "59s ago", "3 peers, 1 away")
        shown = [row.split() for row in rows(app)]
        assert any(row[:2] == ["asked", f"{world.asked:,}"] for row in shown)
        assert any(row[:2] == ["found", f"{world.found:,}"] for row in shown)
        assert ["mx2", "3.0s", "ago", "0.1.0", "present"] in shown
        assert ["mx4", "4m12s", "ago", "0.1.0", "away"] in shown
        ignored = {"bad_mac": 12}
        world.cluster = {"ignored": ignored, "resync": True}
        await seen(pilot, "running")
        assert any(row[-3:] == ["bad", "MAC", "12"] for row in map(str.split, rows(app)))
        table = app.view.exported()
        assert table is not None
        assert list(table.rows)[2] == ("mx4", world.time - 252.0, "0.1.0", 1)


@driven
async def test_peers_of_a_lost_server_are_unknown(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        server.world.cluster = {"connected": False, "problem": "192.0.2.9:6379: Connection refused"}
        await pilot.press("9")
        await seen(pilot, "not connected since", "Connection refused", "unknown")
        assert "present" not in text(app)
        assert "1 away" not in text(app)
        await pilot.press("1")
        await seen(pilot, "Cluster  not connected since")
        server.world.cluster = {}
        await seen(pilot, "Cluster  192.0.2.9:6379, 0.4ms")
        assert "not connected" not in text(app)


@driven
async def test_without_a_cluster_one_line_says_so(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await seen(pilot, "Verdicts", "failing")
        assert "Cluster  " not in text(app)
        await pilot.press("9")
        await seen(pilot, NOT_CONFIGURED)
        assert rows(app)[3:-1] == [""] * 20
        await pilot.press("x")
        await seen(pilot, "this screen has nothing to export")
        server.world.cluster = {}
        await seen(pilot, "connected since", "mx4")
        server.world.cluster = None
        await seen(pilot, NOT_CONFIGURED)
        await until(pilot, lambda: "mx4" not in text(app))


@driven
async def test_many_peers_scroll(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        names = [f"mx{number}" for number in range(100, 140)]
        peers = [{"name": name, "seen": server.world.time, "version": "0.1.0"} for name in names]
        server.world.cluster = {"peers": peers}
        await pilot.press("9")
        await seen(pilot, "40 peers", "mx100")
        assert "mx139" not in text(app)
        await pilot.press("end")
        await seen(pilot, "mx139")
        assert app.view.query_one(Table).chosen == "39 mx139"


@driven
async def test_a_narrow_terminal_has_a_tab_for_each_screen(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, _):
        assert rows(app)[1].split()[-2:] == ["w", "Net"]
        await pilot.click("#tabs", offset=(rows(app)[1].index("9 Clus"), 0))
        assert app.view.title == "Cluster"
        await pilot.click("#tabs", offset=(rows(app)[1].index("8 Warn"), 0))
        assert app.view.title == "Warnings"
        await pilot.resize_terminal(120, 24)
        await seen(pilot, "2 Connections", "8 Warnings", "9 Cluster")
        await pilot.click("#tabs", offset=(rows(app)[1].index("9 Cluster"), 0))
        assert app.view.title == "Cluster"


@driven
async def test_condition_is_on_every_screen(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        server.world.cluster = {"ignored": {"bad_mac": 3}}
        words = "cluster: the server has records that no known secret has signed; they are ignored"
        server.world.conditions = [{"kind": "cluster_records", "since": server.world.time, "text": words}]
        await seen(pilot, "1 fault (8)  CLUSTER_RECORDS: cluster: the server has records", "3 bad MACs")
        bad = [segment for segment in app._faults.render_line(0) if "CLUSTER_RECORDS" in segment.text]
        assert [segment.style.bgcolor.name for segment in bad if segment.style and segment.style.bgcolor] == ["red"]


@driven
async def test_rates_of_look_ups(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, _pilot, server):
        world = server.world
        remember(app, server, 2)
        assert app.link.history[-1].asked == 0.0
        world.cluster = {}
        remember(app, server, 1)
        assert app.link.history[-1].asked == 0.0  # there was nothing before
        asked, found = world.asked, world.found
        remember(app, server, 10)
        history = list(app.link.history)[-10:]
        assert (sum(one.asked for one in history), sum(one.found for one in history)) == (
            world.asked - asked,
            world.found - found,
        )
        world.cluster = {"asked": 5, "found": 3}  # a worker has been replaced
        remember(app, server, 1)
        assert (app.link.history[-1].asked, app.link.history[-1].found) == (0.0, 0.0)


@pytest.mark.parametrize("octets", [b"[@click=app.quit]x[/]", b"\x1b]0;x\x07", "\u202e\u3042".encode()], ids=repr)
def test_names_of_hosts_are_text(tmp_path: Path, octets: bytes) -> None:
    """In a cluster that works; `test_hostile` has one in trouble."""
    world = World(hostile=octets)

    @driven
    async def run() -> None:
        async with front_door(tmp_path, world, size=(200, 40)) as (app, pilot, _):
            assert world.cluster is not None
            world.cluster |= {"problem": "", "connected": True}
            shown = escape_bytes(octets)
            await seen(pilot, f"Cluster  connected to {shown} ({shown})", f"queue 0; {shown}")
            await pilot.press("9")
            await seen(pilot, f" {shown} ({shown})   this host {shown}", "1 peer", "others")
            assert any(row.split()[:1] == [shown] and "present" in row for row in rows(app))
            assert set(text(app)) <= OURS | {"\n"}

    run()
