"""/metrics beyond a screener's own start: hostile scrapers, with a clock of the test's; states of lists and workers."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import uvloop
from prometheus_client.core import GaugeMetricFamily, Metric

from fastscreen.control import metrics
from fastscreen.control.context import ServerContext
from fastscreen.control.messages import (
    Cluster,
    ClusterOffenses,
    ClusterPeer,
    Dns,
    Dnsbl,
    DnsblList,
    Feedback,
    Memory,
    Recorder,
    Status,
)
from fastscreen.control.messages import Worker as WorkerStatus
from fastscreen.control.metrics import Snapshot, Worker

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ASKED = b"GET /metrics HTTP/1.1\r\n\r\n"


class Page:
    """What is to be shown, of any size."""

    def __init__(self, octets: int = 10) -> None:
        self._octets = octets

    def collect(self) -> list[Metric]:
        return [GaugeMetricFamily("x", "x" * self._octets, value=1)]


class Scrapers:
    """Of one served socket. They are not closed by themselves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: list[asyncio.StreamWriter] = []

    async def one(self, words: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_unix_connection(self._path)
        self._writers.append(writer)
        writer.write(words)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def served(path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, try_it: Callable[[Scrapers], Awaitable[None]],
           snapshot: Callable[[ServerContext], Awaitable[Any]]) -> None:  # fmt: skip
    """Serve at a socket while something is tried."""
    monkeypatch.setattr(metrics, "TIMEOUT", patience)
    monkeypatch.setattr(metrics, "_snapshot", snapshot)

    async def run() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        server = await metrics.serve(cast(ServerContext, None), listener)
        scrapers = Scrapers(path)
        try:
            async with asyncio.timeout(60):
                await try_it(scrapers)
        finally:
            scrapers.close()
            server.close()

    uvloop.run(run())


async def page(_: ServerContext) -> Page:
    return Page()


async def rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_one_that_dribbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit applies to the whole request, and is not extended by single bytes."""

    async def try_it(scrapers: Scrapers) -> None:
        reader, writer = await scrapers.one(b"GET /metrics HTTP/1.1\r\n")
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        assert await rest(reader) == b""

    served(tmp_path / "s", monkeypatch, 0.1, try_it, page)


def octets(scraper: socket.socket) -> int:
    """How many have come, until the end."""
    number = 0
    with contextlib.suppress(ConnectionError):
        while more := scraper.recv(1 << 20):
            number += len(more)
    return number


def test_one_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off, and its place is another's, though it has asked."""
    big = 4 << 20

    async def snapshot(_: ServerContext) -> Page:
        return Page(big)

    async def try_it(scrapers: Scrapers) -> None:
        deaf = [socket.socket(socket.AF_UNIX) for _ in range(metrics.MAX_SCRAPERS)]
        hung_up = select.poll()
        for one in deaf:
            one.connect(str(tmp_path / "s"))
            one.send(ASKED)
            hung_up.register(one, 0)  # POLLHUP alone
        while len(hung_up.poll(0)) < len(deaf):
            await asyncio.sleep(0.01)
        for one in deaf:
            assert octets(one) < big
            one.close()
        reader, _ = await scrapers.one(ASKED)
        assert len(await rest(reader)) > big

    served(tmp_path / "s", monkeypatch, 0.1, try_it, snapshot)


def test_more_than_there_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections with a request stay. Others are closed, oldest first; if all have one, the newest is closed."""
    go_on = asyncio.Event()
    asked = 0

    async def snapshot(_: ServerContext) -> Page:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return Page()

    async def try_it(scrapers: Scrapers) -> None:
        first, _ = await scrapers.one(ASKED)
        while asked < 1:
            await asyncio.sleep(0)
        silent = [await scrapers.one() for _ in range(metrics.MAX_SCRAPERS - 1)]
        others = [await scrapers.one(ASKED) for _ in silent]
        for reader, _ in silent:
            assert await rest(reader) == b""
        while asked < metrics.MAX_SCRAPERS:
            await asyncio.sleep(0)
        beyond, _ = await scrapers.one(ASKED)
        assert await rest(beyond) == b""
        go_on.set()
        for reader in (first, *(reader for reader, _ in others)):
            assert (await rest(reader)).startswith(b"HTTP/1.0 200 OK\r\n")
        assert asked == metrics.MAX_SCRAPERS

    served(tmp_path / "s", monkeypatch, 60, try_it, snapshot)


def test_those_that_do_not_read_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, before their time limit: callers that never read do not block others."""
    big = 4 << 20

    async def snapshot(_: ServerContext) -> Page:
        return Page(big)

    async def try_it(scrapers: Scrapers) -> None:
        deaf = [socket.socket(socket.AF_UNIX) for _ in range(metrics.MAX_SCRAPERS)]
        answering = select.poll()
        for one in deaf:
            one.connect(str(tmp_path / "s"))
            one.send(ASKED)
            answering.register(one, select.POLLIN)
        while len(answering.poll(0)) < len(deaf):
            await asyncio.sleep(0.01)
        reader, _ = await scrapers.one(ASKED)
        assert len(await rest(reader)) > big
        for one in deaf:
            one.close()

    served(tmp_path / "s", monkeypatch, 600, try_it, snapshot)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\0\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 200_000, b"400"),
    ],
)
def test_what_is_no_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes, status: bytes) -> None:
    async def try_it(scrapers: Scrapers) -> None:
        reader, _ = await scrapers.one(request_)
        # One that has more to say than we listen to may see a reset instead.
        assert (await rest(reader)).startswith(b"HTTP/1.0 " + status) or len(request_) > metrics.MAX_REQUEST
        reader, _ = await scrapers.one(ASKED)
        assert (await rest(reader)).startswith(b"HTTP/1.0 200 ")

    served(tmp_path / "s", monkeypatch, 60, try_it, page)


def test_head_has_no_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def try_it(scrapers: Scrapers) -> None:
        reader, _ = await scrapers.one(ASKED)
        head, _, body = (await rest(reader)).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        reader, _ = await scrapers.one(ASKED.replace(b"GET", b"HEAD"))
        assert await rest(reader) == head + b"\r\n\r\n"

    served(tmp_path / "s", monkeypatch, 60, try_it, page)


# ---- families


def shown(lists: list[DnsblList], workers: dict[str, Worker]) -> dict[tuple[str, ...], float]:
    dns = Dns(queries=7, answers=7, timeouts=7, ignored_packets=7, in_flight=7, cached=7)
    status = Status(
        1.0, 0.0, "0.1.0", "mx.test", 1, workers=[WorkerStatus(int(number), 2, dns=dns) for number in workers]
    )
    snapshot = Snapshot(status, Dnsbl(lists=lists), {}, workers)
    return {(one.name, *one.labels.values()): one.value for family in snapshot._lists() for one in family.samples}


def named(name: str, state: str, p95: float | None = None) -> DnsblList:
    return DnsblList(name, state=state, p50=p95, p95=p95)


@pytest.mark.parametrize(
    ("state", "up", "in_score"),
    [("ok", 1, 1), ("slow", 1, 1), ("unused", 1, 1), ("failing", 0, 1), ("suspect", 1, 0), ("disabled", 0, 0)],
)
def test_states_of_a_list(state: str, up: int, in_score: int) -> None:
    found = shown([named("x", state)], {})
    assert found["fastscreen_dnsbl_up", "x"] == up
    assert found["fastscreen_dnsbl_in_score", "x"] == in_score


def test_lists_of_one_name_are_as_well_as_the_least_well() -> None:
    found = shown([named("x", "disabled", 0.1), named("x", "ok", 0.3), named("x", "ok")], {})
    assert (found["fastscreen_dnsbl_up", "x"], found["fastscreen_dnsbl_in_score", "x"]) == (0, 0)
    assert found["fastscreen_dnsbl_latency_seconds", "x", "0.95"] == 0.3


def test_a_worker_that_does_not_answer_lowers_no_counter() -> None:
    """A sum that falls would be taken for a start from 0."""
    counts = dict.fromkeys(("queries", "answers", "listed", "unique", "timeouts", "errors"), 5)
    both = {number: Worker({}, {"x": counts}) for number in ("1", "2")}
    found = shown([], both)
    assert (found["fastscreen_dnsbl_queries_total", "1", "x"], found["fastscreen_resolver_queries_total", "2"]) == (
        5,
        7,
    )
    one = {"2": both["2"]}
    assert shown([], one).items() < found.items()


def of_cluster(cluster: Cluster | None) -> dict[tuple[str, ...], float]:
    names = ("asked", "found", "ended", "late", "dropped")
    worker = Worker({f"cluster_{name}": number for number, name in enumerate(names, 1)}, {})
    snapshot = Snapshot(Status(1.0, 0.0, "0.1.0", "mx.test", 1, cluster=cluster), Dnsbl(), {}, {"1": worker})
    return {
        (one.name.removeprefix("fastscreen_cluster_"), *one.labels.values()): one.value
        for family in snapshot._cluster()
        for one in family.samples
    }


WORKERS = {
    ("lookups_total", "1"): 1,
    ("found_total", "1"): 2,
    ("waits_ended_total", "1"): 3,
    ("answers_late_total", "1"): 4,
    ("worker_packets_dropped_total", "1"): 5,
}


def test_a_cluster() -> None:
    peers = [ClusterPeer("mx2", 1.0), ClusterPeer("mx3", 1.0, away=True), ClusterPeer("mx4", 1.0)]
    found = of_cluster(
        Cluster(
            running=True, connected=True, round_trip=0.5, unanswered=6, stored=7, queue=8, queue_bytes=9, queue_age=1.5,
            queue_dropped=10, packets_dropped=11, ignored={"bad_mac": 12, "newer": 0}, peers=peers,
        )
    )  # fmt: skip
    assert found == WORKERS | {
        ("up",): 1,
        ("round_trip_seconds",): 0.5,
        ("unanswered_total",): 6,
        ("stored_total",): 7,
        ("queue_records",): 8,
        ("queue_bytes",): 9,
        ("queue_age_seconds",): 1.5,
        ("queue_dropped_total",): 10,
        ("packets_dropped_total",): 11,
        ("records_ignored_total", "bad_mac"): 12,
        ("records_ignored_total", "newer"): 0,
        ("peers", "present"): 2,
        ("peers", "away"): 1,
    }


def test_offenses_that_are_shared() -> None:
    found = of_cluster(Cluster(running=True, offenses=ClusterOffenses(stored=1, found=2, queue=3, dropped=4)))
    names = ("stored_total", "found_total", "queue", "dropped_total")
    assert [found[(f"offenses_{name}",)] for name in names] == [1, 2, 3, 4]
    assert not any(name[0].startswith("offenses_") for name in of_cluster(Cluster(running=True)))


def test_a_cluster_process_that_is_being_replaced() -> None:
    """Its counters are missing, so that they do not seem to start again."""
    assert of_cluster(Cluster()) == WORKERS | {("up",): 0}
    assert of_cluster(None) == {}


def of_history(history: Recorder | None) -> dict[str, float]:
    snapshot = Snapshot(Status(1.0, 0.0, "0.1.0", "mx.test", 1, history=history), Dnsbl(), {}, {})
    return {
        one.name.removeprefix("fastscreen_history_"): one.value
        for family in snapshot._history()
        for one in family.samples
    }


def test_a_history() -> None:
    recorder = Recorder(
        running=True, recording=True, sessions=1, lost=2, waiting=3, bytes=4, days=5, oldest=6.5, set_aside=7
    )
    numbers = {
        "sessions_total": 1,
        "lost_total": 2,
        "waiting": 3,
        "size_bytes": 4,
        "days": 5,
        "oldest_time_seconds": 6.5,
        "set_aside": 7,
    }
    assert of_history(recorder) == {"up": 1} | numbers
    assert of_history(Recorder(running=True)) == {"up": 0} | dict.fromkeys(numbers, 0)
    assert of_history(Recorder()) == {"up": 0}, "its counters would seem to start again"
    assert of_history(None) == {}


def of_memory(memory: Memory | None) -> dict[str, float]:
    snapshot = Snapshot(Status(1.0, 0.0, "0.1.0", "mx.test", 1, memory=memory), Dnsbl(), {}, {})
    return {
        one.name.removeprefix("fastscreen_offenses_"): one.value
        for family in snapshot._memory()
        for one in family.samples
    }


def test_the_memory_of_offenses() -> None:
    memory = Memory(
        running=True,
        entries=5,
        bytes=4096,
        bad=7,
        good=8,
        dropped=1,
        lost=2,
        waiting=3,
        lag=0.5,
        max_entries=100,
        systems=9,
        merged=3,
        unshared=4,
    )
    counters = {"bad_total": 7, "good_total": 8, "dropped_total": 1, "lost_total": 2}
    counters |= {"merged_total": 3, "unshared_total": 4}
    gauges = {"up": 1, "entries": 5, "entries_limit": 100, "size_bytes": 4096, "as_ranges": 9}
    assert of_memory(memory) == gauges | counters | {"waiting": 3, "lag_seconds": 0.5}
    assert of_memory(Memory(running=True, problem="full"))["up"] == 0
    assert of_memory(Memory()) == {"up": 0}
    assert of_memory(None) == {}


def of_feedback(feedback: Feedback | None) -> dict[str, float]:
    snapshot = Snapshot(Status(1.0, 0.0, "0.1.0", "mx.test", 1, feedback=feedback), Dnsbl(), {}, {})
    return {
        one.labels.get("outcome") or one.name.removeprefix("fastscreen_feedback_"): one.value
        for family in snapshot._feedback()
        for one in family.samples
    }


def test_feedback_of_the_mta() -> None:
    outcomes = {"accepted": 1, "rejected": 2, "spam": 3, "other": 4, "unknown": 5, "foreign": 6, "ambiguous": 7}
    log = {"lines": 8, "waiting": 9, "behind": 10, "skipped": 11, "slow": 12}
    feedback = msgspec.convert({"running": True, **outcomes, **log}, Feedback)
    assert of_feedback(feedback) == {"up": 1} | outcomes | {
        "lines_total": 8, "waiting": 9, "behind_bytes": 10, "skipped_bytes_total": 11, "slow_total": 12
    }  # fmt: skip
    assert of_feedback(Feedback(running=True, problem="gone"))["up"] == 0
    assert of_feedback(Feedback()) == {"up": 0}
    assert of_feedback(None) == {}
