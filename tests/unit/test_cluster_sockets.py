"""What the cluster process shares with workers and the control server: packets, requests, and how it is doing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastscreen.cluster import requests, worker_sockets
from fastscreen.cluster.requests import Answered, Check, Checked, ClusterRpc, DeletedElsewhere, Failed, Get, Known
from fastscreen.cluster.state import SIZE, ClusterState, ClusterStats, Peer
from fastscreen.cluster.worker_sockets import MOST, WorkerSockets
from fastscreen.process import rpc


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 10))


def received(end: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(end.recv(5000))
        except BlockingIOError:
            return found


def unguarded(callback: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        callback()

    return call


# ---- workers


def test_packets_of_all_workers_arrive() -> None:
    async def work() -> None:
        pairs = [worker_sockets.pair() for _ in range(3)]
        taken: list[tuple[int, bytes]] = []
        turns: list[int] = []
        loop = asyncio.get_running_loop()
        sockets = WorkerSockets(
            [ours for _, ours in pairs],
            lambda *what: taken.append(what),
            lambda: turns.append(len(taken)),
            unguarded,
            loop,
        )
        for number, (theirs, _) in enumerate(pairs):
            for packet in range(100):
                theirs.send(b"%d %d" % (number, packet))
        await asyncio.sleep(0.1)
        assert sorted(taken) == sorted((n, b"%d %d" % (n, packet)) for n in range(3) for packet in range(100))
        assert turns == [300], "all of them were read together"
        sockets.send(1, b"answer")
        assert received(pairs[1][0]) == [b"answer"]
        pairs[2][0].close()  # the supervisor has ended
        await asyncio.sleep(0.05)
        sockets.send(2, b"lost")
        assert sockets.dropped == 1
        sockets.close()

    run(work)


def test_a_worker_that_takes_nothing_loses_its_oldest_answers() -> None:
    async def work() -> None:
        theirs, ours = worker_sockets.pair()
        loop = asyncio.get_running_loop()
        sockets = WorkerSockets([ours], lambda *what: None, lambda: None, unguarded, loop)
        count = 0
        while not sockets.dropped:
            sockets.send(0, b"%04d" % count + bytes(4000))
            count += 1
            assert count < 10_000
        sockets.send(0, b"last")
        assert sockets.dropped == 2
        numbers: list[bytes] = []
        while not numbers or numbers[-1] != b"last":
            numbers += [packet[:4] for packet in received(theirs)]
            await asyncio.sleep(0.001)
        held = count - 1 - MOST  # in the socket
        expected = [b"%04d" % number for number in range(count) if not held <= number < held + 2]
        assert numbers == [*expected, b"last"]
        sockets.send(0, b"next")
        await asyncio.sleep(0.01)
        assert received(theirs) == [b"next"]
        sockets.close()

    run(work)


def test_what_workers_sent_last_is_taken() -> None:
    async def work() -> None:
        theirs, ours = worker_sockets.pair()
        taken: list[tuple[int, bytes]] = []

        def take(worker: int, packet: bytes) -> None:
            taken.append((worker, packet))

        loop = asyncio.get_running_loop()
        sockets = WorkerSockets([ours], take, lambda: None, lambda call: lambda: None, loop)
        theirs.send(b"last")
        sockets.close()
        assert taken == [(0, b"last")]

    run(work)


def test_what_a_former_worker_sent_is_taken() -> None:
    """It ended with answers unread, which is an error of the next read."""

    async def work() -> None:
        theirs, ours = worker_sockets.pair()
        other, ours_too = worker_sockets.pair()
        taken: list[tuple[int, bytes]] = []
        loop = asyncio.get_running_loop()
        sockets = WorkerSockets([ours, ours_too], lambda *what: taken.append(what), lambda: None, unguarded, loop)
        errors: list[Any] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        sockets.send(0, b"unread")
        theirs.send(b"last")
        other.send(b"first")
        theirs.close()
        await asyncio.sleep(0.05)
        assert sorted(taken) == [(0, b"last"), (1, b"first")]
        other.send(b"second")
        await asyncio.sleep(0.05)
        assert taken[2:] == [(1, b"second")]
        assert errors == []
        sockets.close()

    run(work)


# ---- the control server


def test_answers_go_to_their_requests() -> None:
    async def work() -> None:
        control, cluster = requests.pair()
        notes: list[DeletedElsewhere] = []
        client = ClusterRpc(control, notes.append)
        first, second = asyncio.create_task(client.ask(Check())), asyncio.create_task(client.ask(Get(b"abcd")))
        await asyncio.sleep(0.01)
        asked = [requests.receive_question(cluster), requests.receive_question(cluster)]
        assert asked[0] and asked[1] and [each.question for each in asked if each] == [Check(), Get(b"abcd")]
        rpc.send(cluster, Answered(7, Failed("to a predecessor")))
        rpc.send(cluster, Answered(0, DeletedElsewhere("192.0.2.0/24", "mx2", 5)))
        cluster.send(b"nonsense")
        rpc.send(cluster, Answered(asked[1].number, Known((1, 2), "mx2", 9)))
        rpc.send(cluster, Answered(asked[0].number, Checked(0.1, "server")))
        assert await first == Checked(0.1, "server")
        assert await second == Known((1, 2), "mx2", 9)
        assert notes == [DeletedElsewhere("192.0.2.0/24", "mx2", 5)]
        assert requests.receive_question(cluster) is None
        client.close()

    run(work)


def test_a_process_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TIMEOUT", 0.05)

    async def work() -> None:
        control, cluster = requests.pair()
        client = ClusterRpc(control)
        assert await client.ask(Check()) == Failed("the cluster process has not answered within 0.05 s")
        cluster.close()
        assert await client.ask(Check()) == Failed("the cluster process takes no requests now")
        client.close()

    run(work)


# ---- the state

STATS = ClusterStats(
    connected=True,
    since=5.5,
    server="192.0.2.1:6379",
    ignored={"bad_mac": 3},
    peers=tuple(Peer(f"mx{number}", 7.0, "1.0", False) for number in range(100)),
)


def test_the_state_is_read_as_it_was_written() -> None:
    memory = memoryview(bytearray(SIZE))
    ours, theirs = ClusterState(memory), ClusterState(memory)
    assert theirs.read() is None
    ours.write(STATS)
    assert theirs.read() == STATS
    ours.write(ClusterStats())
    assert theirs.read() == ClusterStats()
    ours.clear()
    assert theirs.read() is None


def test_a_state_that_is_half_written_is_not_read() -> None:
    memory = bytearray(SIZE)
    ClusterState(memoryview(memory)).write(STATS)
    for at in range(0, 600, 7):
        damaged = bytearray(memory)
        damaged[at] ^= 0x55
        assert ClusterState(memoryview(damaged)).read() is None
    damaged = bytearray(memory)
    damaged[4:8] = b"\xff" * 4
    assert ClusterState(memoryview(damaged)).read() is None


def test_peers_that_have_no_room_are_left_out() -> None:
    memory = memoryview(bytearray(SIZE))
    peers = tuple(Peer("x" * 63, 7.0, "v" * 600, True) for _ in range(100))
    ClusterState(memory).write(ClusterStats(connected=True, peers=peers))
    assert ClusterState(memory).read() == ClusterStats(connected=True)
