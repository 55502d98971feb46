"""The screen of networks: what can be found, opened and deleted, and what it says when there is nothing to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.text import Text
from textual.pilot import Pilot

from fastscreen.control.messages import (
    Event,
    Evidence,
    Feedback,
    HistorySession,
    Memory,
    Reputation,
    Reputations,
    Story,
)
from fastscreen.tui.app import Viewer
from fastscreen.tui.palette import BAD
from fastscreen.tui.recorded import record
from fastscreen.tui.views.networks import NO_MEMORY, feedback_lines, list_note, memory_lines, row
from fastscreen.tui.views.recorder import memory_line
from fastscreen.tui.views.story import told
from tui.memory_world import Remembered
from tui.pilot import driven, front_door, rows, seen, text, until
from tui.server import FakeServer

DAY = 1_796_083_200.0  # 2026-12-01
NETWORK = Reputation("192.0.2.0/24", "network", bad_members=7, known_members=9, is_bad=True, last_bad=DAY)


@asynccontextmanager
async def networks(
    folder: Path, size: tuple[int, int] = (80, 24), **named: Any
) -> AsyncIterator[tuple[Viewer, Pilot[None], FakeServer]]:
    async with front_door(folder, size=size, **named) as (app, pilot, server):
        server.remembered = Remembered()
        await pilot.press("w")
        await seen(pilot, "262 networks, ")
        yield app, pilot, server


def first(app: Viewer) -> str:
    """The subject of the first row."""
    at = next(at for at, line in enumerate(rows(app)) if "last bad" in line)
    return rows(app)[at + 1].split()[0]


def asked(server: FakeServer, verb: str) -> dict[str, Any]:
    """The last request."""
    return [request for request in server.asked if request["do"] == verb][-1]


@driven
async def test_sorts_and_pages(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, server):
        await pilot.press("s")
        await seen(pilot, "by share of bad addresses", "good▾")
        assert asked(server, "reputation.list")["sort"] == "share"
        await pilot.press("s")
        await seen(pilot, "by last offense")
        await pilot.press("s", "n")
        await seen(pilot, "worst first, 201 to 262")
        assert "n: more" not in text(app)
        await pilot.press("n")
        await pilot.pause(1.1)
        assert asked(server, "reputation.list")["start"] == 200
        await pilot.press("b")
        await seen(pilot, "1 to 200, n: more")
        assert first(app) == "198.51.0.0/24"


@driven
async def test_filter_and_systems(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, server):
        await pilot.press("slash", *"::/0", "enter")
        await seen(pilot, "2 networks of ::/0, ", "2001:db8:77:5::/64")
        await pilot.press("a")
        await seen(pilot, "::/0 selects networks: press a to see them")
        await pilot.press("slash", "ctrl+u", "enter")
        await seen(pilot, "7 AS, ")
        await pilot.press("slash", *"AS64503", "enter")
        await seen(pilot, "1 AS of AS64503, ")
        await pilot.press("enter")
        await seen(pilot, "networks of AS64503, ")
        assert all("AS64503" in line for line in rows(app)[6:20])
        server.refused["reputation.list"] = "'x' is not an address, a network or an AS"
        await seen(pilot, "is not an address, a network or an AS")
        assert "198.51." not in text(app)  # nothing old is taken for the answer


@driven
async def test_addresses_of_a_network_and_their_stories(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, _server):
        await pilot.press("enter")
        await seen(pilot, "198.51.0.0/24 AS64503   40 of 40 addresses bad, good share 0 %", "198.51.0.2", "Esc back")
        await pilot.press("enter")
        await until(pilot, lambda: app.view.title == "Story")
        await seen(pilot, "198.51.0.2", "Memory of offenses")
        await pilot.press("escape")
        await seen(pilot, "198.51.0.0/24 AS64503   40 of 40")
        await pilot.press("escape")
        await seen(pilot, "262 networks, ")


@driven
async def test_ipv6_addresses_are_hashes(tmp_path: Path) -> None:
    async with networks(tmp_path, (100, 30)) as (app, pilot, _server):
        await pilot.press("slash", *"2001:db8:77::/48", "enter")
        await seen(pilot, "2 networks of 2001:db8:77::/48")
        await pilot.press("j", "enter")
        await seen(pilot, "7 of 9 /64s bad", "2001:db8:77:6::/64")
        await pilot.press("enter")
        await seen(pilot, "9 of 10 addresses bad", "#5eed0000")
        await pilot.press("enter")
        await seen(pilot, "only a hash of this address is kept, so it has no story")
        assert app.view.title == "Networks"
        await pilot.press("d")
        await seen(pilot, "its whole /64 can be deleted")
        await pilot.press("escape")
        await seen(pilot, "7 of 9 /64s bad")


@driven
async def test_delete_asks_first(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, server):
        await pilot.press("d")
        await seen(pilot, "Delete all addresses of 198.51.0.0/24")
        await pilot.press("n", "d", "enter")  # only y means yes
        await until(pilot, lambda: "Delete" not in text(app))
        assert "198.51.0.0/24" in server.remembered.members  # type: ignore[union-attr]
        await pilot.press("d", "y")
        await seen(pilot, "1 entry changed or deleted", "261 networks, ")
        assert asked(server, "reputation.delete")["subject"] == "198.51.0.0/24"
        await pilot.press("enter")
        await seen(pilot, "198.51.1.0/24 AS64504   40 of 40")
        await pilot.press("d", "y")
        await seen(pilot, "39 of 39 addresses bad")
        await pilot.press("escape", "a")
        await seen(pilot, "7 AS")
        await pilot.press("d")
        await seen(pilot, "Delete the sums of AS64505? Its networks and addresses stay.")


@driven
async def test_delete_is_for_those_who_may_act(tmp_path: Path) -> None:
    async with networks(tmp_path, rights=("read",)) as (app, pilot, server):
        await seen(pilot, "read-only for this user")
        await pilot.press("d")
        await seen(pilot, "only root and fastscreen's user may delete entries")
        assert not any(request["do"] == "reputation.delete" for request in server.asked)
        assert app.is_running


@driven
async def test_network_that_is_gone_while_it_is_shown(tmp_path: Path) -> None:
    async with networks(tmp_path) as (_app, pilot, server):
        await pilot.press("enter")
        await seen(pilot, "198.51.0.2")
        server.remembered.members.clear()  # type: ignore[union-attr]
        await seen(pilot, "nothing is known of 198.51.0.0/24 any more")
        await pilot.press("escape")
        await seen(pilot, "no network with a bad address")


@driven
async def test_memory_comes_and_goes(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (app, pilot, server):
        await pilot.press("w")
        await seen(pilot, "score.memory is not set")
        await pilot.press("slash", "x")  # there is no line to type into
        await seen(pilot, "this screen has nothing to export")
        server.remembered = Remembered()
        await seen(pilot, "262 networks, ", "48,211 of 1 M entries")
        await pilot.press("j", "enter")
        await seen(pilot, "198.51.1.2")
        server.remembered = None
        await seen(pilot, "score.memory is not set")
        assert "198.51." not in text(app)


@driven
async def test_poll_while_the_application_ends(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, _server):
        await app.view.remove()
        await pilot.pause(1.2)
        assert app.is_running


@driven
async def test_search_that_goes_on(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, server):
        assert "reading" not in text(app)
        server.remembered.more = True  # type: ignore[union-attr]
        await seen(pilot, "still reading…")


@driven
async def test_export(tmp_path: Path) -> None:
    async with networks(tmp_path) as (app, pilot, _server):
        table = app.view.exported()
        assert table is not None
        assert next(iter(table.rows))[:4] == ("198.51.0.0/24", 1, 40, 40)
        await pilot.press("enter")
        await seen(pilot, "198.51.0.2")
        table = app.view.exported()
        assert table is not None
        assert [each[0] for each in table.rows][:2] == ["198.51.0.2", "198.51.0.3"]


# ---- texts


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def test_notes() -> None:
    def note(found: int, shown: int, start: int = 0, more: bool = False) -> str:
        parts = list_note(Reputations([NETWORK] * shown, more, found=found), "network", "worst", start, "", True)
        return "".join(part if isinstance(part, str) else part[0] for part in parts)

    assert note(1, 1) == "1 network, worst first"
    assert note(12_403, 200) == "12,403 networks, worst first, 1 to 200, n: more"
    assert note(12_403, 200, 800).endswith("801 to 1,000 (the first 1,000 can be listed)")
    assert note(0, 0) == "no network with a bad address"
    assert note(0, 0, more=True) == "no network with a bad address   still reading…"


def test_state_of_the_memory() -> None:
    assert plain(memory_lines(None, 300)) == [f" {NO_MEMORY}"]
    assert "not running" in memory_lines(Memory(), 80)[0].plain
    found = memory_lines(Memory(True, "score.memory: cannot be written", 5, 10, dropped=3, lost=2), 120)
    assert found[0].plain.endswith("3 dropped, 2 lost")
    assert found[1].plain == " score.memory: cannot be written"
    assert memory_line(Memory(), 79).plain == " Offenses the recorder is not running"
    assert memory_line(Memory(True, "disk full"), 79).plain == " Offenses not written: disk full"
    healthy = memory_line(Memory(True, "", 12, 100, 4096, 3, 9), 79).plain
    assert healthy == " Offenses 12 networks and AS, 4.1 kB; 3 offenses, 9 good since start"
    first = Memory(True, "", 12, 100, 4096, 1, 9)
    assert "; 1 offense, 9 good" in memory_line(first, 79).plain
    assert "   since the start: 1 offense, 9 good" in memory_lines(first, 80)[0].plain


def test_state_of_feedback() -> None:
    healthy = Feedback("/var/log/mail.log", True, accepted=20_417, rejected=310, spam=42, unknown=5, waiting=3)
    (line,) = feedback_lines(healthy, 80)
    assert line.plain == " MTA's log: 20,417 accepted, 310 rejected, 42 spam, 5 unknown, 3 waiting"
    (line,) = feedback_lines(msgspec.structs.replace(healthy, other=1), 80)
    assert line.plain == " MTA's log: 20,417 accepted, 310 rejected, 42 spam, 1 other, 5 unknown, 3 wait…"
    (line,) = feedback_lines(msgspec.structs.replace(healthy, behind=1_200_000, skipped=4_000_000), 120)
    assert line.plain.endswith(" 5 unknown, 3 waiting, 1.2 MB behind, 4 MB skipped")
    assert str(line.spans[-1].style) == BAD
    assert feedback_lines(Feedback("/var/log/mail.log"), 80) == []  # the line above says it
    lines = feedback_lines(Feedback("/var/log/mail.log", True, "/var/log/mail.log: Permission denied"), 80)
    assert plain(lines) == [" MTA's log is not read: /var/log/mail.log: Permission denied"]


@pytest.mark.parametrize(
    ("bad", "known", "share"), [(7, 9, "22 %"), (0, 0, "100 %"), (1, 60_000, "100 %"), (3, 3, "0 %")]
)
def test_good_share(bad: int, known: int, share: str) -> None:
    cells = row(Reputation("192.0.2.0/24", "network", bad_members=bad, known_members=known)).cells
    assert cells[4][0] == share


def test_story_has_the_evidence_and_what_is_remembered() -> None:
    evidence = "seen_network: 192.0.2.0/24: 7 of 9 addresses bad in 28 days"
    events = [
        Event(DAY - 99, "evidence", 1, 1, 6, "192.0.2.1", evidence=["no_tls"], number=1, text="no_tls: MAIL"),
        Event(DAY, "evidence", 1, 2, 7, "192.0.2.1", evidence=["seen_network"], number=2, text=evidence),
    ]
    own = Reputation("192.0.2.1", "address", bad=2.4, good=0.25, is_bad=True, last_bad=DAY)
    found = [Evidence("seen_address", 0, "192.0.2.1: bad 2.4, good 0.3, today")]
    lines = plain(told(Story("192.0.2.1", events=events, memory=[own, NETWORK], seen=found), DAY, 100))
    at = lines.index(" Evidence for the score")
    assert lines[at + 1 : at + 6] == [
        "   seen_network +2: 192.0.2.0/24: 7 of 9 addresses bad in 28 days",
        " Memory of offenses",
        "   192.0.2.1            bad  bad 2.4, good 0.2, last bad 2026-12-01",
        "   192.0.2.0/24         bad  7 of 9 addresses bad, good share 22 %, last bad 2026-12-01",
        "   seen_address +0: 192.0.2.1: bad 2.4, good 0.3, today (now)",
    ]
    lines = plain(told(Story("192.0.2.1"), DAY, 100))
    assert not any("Memory" in line or "Evidence" in line for line in lines)
    assert any("nothing is known" in line for line in plain(told(Story("192.0.2.1", memory=[]), DAY, 100)))


def test_recorded_session_has_each_part_of_the_score() -> None:
    session = HistorySession(
        1, "192.0.2.1", score=5, threshold=3, parts={"dnsbl": 3, "seen_network": 2},
        evidence=["seen_network", "no_tls"],
        texts={"seen_network": "enough neighbors in its /24 had committed offenses"},
    )  # fmt: skip
    lines = plain(record(session, 100))
    at = next(at for at, line in enumerate(lines) if line.startswith(" Score"))
    assert [line.strip() for line in lines[at : at + 4]] == [
        "Score        5, threshold 3",
        "dnsbl +3: DNSBLs",
        "seen_network +2: enough neighbors in its /24 had committed offenses",
        "no_tls: TLS not used",
    ]
