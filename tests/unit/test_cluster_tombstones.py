"""Deletions: of which clients, in which order, how many; and what the local cache is asked to delete, and when."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import Callable
from typing import Any

import pytest

from fastscreen.cache.interfaces import Network
from fastscreen.cache.stamps import Stamps
from fastscreen.cluster import local_cache, tombstones
from fastscreen.cluster.local_cache import LocalCache
from fastscreen.cluster.tombstones import Tombstone, Tombstones


def made(network: str, time: int) -> Tombstone:
    return Tombstone(ipaddress.ip_network(network), time, "mx1")


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def test_the_latest_deletion_of_a_client_counts() -> None:
    table = Tombstones()
    assert table.add(made("192.0.2.0/24", 100), b"a")
    assert table.add(made("192.0.2.1", 90), b"b")
    assert table.add(made("2001:db8::/32", 80), b"c")
    assert table.deleted_at(packed("192.0.2.1")) == 100
    assert not table.add(made("192.0.2.1", 90), b"b")
    assert not table.add(made("192.0.2.1", 89), b"d")
    assert table.add(made("192.0.2.1", 110), b"e")
    assert table.deleted_at(packed("192.0.2.1")) == 110
    assert table.deleted_at(packed("192.0.2.2")) == 100
    assert table.deleted_at(packed("192.0.3.1")) == -math.inf
    assert table.deleted_at(packed("2001:db8::1")) == 80
    assert table.deleted_at(packed("2001:db9::1")) == -math.inf


def test_a_network_s_record_is_deleted_with_it_and_not_with_one_of_its_clients() -> None:
    table = Tombstones()
    table.add(made("192.0.2.0/24", 100), b"")
    table.add(made("192.0.3.1", 100), b"")
    assert table.deleted_at(packed("192.0.2.0") + bytes([24])) == 100
    assert table.deleted_at(packed("192.0.2.128") + bytes([25])) == 100
    assert table.deleted_at(packed("192.0.0.0") + bytes([16])) == -math.inf
    assert table.deleted_at(packed("192.0.3.0") + bytes([24])) == -math.inf


def test_the_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "MOST", 3)
    table = Tombstones()
    for number in range(5):
        table.add(made(f"192.0.2.{number}", 100 + number), b"%d" % number)
    table.add(made("192.0.2.2", 200), b"again")
    table.add(made("192.0.2.9", 201), b"9")
    assert [value for _, value in table.values()] == [b"4", b"again", b"9"]
    assert table.deleted_at(packed("192.0.2.3")) == -math.inf


def test_old_ones_are_forgotten() -> None:
    table = Tombstones()
    for number in range(4):
        table.add(made(f"192.0.2.{number}", 100 + number), b"")
    table.expire(102)
    assert len(table) == 2
    assert table.deleted_at(packed("192.0.2.1")) == -math.inf
    assert table.deleted_at(packed("192.0.2.2")) == 102


# ---- in the local cache


def never(stamps: Stamps) -> bool:
    return False


class Admin:
    """A `CacheAdmin` that notes what it is asked to delete."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.deleted: list[tuple[float, str]] = []
        self.more = 0
        self.fails = False
        self.closed = False

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool]) -> tuple[int, bool]:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.deleted.append((round(self.clock(), 1), str(network)))
        self.more -= 1
        return 1, self.more >= 0

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cache, "SETTLED_SECONDS", 0.3)
    monkeypatch.setattr(local_cache, "RETRY_SECONDS", 0.2)


def run(work: Callable[[LocalCache, Admin, list[str]], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        admin = Admin(lambda: loop.time() - start)
        lines: list[str] = []
        cache = LocalCache(admin, lines.append, loop.time)  # type: ignore[arg-type]
        task = loop.create_task(cache.run())
        try:
            await work(cache, admin, lines)
        finally:
            task.cancel()
            cache.close()

    asyncio.run(main())


@pytest.mark.usefixtures("fast")
def test_records_are_deleted_at_once_and_when_workers_have_written_theirs() -> None:
    async def work(cache: LocalCache, admin: Admin, lines: list[str]) -> None:
        cache.delete(ipaddress.ip_network("192.0.2.0/24"), never)
        await asyncio.sleep(0.1)
        cache.delete(ipaddress.ip_network("192.0.3.0/24"), never)
        await asyncio.sleep(0.6)
        assert admin.deleted == [
            (0.0, "192.0.2.0/24"),
            (0.1, "192.0.3.0/24"),
            (0.3, "192.0.2.0/24"),
            (0.4, "192.0.3.0/24"),
        ]
        assert lines == []

    run(work)


@pytest.mark.usefixtures("fast")
def test_a_large_network_is_deleted_to_its_end() -> None:
    async def work(cache: LocalCache, admin: Admin, lines: list[str]) -> None:
        admin.more = 3
        cache.delete(ipaddress.ip_network("192.0.2.0/24"), never)
        await asyncio.sleep(0.1)
        assert len(admin.deleted) == 4

    run(work)


@pytest.mark.usefixtures("fast")
def test_what_cannot_be_deleted_is_tried_again_and_logged_once() -> None:
    async def work(cache: LocalCache, admin: Admin, lines: list[str]) -> None:
        admin.fails = True
        cache.delete(ipaddress.ip_network("192.0.2.0/24"), never)
        await asyncio.sleep(0.5)
        assert admin.deleted == []
        assert lines == [
            "cluster: 192.0.2.0/24, which another host deleted, is not deleted here yet: No space left on device; "
            "retried"
        ]
        admin.fails = False
        await asyncio.sleep(0.4)
        assert [network for _, network in admin.deleted] == ["192.0.2.0/24"]

    run(work)


def test_without_a_cache_there_is_nothing_to_do() -> None:
    async def work() -> None:
        cache = LocalCache(None, pytest.fail, asyncio.get_running_loop().time)
        cache.delete(ipaddress.ip_network("192.0.2.0/24"), never)
        assert await cache.read(b"") == ([], False)
        cache.close()

    asyncio.run(work())
