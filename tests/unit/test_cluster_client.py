"""What the control server does with the cluster process: its statistics, requests, deletions; the verdict."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from fastscreen.cache.interfaces import Network
from fastscreen.cache.stamps import TESTS as TEST_COUNT
from fastscreen.cluster import requests, state
from fastscreen.cluster.records import Reason
from fastscreen.cluster.requests import (
    Answer,
    Answered,
    Delete,
    DeletedElsewhere,
    Deleting,
    Failed,
    Get,
    Known,
    Question,
    Unknown,
)
from fastscreen.cluster.state import ClusterState, ClusterStats, OffenseCounts, Peer
from fastscreen.config import Config, default, load
from fastscreen.control import cluster_client
from fastscreen.control.cluster_client import ClusterClient, SharedRecord
from fastscreen.control.mx_policy import Arrival
from fastscreen.control.protocol import RequestError
from fastscreen.control.verdict import TESTS, Facts, Limits, Verdict, judge
from fastscreen.process import rpc
from fastscreen.screening.access_list import Found

NOW = 1_800_000_000
KEY = b"\xc0\x00\x02\x01"
LATER = (NOW + 3600,) * TEST_COUNT


class Process:
    """The cluster process's end. answer: what it says; None: nothing."""

    def __init__(self, answer: Callable[[Question], Answer | None]) -> None:
        self.theirs, self.end = requests.pair()
        self.memory = memoryview(bytearray(state.SIZE))
        self.asked: list[Question] = []
        self._answer = answer
        asyncio.get_running_loop().add_reader(self.end.fileno(), self._read)

    def _read(self) -> None:
        if (asked := requests.receive_question(self.end)) is not None:
            self.asked.append(asked.question)
            if (answer := self._answer(asked.question)) is not None:
                rpc.send(self.end, Answered(asked.number, answer))


def run(
    work: Callable[[ClusterClient, Process, list[Network]], Awaitable[None]],
    answer: Callable[[Question], Answer | None] = lambda question: None,
) -> None:
    forgotten: list[Network] = []

    async def forget(network: Network) -> None:
        await asyncio.sleep(0.001)
        forgotten.append(network)

    async def main() -> None:
        process = Process(answer)
        client = ClusterClient(process.theirs, process.memory, forget)
        try:
            async with asyncio.timeout(20):
                await work(client, process, forgotten)
        finally:
            client.close()
            asyncio.get_running_loop().remove_reader(process.end.fileno())
            process.theirs.close()
            process.end.close()

    uvloop.run(main())


def counters(**numbers: int) -> dict[str, int]:
    return dict.fromkeys([f"cluster_{name}" for name in ("asked", "found", "ended", "late", "dropped")], 0) | {
        f"cluster_{name}": number for name, number in numbers.items()
    }


def test_statistics_of_the_process_and_of_the_workers() -> None:
    async def work(client: ClusterClient, process: Process, forgotten: list[Network]) -> None:
        answers = [counters(asked=5, found=3, ended=2, late=1, dropped=7), None, counters(asked=10)]
        absent = client.stats(answers)
        assert (absent.running, absent.connected, absent.asked, absent.found) == (False, False, 15, 3)
        written = ClusterStats(
            connected=True, since=1.0, server="127.0.0.1:6379", role="primary", round_trip=0.25, name="mx1", late=4,
            refused=2, stored=8, ignored={"bad_mac": 3}, oversized=9, dropped_packets=11, queue_records=12,
            queue_bytes=13, queue_age=14.0, queue_dropped=15, resync=True, deletions=16,
            offenses=OffenseCounts(17, 18, 19, 20),
            peers=(Peer("mx2", 2.0, "1.0", away=True),),
        )  # fmt: skip
        ClusterState(process.memory).write(written)
        found = client.stats(answers)
        assert msgspec.to_builtins(found) == {
            "running": True, "connected": True, "since": 1.0, "problem": "", "server": "127.0.0.1:6379",
            "role": "primary", "name": "mx1", "round_trip": 0.25, "asked": 15, "found": 3, "ended": 2, "late": 1,
            "worker_packets_dropped": 7, "unanswered": 6, "stored": 8, "queue": 12, "queue_bytes": 13,
            "queue_age": 14.0, "queue_dropped": 15, "packets_dropped": 11, "ignored": {"bad_mac": 3, "oversized": 9},
            "resync": True, "deletions": 16, "offenses": {"stored": 17, "found": 18, "queue": 19, "dropped": 20},
            "peers": [{"name": "mx2", "seen": 2.0, "version": "1.0", "away": True}],
        }  # fmt: skip

    run(work)


def test_what_the_cluster_knows() -> None:
    said: list[Answer] = []

    async def work(client: ClusterClient, process: Process, forgotten: list[Network]) -> None:
        said.append(Known(LATER, "mx2", 1.5))
        assert await client.known(KEY, accepts=True) == SharedRecord(LATER, "mx2", 1.5)
        assert process.asked == [Get(KEY)]
        unused = await client.known(KEY, accepts=False)
        assert (unused.stamps, unused.host) == (LATER, "mx2")
        assert "cluster.accept" in unused.problem
        shown = unused.message()
        assert (shown.host, shown.stored, set(shown.passed_until.values())) == ("mx2", 1.5, {float(NOW + 3600)})
        problems = set()
        for label in ("", *(reason.label for reason in Reason)):
            said.append(Unknown(label))
            found = await client.known(KEY, accepts=True)
            assert found.stamps is None
            assert not found.message().passed_until
            problems.add(found.problem)
        assert len(problems) == len(Reason) + 1
        assert not [text for text in problems if any(f": {reason.label}" in text for reason in Reason)], "no words"
        said.append(Failed("not connected yet"))
        assert (await client.known(KEY, accepts=True)).problem == "the cluster cannot be asked: not connected yet"

    run(work, lambda question: said[-1])


def test_a_process_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TIMEOUT", 0.05)

    async def work(client: ClusterClient, process: Process, forgotten: list[Network]) -> None:
        assert "has not answered" in (await client.known(KEY, accepts=True)).problem
        with pytest.raises(RequestError, match=r"deleted here, but perhaps not in the cluster: .*not answered"):
            await client.delete(_network("192.0.2.0/24"))

    run(work)


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


@pytest.mark.parametrize("sent", [True, False])
def test_deleting(sent: bool) -> None:
    async def work(client: ClusterClient, process: Process, forgotten: list[Network]) -> None:
        assert await client.delete(_network("2001:db8::/64")) is sent
        assert process.asked == [Delete("2001:db8::/64")]

    run(work, lambda question: Deleting(sent))


def test_the_workers_forget_what_other_hosts_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other; of very many, the oldest are left to the second deletion from the file."""
    monkeypatch.setattr(cluster_client, "FORGET_MAX", 10)

    async def work(client: ClusterClient, process: Process, forgotten: list[Network]) -> None:
        for number in range(3):
            note = DeletedElsewhere(f"192.0.{number}.0/24", "mx2", 1.0)
            rpc.send(process.end, Answered(0, note))
        while len(forgotten) < 3:
            await asyncio.sleep(0.001)
        assert [str(network) for network in forgotten] == ["192.0.0.0/24", "192.0.1.0/24", "192.0.2.0/24"]
        for number in range(100):
            client._deleted_elsewhere(DeletedElsewhere(f"198.51.100.{number}/32", "mx2", 1.0))
        await asyncio.sleep(0.1)
        assert [str(network) for network in forgotten[3:]] == [f"198.51.100.{number}/32" for number in range(90, 100)]

    run(work)


# ---- the verdict


def facts(shared: SharedRecord | None, **changes: Any) -> Facts:
    return msgspec.structs.replace(
        Facts(
            address="192.0.2.1",
            now=NOW,
            access=Found(),
            bypassed=False,
            sessions=0,
            relayed=0,
            counted=0,
            rate=0,
            network_rate=0,
            stamps=None,
            score=None,
            asked=0,
            shown={},
            limits=Limits(0, 0, 0, 100, 100, 100, stress=False),
            key="192.0.2.1",
            arrival=Arrival("192.0.2.9", open=True, others=False),
            shared=shared,
        ),
        **changes,
    )


def judged(shared: SharedRecord | None, config: Config | None = None, **changes: Any) -> Verdict:
    return judge(config or default(), facts(shared, **changes))


def texts(verdict: Verdict, step: str) -> list[str]:
    return [each.text for each in verdict.steps if each.step == step]


def test_a_pass_of_the_cluster_ends_the_wait() -> None:
    assert judged(None).verdict == "reconnect"
    found = judged(SharedRecord(LATER, "mx2", NOW - 60.0))
    assert (found.verdict, found.reply, found.wait, found.tests) == ("cached", None, None, [])
    assert texts(found, "cluster") == ["known at mx2: handed off as soon as the cluster has answered (PASS OLD)"]
    assert not texts(found, "greet")


@pytest.mark.parametrize(
    ("shared", "text"),
    [
        (SharedRecord(problem="not known to the cluster"), "not known to the cluster"),
        (SharedRecord(LATER, "mx2", 1.0, "known at mx2, but not used"), "known at mx2, but not used"),
        (SharedRecord((NOW,) * TEST_COUNT, "mx2", 1.0), "known at mx2, but its record there lacks a valid pass"),
    ],
)
def test_a_record_that_changes_nothing(shared: SharedRecord, text: str) -> None:
    found, without = judged(shared), judged(None)
    assert (found.verdict, found.wait, found.tests) == (without.verdict, without.wait, without.tests)
    [said] = texts(found, "cluster")
    assert said.startswith(text)


def test_a_pass_of_some_tests(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text('[dnsbl]\nsites = ["bl.test"]\naction = "enforce"\n[deep]\npipelining = "enforce"\n')
    config = load(file)
    whole = judged(None, config)
    assert whole.tests == ["pregreet", "dnsbl", "pipelining"]

    def with_passes(*tests: str) -> Verdict:
        stamps = tuple(NOW + 60 if test in tests else 0 for test in TESTS)
        return judged(SharedRecord(stamps, "mx2", 1.0), config)

    found = with_passes("pregreet")
    assert (found.verdict, found.tests, found.wait) == ("reconnect", ["dnsbl", "pipelining"], whole.wait)
    assert texts(found, "cluster") == ["known at mx2: pregreet will not be repeated"]
    found = with_passes("pregreet", "dnsbl")
    assert (found.verdict, found.tests, found.wait) == ("reconnect", ["pipelining"], None)
    assert not texts(found, "greet")
    assert with_passes("pregreet", "dnsbl", "pipelining").verdict == "cached"

    # A client that waits for nothing is not asked about: here its worker has the answers of all lists.
    known = {"stamps": tuple(NOW + 60 if test == "pregreet" else 0 for test in TESTS), "kept": True}
    found = judged(SharedRecord(LATER, "mx2", 1.0), config, **known)
    assert (found.verdict, found.tests, texts(found, "cluster")) == ("reconnect", ["dnsbl", "pipelining"], [])


def test_who_does_not_enter_the_greet_wait_is_not_asked_about() -> None:
    shared = SharedRecord(LATER, "mx2", 1.0)
    assert not texts(judged(shared, stamps=LATER), "cluster")
    assert judged(shared, stamps=LATER).verdict == "cached"
    assert not texts(judged(shared, bypassed=True), "cluster")
    vetoed = judged(shared, arrival=Arrival("192.0.2.9", open=False, others=False))
    assert (vetoed.verdict, texts(vetoed, "cluster")) == ("vetoed", [])
