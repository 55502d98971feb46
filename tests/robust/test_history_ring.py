"""The ring between a worker and the recorder: what is lost is counted, and a reader continues where another ended."""

import itertools
import os
import random
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastscreen.core import (
    HISTORY_FIELDS,
    HISTORY_OUTCOMES,
    HISTORY_RING_SIZE,
    HistoryReader,
    history_read,
)
from fastscreen.history.settings import decode, number
from robust.fakedns import FakeDns, listed
from robust.fakemta import FakeMta
from robust.harness import wait_until
from robust.historycore import Core, ring
from robust.test_history_core import DEEP, NO_TEASER, Make, make, mta, seen, with_lists

__all__ = ["make", "mta"]  # fixtures

KNOWN = {"access": {"mynetworks": ["127.1.0.0/16"]}, "handoff": {"to": "pass:/nonexistent"}}
"""Clients that the core refuses at once, because there is no MTA: the quickest session."""


def sessions(core: Core, count: int) -> None:
    """So many sessions that end at once."""
    clients = []
    accepted = core.screener.accepted
    for at in range(count):
        clients.append(core.connect(f"127.1.{at // 250}.{at % 250 + 1}"))
        if at % 100 == 99:
            core.run()
    core.run_until(lambda: core.screener.accepted == accepted + count, "all clients")
    core.end()
    for client in clients:
        client.hang_up()


def hosts(rows: list[tuple[int, bytes, bytes, int, int]]) -> list[int]:
    """Which of `sessions` these are."""
    return [250 * client[2] + client[3] - 1 for _, client, _, _, _ in rows]


def fields_of(ended_at: int, client: bytes, packed: bytes) -> dict[str, Any]:
    fields = history_read(ended_at, client, packed)
    assert fields is not None
    return dict(zip(HISTORY_FIELDS, fields, strict=True))


def test_size() -> None:
    assert HISTORY_RING_SIZE == 4096 + 65536 + 16384 * 320
    assert HistoryReader(ring()).capacity == 16384
    assert HistoryReader(ring(8)).capacity == 8
    with pytest.raises(ValueError, match="too small"):
        HistoryReader(memoryview(bytearray(4096 + 65536 + 319)))
    with pytest.raises((ValueError, BufferError)):
        HistoryReader(memoryview(bytes(HISTORY_RING_SIZE)))


def test_position(make: Make) -> None:
    """It moves with `done` only, and it is in the ring: another reader continues there."""
    core = make(KNOWN, room=16)
    sessions(core, 10)
    first = core.reader
    assert (first.head, first.written, first.tail, first.lost) == (10, 10, 0, 0)
    rows, lost = first.read(4)
    assert hosts(rows) == [0, 1, 2, 3]
    assert lost == first.tail == 0
    assert hosts(HistoryReader(core.memory).read(100)[0]) == list(range(10)), "not stored yet"
    first.done()
    assert first.tail == 4
    second = HistoryReader(core.memory)
    assert hosts(second.read(100)[0]) == list(range(4, 10))
    second.done()
    assert second.read(100) == ([], 0)
    second.done()
    assert first.tail == second.tail == 10


@pytest.mark.parametrize("count", [16, 17, 40])
def test_overrun(make: Make, count: int) -> None:
    core = make(KNOWN, room=16)
    sessions(core, count)
    rows, lost = core.reader.read(5)
    assert lost == count - 16
    assert hosts(rows) == list(range(count - 16, count - 11))
    assert core.reader.lost == 0
    assert core.reader.read(5) == (rows, lost), "counted once, when it is stored"
    core.reader.done()
    assert core.reader.lost == count - 16
    assert hosts(core.reader.read(99)[0]) == list(range(count - 11, count))
    core.reader.done()
    assert (core.reader.lost, core.reader.tail, core.reader.head) == (count - 16, count, count)


@pytest.mark.parametrize(("known", "expected"), [(1, [1] * 10), (3, [3, 3, 3]), (4, [4, 4]), (0, []), (11, [])])
def test_known_clients(make: Make, mta: FakeMta, known: int, expected: list[int]) -> None:
    """Of so many, one is recorded, with this weight; other sessions always are."""
    core = make(known=known)
    core.connect().rest()
    for _ in range(10):
        core.connect().rest()
    core.connect("127.8.0.1").rest()
    core.end()
    rows, lost = core.reader.read(99)
    assert lost == 0
    assert [fields_of(*row[:3])["weight"] for row in rows] == [1, *expected, 1]
    assert [row[4] for row in rows] == [0, *[1] * len(expected), 0]
    assert core.reader.sessions == 12


def test_without_a_history(make: Make, mta: FakeMta) -> None:
    core = make(recording=False)
    core.connect().rest()
    core.end()
    core.use_history()
    core.connect().rest()
    core.end()
    core.screener.use_history(None, 0, 1)
    core.connect().rest()
    core.end()
    assert core.reader.head == core.reader.sessions == 1


def test_settings(make: Make, mta: FakeMta, dns: FakeDns) -> None:
    """A record refers to the settings with which its session began."""
    core = make(with_lists("a.test"), dns=dns)
    before = core.reader.settings()
    assert before == core.built.description
    assert decode(before).lists == ("a.test",)
    generation = core.reader.generation
    held = core.connect()
    seen(held, 0.05)
    core.built = core.build(with_lists("b.test"))
    core.use_history()
    core.screener.use_policy(core.built.policy)
    after = core.reader.settings()
    assert after is not None
    assert decode(after).lists == ("b.test",)
    assert core.reader.generation > generation
    core.connect("127.1.0.2").rest()
    held.rest()
    core.end()
    rows, _ = core.reader.read(9)
    found = {client[3]: fields_of(ended_at, client, packed)["settings"] for ended_at, client, packed, _, _ in rows}
    assert found == {1: number(before), 2: number(after)}


def test_no_settings(make: Make) -> None:
    core = make(recording=False)
    assert core.reader.settings() is None
    assert core.reader.generation == 0
    core.screener.use_history(core.memory, 1, 1, b"x" * 65536)
    assert core.reader.settings() == b"x" * 65536
    core.screener.use_history(core.memory, 1, 1, b"x" * 65537)
    assert core.reader.settings() is None, "there is no room"
    core.screener.use_history(core.memory, 1, 1, b"y")
    assert core.reader.settings() == b"y"


GENERATION = struct.Struct("=Q")
AT = 5 * 8  # of the generation, in the header


def test_a_writer_was_killed(make: Make) -> None:
    """While it wrote the settings: they are unknown until its successor has written them."""
    core = make()
    assert core.reader.settings()
    odd = core.reader.generation + 1
    core.memory[AT : AT + 8] = GENERATION.pack(odd)
    assert core.reader.settings() is None
    core.screener.use_history(core.memory, 1, 1, b"new")
    assert core.reader.settings() == b"new"
    assert core.reader.generation == odd + 1


def test_another_version_is_emptied(make: Make) -> None:
    core = make(KNOWN, room=16)
    sessions(core, 3)
    core.memory[:8] = GENERATION.pack(99)
    reader = HistoryReader(core.memory)
    assert (reader.head, reader.tail, reader.settings()) == (0, 0, None)
    core.use_history()
    sessions(core, 2)
    assert hosts(reader.read(9)[0]) == [0, 1]


# ---- with a process at the other end


def child(work: Callable[..., object], *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        finally:
            os._exit(0)
    return pid


def ended(pid: int, signum: int = signal.SIGKILL) -> None:
    os.kill(pid, signum)
    os.waitpid(pid, 0)


def test_settings_are_never_torn(make: Make) -> None:
    core = make(recording=False)
    texts = [bytes([65 + at]) * (10_000 * at + 1) for at in range(6)]

    def write() -> None:
        for at in range(10**9):
            core.screener.use_history(core.memory, 1, 1, texts[at % 6])

    pid = child(write)
    try:
        found: Counter[bytes | None] = Counter()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            found[core.reader.settings()] += 1
        assert set(found) <= {*texts, None}
        assert len(found) >= 6
    finally:
        ended(pid)


def test_records_are_never_torn(make: Make, mta: FakeMta) -> None:
    """The writer overtakes the reader all the time. A record's HELO name is its own client's."""
    core = make(DEEP | NO_TEASER, room=8, recording=False)

    def write() -> None:
        core.use_history()
        for first in itertools.cycle(range(1, 60000, 40)):
            clients = [core.connect(f"127.1.{at >> 8 & 255}.{at & 255}") for at in range(first, first + 40)]
            for client in clients:
                name = socket.inet_aton(client.socket.getsockname()[0]).hex() * 7
                client.socket.sendall(b"HELO " + name.encode() + b"\r\nQUIT\r\n")
            core.end()
            for client in clients:
                client.hang_up()

    pid = child(write)
    try:
        rows = lost = 0
        end = time.monotonic() + 60
        while min(rows, lost) < 100 and time.monotonic() < end:
            tail = core.reader.tail
            if rows > lost:  # a reader with a processor of its own is faster
                full = tail + core.reader.capacity
                wait_until(lambda: core.reader.head > full, "the writer")  # noqa: B023 - called at once
            some, missed = core.reader.read(6)
            for ended_at, client, packed, outcome, _ in some:
                assert fields_of(ended_at, client, packed)["name"] == (client.hex() * 7).encode()
                assert HISTORY_OUTCOMES[outcome] == "left"
            core.reader.done()
            assert core.reader.tail == tail + len(some) + missed
            rows += len(some)
            lost += missed
        assert core.reader.lost == lost
        assert min(rows, lost) >= 100
    finally:
        ended(pid)


def test_a_reader_is_killed_and_another_continues(make: Make, folder: Path) -> None:
    """Whenever that is, every record is read; those of the last transaction perhaps twice."""
    core = make(KNOWN)
    file = folder / "read"

    def read() -> None:
        reader = HistoryReader(core.memory)
        with file.open("ab", buffering=0) as out:
            while True:
                rows, lost = reader.read(7)
                assert lost == 0
                out.write(b"".join(struct.pack("=H", host) for host in hosts(rows)))
                time.sleep(0.001)
                reader.done()

    pid = child(read)
    for _ in range(12):
        sessions(core, 150)
        ended(pid)
        pid = child(read)
    end = time.monotonic() + 20
    while core.reader.tail < 1800 and time.monotonic() < end:
        time.sleep(0.01)
    ended(pid)
    found = [host for (host,) in struct.iter_unpack("=H", file.read_bytes())]
    expected = list(range(150)) * 12
    at = 0
    for host in found:  # repeated ones follow each other: at most 7, from one reader to the next
        if at < len(expected) and host == expected[at]:
            at += 1
        else:
            assert host in expected[max(0, at - 7) : at]
    assert at == 1800
    assert len(found) <= 1800 + 12 * 7


def test_a_worker_is_killed_and_another_continues(make: Make) -> None:
    """It may die at any instruction; the ring is whole for its successor."""
    core = make(KNOWN, room=64, recording=False)

    def write() -> None:
        core.use_history()
        while True:
            sessions(core, 20)

    seen_heads = []
    for _ in range(8):
        pid = child(write)
        time.sleep(random.uniform(0.1, 0.3))
        ended(pid)
        before = core.reader.tail
        rows, lost = core.reader.read(100)
        core.reader.done()
        assert core.reader.tail == core.reader.head == before + len(rows) + lost
        seen_heads.append(core.reader.head)
    assert seen_heads == sorted(seen_heads)
    assert seen_heads[-1] > 50


# ---- any traffic

KINDS = ("silent", "early", "deep", "known", "quits", "listed", "proxied", "balancer")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 9)), min_size=1, max_size=40), st.booleans())
def test_as_many_records_as_sessions(
    folder: Path, dns: FakeDns, mta: FakeMta, clients: list[tuple[str, int]], stops: bool
) -> None:
    """Whatever clients do: each session leaves one record, but for a load balancer's health checks."""
    dns.zones["a.test"] = listed("127.0.0.2") if stops else dns.zones.get("a.test", listed("127.0.0.3"))
    with ExitStack() as opened:
        options = {"deep": {"pipelining": "enforce"}, "limits": {"client_connection_count": 2}}
        core = Core(folder, opened, options | {"dnsbl": {"sites": ["a.test"], "threshold": 2}}, dns=dns)
        for kind, number in clients:
            source = f"127.8.0.{number}" if kind == "known" else f"127.1.0.{number}"
            first = {
                "early": b"EHLO a\r\nQUIT\r\n",
                "proxied": f"PROXY TCP4 127.3.0.{number} 127.9.0.3 9 25\r\n".encode(),
                "balancer": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
            }.get(kind, b"")
            client = core.connect(source, core.proxy_port if kind in ("proxied", "balancer") else core.port, first)
            core.run()
            if kind in ("silent", "balancer"):
                client.hang_up()
            elif kind in ("deep", "quits") and not stops:
                client.socket.sendall(b"QUIT\r\n")
        core.screener.drain(hurry=True)
        core.run_until(lambda: core.screener.sessions == 0, "the end of all sessions")
        quiet = sum(kind == "balancer" for kind, _ in clients)
        rows, lost = core.reader.read(999)
        assert lost == 0
        assert core.reader.sessions == len(rows)
        assert core.screener.accepted - quiet <= len(rows) <= core.screener.accepted
        connected = core.log.lines().count(b"]: CONNECT from")
        assert connected == len(rows)
