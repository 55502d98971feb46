"""The history for callers of the control socket: what they get, and what they cannot do to the control server."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import historyfiles
import msgspec
import pytest
from historyfiles import NOON, deferred, known, listed, row

from fastscreen.control import history
from fastscreen.control.history import HistoryReader
from fastscreen.control.messages import (
    HistoryClientsRequest,
    HistoryMinutesRequest,
    HistorySessions,
    HistorySessionsRequest,
    HistorySum,
)
from fastscreen.control.protocol import RequestError
from fastscreen.history import archive
from fastscreen.history.archive import Archive

NOW = NOON + 3600.0
DAY = 86_400


def read(folder: Path | str, work: history.Work[Any], *, uid: int = 0, may_act: bool = True) -> Any:
    async def run() -> Any:
        reader = HistoryReader(str(folder), pytest.fail)
        try:
            return await reader.read(work, uid=uid, may_act=may_act)
        finally:
            reader.close()

    return asyncio.run(run())


def reading(test: Callable[[HistoryReader], Awaitable[None]], folder: Path | str) -> None:
    """Run something with a reader."""

    async def run() -> None:
        reader = HistoryReader(str(folder), lambda line: None)
        try:
            await test(reader)
        finally:
            reader.close()

    asyncio.run(run())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        known(-2 * DAY, "192.0.2.9"),
        listed(-DAY),
        *(known(at * 60, "192.0.2.9") for at in range(8)),
        deferred(65, "198.51.100.7", name=b"a\x1b[2J'; DROP TABLE sessions;--"),
        listed(90, lists=0b11, score=7, evidence=("helo_address",), lists_total=5),
        row(600, "2001:db8::1", outcome="relayed", mta_reply=554, mta_rejected=1, marks=("cached", "esmtp"), tls="1.3"),
    ]
    return historyfiles.make(tmp_path / "history", rows)


# ---- what is answered


def test_minutes(folder: Path) -> None:
    found = read(folder, history.minutes(HistoryMinutesRequest(NOON + 60, NOON + 120)))
    assert found.complete
    assert found.sums == [HistorySum(NOON + 60, {"handed_off": 1, "deferred": 1, "rejected": 1}, 1)]
    hours = read(folder, history.minutes(HistoryMinutesRequest(NOON - DAY, NOON + 3600, 3600)))
    assert [each.time - NOON for each in hours.sums] == [-DAY, 0]
    assert hours.sums[1] == HistorySum(NOON, {"handed_off": 8, "relayed": 1, "deferred": 1, "rejected": 1}, 9)


def test_steps_begin_with_the_span(folder: Path) -> None:
    """Also those of a zone whose hours begin within ours."""
    found = read(folder, history.minutes(HistoryMinutesRequest(NOON - 1800, NOON + 5400, 3600)))
    assert [each.time - NOON for each in found.sums] == [-1800]


def test_too_many_steps_are_refused() -> None:
    history.minutes(HistoryMinutesRequest(NOON, NOON + 1500 * 60))
    with pytest.raises(RequestError, match="more than 1500 steps"):
        history.minutes(HistoryMinutesRequest(NOON, NOON + 1501 * 60))


def sessions(folder: Path, **wanted: Any) -> HistorySessions:
    found: HistorySessions = read(folder, history.sessions(HistorySessionsRequest(**wanted), NOW))
    return found


def test_a_session_has_all_that_is_recorded(folder: Path) -> None:
    (found,) = sessions(folder, since=NOON, filter="outcome:rejected").sessions
    assert (found.address, found.ended, found.lasted) == ("192.0.2.1", NOON + 90, 7.0)
    assert (found.outcome, found.verdict, found.reply, found.score, found.threshold) == ("rejected", 550, 221, 7, 3)
    assert [(each.zone, each.state, each.answers, each.weight) for each in found.lists] == [
        ("zen.example", "listed", ["127.0.0.2"], 3),
        ("bl.example", "listed", ["127.0.0.2"], 2),
    ]
    assert found.parts == {"dnsbl": 5, "helo_address": 2}
    assert found.texts == {"helo_address": "HELO name is an address: user-pc"}
    assert (found.failed, found.evidence, found.helo) == (["dnsbl"], ["helo_address"], b"user-pc")
    (relayed,) = sessions(folder, filter="mta:5*").sessions
    assert (relayed.mta_reply, relayed.mta_rejected, relayed.tls) == (554, 1, "1.3")


def test_the_weight_of_an_answer_is_that_of_its_filter(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [listed(0, answers=((0, 127 << 24 | 255),))])
    (found,) = sessions(folder).sessions
    assert [(each.zone, each.answers, each.weight) for each in found.lists] == [("zen.example", ["127.0.0.255"], 0)]


def test_a_name_is_bytes(folder: Path) -> None:
    (found,) = sessions(folder, filter="helo:*drop*").sessions
    assert found.helo == b"a\x1b[2J'; DROP TABLE sessions;--"


def test_pages_of_sessions(folder: Path) -> None:
    """Each session is on one page, whatever its size."""
    whole = sessions(folder, since=NOON).sessions
    assert [each.ended for each in whole] == sorted((each.ended for each in whole), reverse=True)
    assert len(whole) == 11
    for limit in (1, 2, 5, 11):
        ids, before = [], 0
        while True:
            page = sessions(folder, since=NOON, limit=limit, before=before)
            ids += [each.id for each in page.sessions]
            before = page.next
            if not before:
                break
            assert len(ids) <= len(whole)
        assert ids == [each.id for each in whole]


def test_an_answer_fits_into_a_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lists with long names a session has: what does not fit is on the next page."""
    whole = [each.id for each in sessions(folder).sessions]
    monkeypatch.setattr(history, "MAX_BYTES", 1500)
    found, before, pages = [], 0, 0
    while True:
        page = sessions(folder, before=before)
        assert len(msgspec.msgpack.encode(page.sessions)) <= 1510
        found += [each.id for each in page.sessions]
        pages += 1
        before = page.next
        if not before:
            break
    assert found == whole
    assert pages > 4


def test_sessions_of_the_same_microsecond(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, counter=at) for at in range(5)])
    first = sessions(folder, limit=2)
    assert [each.id & 0xFF for each in first.sessions] == [4, 3]
    assert [each.id & 0xFF for each in sessions(folder, before=first.next).sessions] == [2, 1, 0]


def test_a_client(folder: Path) -> None:
    assert [each.ended - NOON for each in sessions(folder, address="192.0.2.1").sessions] == [90, -DAY]
    assert [each.ended - NOON for each in sessions(folder, address="192.0.2.1", until=NOON).sessions] == [-DAY]
    assert len(sessions(folder, address="2001:db8::1").sessions) == 1


def test_a_client_whose_address_is_cut(tmp_path: Path) -> None:
    """`history.mask` may be newer than some sessions; those of other clients with addresses in full are not its."""
    rows = [
        known(0, "192.0.2.0"),
        known(1, "192.0.2.1"),
        known(2, "192.0.2.2"),
        known(3, "2001:db8::"),
        known(4, "::1"),
    ]
    folder = historyfiles.make(tmp_path / "h", rows)
    for address, ends in (("192.0.2.1", [1, 0]), ("192.0.2.9", [0]), ("2001:db8:0:1::25", [3]), ("198.51.100.1", [])):
        work = history.sessions(HistorySessionsRequest(address=address), NOW, (24, 48))
        assert [each.ended - NOON for each in read(folder, work).sessions] == ends, address
    assert [each.ended - NOON for each in sessions(folder, address="192.0.2.9").sessions] == []


def test_a_filter_that_is_wrong(folder: Path) -> None:
    for text, why in (("score>", "a number is missing"), ("kind:greet", "only events"), ("list:no", "list:no")):
        with pytest.raises(ValueError, match=why):
            sessions(folder, filter=text)


def test_clients(folder: Path) -> None:
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW), NOW))
    assert (found.total, found.sessions, found.searched) == (4, 11, None)
    assert (found.clients[0].client, found.clients[0].outcomes) == ("192.0.2.9", {"handed_off": 8})
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW, by="network", limit=2), NOW))
    assert [(each.client, each.sessions) for each in found.clients] == [("192.0.2.0/24", 9), ("198.51.100.0/24", 1)]
    assert found.total == 3
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW, "2001:db8::/32", "network"), NOW))
    assert [each.client for each in found.clients] == ["2001:db8::/64"]


def test_a_session_that_stands_for_several_counts_as_many(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, weight=10), listed(1)])
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW), NOW))
    assert (found.sessions, found.clients[0].outcomes) == (11, {"handed_off": 10, "rejected": 1})
    (minute,) = read(folder, history.minutes(HistoryMinutesRequest(NOON, NOON + 60))).sums
    assert (minute.outcomes, minute.cached) == ({"handed_off": 10, "rejected": 1}, 10)


def test_what_is_covered(folder: Path) -> None:
    async def run(reader: HistoryReader) -> None:
        found = await reader.read(reader.covered, uid=0, may_act=True)
        assert (found.path, found.days, found.problem) == (str(folder), 3, "")
        assert (found.first, found.last) == (NOON - 2 * DAY, NOON + 600)
        assert found.size > 10_000

    reading(run, folder)


def test_an_empty_history(tmp_path: Path) -> None:
    async def run(reader: HistoryReader) -> None:
        found = await reader.read(reader.covered, uid=0, may_act=True)
        assert (found.first, found.last, found.days) == (None, None, 0)

    (tmp_path / "h").mkdir()
    reading(run, tmp_path / "h")
    assert sessions(tmp_path / "h").sessions == []


# ---- what goes wrong


def test_disabled() -> None:
    with pytest.raises(RequestError, match=r"^history: disabled \(history.path is empty\)"):
        read("", history.sessions(HistorySessionsRequest(), NOW))


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^history: .*/none: missing"):
        sessions(tmp_path / "none")


def test_a_damaged_day_is_reported_and_the_others_are_read(folder: Path) -> None:
    (path,) = folder.glob("2026-11-21*")
    path.write_bytes(b"x" * 8192)
    lines: list[str] = []

    async def run() -> None:
        reader = HistoryReader(str(folder), lines.append)
        work = history.sessions(HistorySessionsRequest(address="192.0.2.1"), NOW)
        for _ in range(2):
            found = await reader.read(work, uid=0, may_act=True)
            assert [each.ended - NOON for each in found.sessions] == [90]
        covered = await reader.read(reader.covered, uid=0, may_act=True)
        assert "damaged" in covered.problem
        path.unlink()
        covered = await reader.read(reader.covered, uid=0, may_act=True)
        assert covered.problem == ""
        await asyncio.sleep(0)
        reader.close()

    asyncio.run(run())
    (line,) = lines
    assert line.startswith("history: ")
    assert "damaged" in line


def test_time_runs_out_and_the_search_goes_on_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "READ_SECONDS", 0.0)
    monkeypatch.setattr(history, "FIRST_PART", 120.0)
    monkeypatch.setattr(archive, "PAGE", 2)
    found, before, turns = [], 0, 0
    while True:
        page = sessions(folder, filter="outcome:rejected", before=before)
        found += [each.ended - NOON for each in page.sessions]
        turns += 1
        assert (page.searched is None) == (not page.next)
        if not page.next:
            break
        assert page.searched is not None
        assert not before or page.next < before
        assert turns < 5000
        before = page.next
    assert found == [90, -DAY]
    assert turns > 5


def test_clients_are_counted_as_far_as_time_reaches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "READ_SECONDS", 0.0)
    monkeypatch.setattr(history, "FIRST_PART", 120.0)
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW), NOW))
    assert found.searched is not None
    assert found.sessions < 11


def test_the_number_of_clients_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(at, f"192.0.2.{at}") for at in range(100)])
    monkeypatch.setattr(history, "MAX_CLIENTS", 10)
    monkeypatch.setattr(archive, "PAGE", 4)
    found = read(folder, history.clients(HistoryClientsRequest(NOON, NOW), NOW))
    assert found.total == 12
    assert found.searched == NOON + 88


class Stuck:
    """Work that hangs until it may end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = 0

    def __call__(self, archive: Archive, limit: history.Limit) -> str:
        self.begun += 1
        self.may_end.wait(20)
        return "done"


def test_a_disk_that_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs its callers an error, and nobody else anything. When it is back, all goes on."""
    monkeypatch.setattr(history, "TURN_SECONDS", 0.3)
    monkeypatch.setattr(history, "LOST_SECONDS", 0.6)
    stuck = {7: Stuck(), 8: Stuck()}
    quick = history.minutes(HistoryMinutesRequest(NOON, NOON + 60))

    async def run(reader: HistoryReader) -> None:
        begin = time.monotonic()
        asked = [
            asyncio.create_task(reader.read(work, uid=uid, may_act=False))
            for uid, work in stuck.items()
            for _ in range(50)
        ]
        await asyncio.sleep(0.05)
        assert (await reader.read(quick, uid=0, may_act=True)).sums, "the operator does not wait for others"
        errors = [str(error) for error in await asyncio.gather(*asked, return_exceptions=True)]
        assert time.monotonic() - begin < 2
        assert [each.begun for each in stuck.values()] == [1, 1], "one for each user"
        assert sum("no answer from the disk" in error for error in errors) == 2
        assert sum("other requests are being answered" in error for error in errors) == 98
        with pytest.raises(RequestError, match="other requests"):
            await reader.read(quick, uid=7, may_act=False)
        for each in stuck.values():
            each.may_end.set()
        await asyncio.sleep(0.1)
        assert (await reader.read(quick, uid=7, may_act=False)).sums

    reading(run, folder)


def test_a_caller_that_leaves_stops_its_read(folder: Path) -> None:
    stopped = threading.Event()

    def work(archive: Archive, limit: history.Limit) -> None:
        while not limit.over:
            time.sleep(0.01)
        stopped.set()

    async def run(reader: HistoryReader) -> None:
        task = asyncio.create_task(reader.read(work, uid=0, may_act=True))
        await asyncio.sleep(0.05)
        task.cancel()
        assert await asyncio.to_thread(stopped.wait, 2)

    reading(run, folder)
