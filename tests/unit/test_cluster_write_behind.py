"""The queue of passes for the server: bounded in bytes and age, nothing lost on the way; and sending passes again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence

import pytest

from fastscreen.cache.interfaces import Entry
from fastscreen.cache.stamps import TESTS, Stamps
from fastscreen.cluster import write_behind
from fastscreen.cluster.write_behind import Pass, Resync, WriteQueue


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


def stamps(*first: int) -> Stamps:
    return (*first, *(1,) * (TESTS - len(first)))


def taken(queue: WriteQueue, batches: int = 1) -> list[tuple[bytes, Stamps]]:
    return [(each.key, each.stamps) for batch in queue.take(batches) for each in batch]


def test_what_is_acknowledged_is_gone() -> None:
    queue = WriteQueue(Clock())
    for number in range(450):
        queue.put(key(number), stamps(9), 1000 + number)
    batches = queue.take(2)
    assert [len(batch) for batch in batches] == [200, 200]
    assert (len(queue), queue.waiting) == (450, 50)
    queue.acknowledge()
    assert (len(queue), queue.waiting) == (50, 50)
    assert [each.key for each in queue.take(5)[0]] == [key(number) for number in range(400, 450)]
    queue.acknowledge()
    assert (len(queue), queue.bytes, queue.age, queue.first) == (0, 0, 0.0, math.inf)
    assert queue.take() == []


def test_what_is_not_acknowledged_comes_first_again() -> None:
    queue = WriteQueue(Clock())
    queue.put(key(1), stamps(5, 1), 1000)
    queue.put(key(2), stamps(5), 1001)
    before = queue.bytes
    assert [each.key for each in queue.take()[0]] == [key(1), key(2)]
    queue.put(key(3), stamps(6), 1002)
    queue.put(key(1), stamps(1, 7), 1003)  # it changed while it was on its way
    queue.put_back()
    assert queue.take() == [
        [
            Pass(key(1), stamps(5, 7), 1003, 1000),
            Pass(key(2), stamps(5), 1001, 1001),
            Pass(key(3), stamps(6), 1002, 1002),
        ]
    ]
    assert queue.bytes == before * 3 // 2
    queue.acknowledge()
    assert queue.bytes == 0


def test_what_changes_on_its_way_is_sent_once_more() -> None:
    queue = WriteQueue(Clock())
    queue.put(key(1), stamps(5), 1000)
    queue.take()
    queue.put(key(1), stamps(9), 1001)
    assert queue.take() == []
    queue.acknowledge()
    assert taken(queue) == [(key(1), stamps(9))]


def test_the_later_stamp_of_each_test_wins() -> None:
    queue = WriteQueue(Clock())
    queue.put(key(1), stamps(100, 200), 1000)
    queue.put(key(2), stamps(1), 1001)
    size = queue.bytes
    queue.put(key(1), stamps(150, 50), 1002)
    assert queue.bytes == size
    assert queue.first == 1000
    assert taken(queue) == [(key(1), stamps(150, 200)), (key(2), stamps(1))]


def test_bytes_are_bounded_and_the_oldest_goes_first() -> None:
    queue = WriteQueue(Clock())
    queue.put(key(0), stamps(9), 0)
    each = queue.bytes
    queue = WriteQueue(Clock(), bytes_max=10 * each)
    for number in range(15):
        queue.put(key(number), stamps(9), 1000 + number)
    assert (len(queue), queue.bytes, queue.dropped) == (10, 10 * each, 5)
    assert queue.dropped_since == 1000
    assert queue.forgive() == 1000
    assert queue.forgive() == math.inf
    assert taken(queue)[0] == (key(5), stamps(9))
    queue.put(key(20), stamps(9), 2000)  # all others are on their way
    assert (len(queue), queue.dropped_since) == (10, 2000)


def test_sixteen_megabytes_are_memory_that_is_used() -> None:
    """What is counted is about what Python uses."""
    import tracemalloc

    queue = WriteQueue(Clock())
    tracemalloc.start()
    for number in range(5000):
        queue.put(key(number), tuple(2_000_000_000 + number + test for test in range(TESTS)), 1000.5 + number)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.6 * used < queue.bytes < 1.6 * used


def test_age_is_bounded() -> None:
    clock = Clock()
    queue = WriteQueue(clock)
    queue.put(key(1), stamps(9), 1000)
    clock.now += 300
    queue.put(key(2), stamps(9), 1300)
    queue.put(key(1), stamps(10), 1300)
    clock.now += 299
    queue.expire()
    assert (len(queue), queue.age) == (2, 599)
    clock.now += 2
    queue.expire()
    assert (len(queue), queue.age, queue.dropped, queue.dropped_since) == (1, 301, 1, 1000)


def test_deleted_passes_are_not_sent() -> None:
    queue = WriteQueue(Clock())
    for number in range(4):
        queue.put(key(number), stamps(9), 1000 + number)
    assert queue.remove(lambda each, made: made <= 1001 and each != key(0)) == 1
    assert [each for each, _ in taken(queue)] == [key(0), key(2), key(3)]


# ---- sending again


class Cache:
    def __init__(self, count: int, size: int = 3) -> None:
        self.entries: list[Entry] = [(key(number), stamps(number)) for number in range(count)]
        self.size = size
        self.reads = 0

    async def __call__(self, after: bytes) -> tuple[list[Entry], bool]:
        self.reads += 1
        left = [entry for entry in self.entries if entry[0] > after or (not after and entry[0] == key(0))]
        return left[: self.size], len(left) > self.size


def choose(entries: Iterable[Entry], since: float) -> list[Pass]:
    return [Pass(each, found, 0, 0) for each, found in entries if found[0] >= since]


def resync(cache: Cache, fails_at: int = -1) -> tuple[Resync, list[bytes], list[float]]:
    sent: list[bytes] = []
    pauses: list[float] = []

    async def send(batch: Sequence[Pass]) -> None:
        if len(sent) == fails_at:
            raise ConnectionError("gone")
        sent.extend(each.key for each in batch)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    return Resync(cache, send, choose, pause), sent, pauses


def test_all_passes_are_sent_in_batches_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "BATCH", 2)
    again, sent, pauses = resync(Cache(10))
    asyncio.run(again.run(-math.inf))
    assert sent == [key(number) for number in range(10)]
    assert pauses == [0.05] * 7  # 2 and 1 of each three, and the last one
    assert (again.sent, again.is_running) == (10, False)


def test_only_newer_passes_are_sent() -> None:
    cache = Cache(10)
    again, sent, pauses = resync(cache)
    asyncio.run(again.run(7))
    assert sent == [key(7), key(8), key(9)]
    assert len(pauses) == cache.reads == 4, "reading is slow, too"


def test_a_lost_server_ends_it() -> None:
    again, sent, _ = resync(Cache(10), fails_at=3)
    with pytest.raises(ConnectionError):
        asyncio.run(again.run(-math.inf))
    assert len(sent) == 3
    assert not again.is_running
