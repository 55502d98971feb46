"""The configuration and the disk limit the size of the cache; the least valuable records are dropped first."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachefixture import NOW, Fixture, stamps

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.process.conditions import Kind

SMALL = 1 << 20


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "cache")
    yield fixture
    fixture.close()


def flood(cache: LmdbCache, numbers: range, end: int, per_turn: int = 2000) -> None:
    """New IPv6 clients, spread over the address space as a keyed hash would spread them."""
    for start in range(numbers.start, numbers.stop, per_turn):
        for number in range(start, min(start + per_turn, numbers.stop)):
            cache.store(random.Random(number).randbytes(16), stamps(end))
        cache.turn()
    cache._lines.flush()


def text_of(fixture: Fixture, kind: Kind) -> str | None:
    return next((held.text for held in fixture.conditions.read() if held.kind is kind), None)


def test_a_flood_cannot_make_the_file_larger_than_max_size(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=SMALL)
    flood(cache, range(60_000), NOW + 3600)
    assert fixture.path.stat().st_size <= SMALL
    # What was stored last is there: the file takes new records, it does not just refuse them.
    latest = [random.Random(number).randbytes(16) for number in range(58_000, 60_000)]
    cache.turn()
    cache.close()
    reopened = fixture.cache(max_size=SMALL)
    assert sum(reopened.lookup(key) is not None for key in latest) > 1000
    (warning,) = fixture.warnings
    assert warning == (
        f"cache lmdb:{fixture.path}: nearly full: clients whose pass expires first go; raise cache.max_size"
    )


def test_the_condition_full_begins_and_ends(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=SMALL)
    assert text_of(fixture, Kind.CACHE) is None
    flood(cache, range(20_000), NOW + 3600)
    assert text_of(fixture, Kind.CACHE) == fixture.warnings[0]
    for _ in range(700):
        cache.turn()
    assert text_of(fixture, Kind.CACHE) is None


def test_expired_records_go_before_valid_ones(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=SMALL)
    known = [random.Random(f"known {number}").randbytes(16) for number in range(1, 2001)]
    for key in known:
        cache.store(key, stamps(NOW + 86400))
    flood(cache, range(6_000), NOW - 1)
    flood(cache, range(6_000, 20_000), NOW + 60)
    cache.turn()
    kept = sum(cache.lookup(key) is not None for key in known)
    expired = sum(cache.lookup(random.Random(number).randbytes(16)) is not None for number in range(6_000))
    cache.end_batch()
    # The clients known for a day outlive those known for a minute; of the expired ones hardly any is left.
    assert kept > 1900
    assert expired < 600


def test_a_full_file_stays_of_use_for_many_generations_of_clients(fixture: Fixture) -> None:
    """Pages are used again, whatever the order of keys: nothing ends in "nothing new is stored"."""
    cache = fixture.cache(max_size=SMALL)
    for generation in range(30):
        flood(cache, range(generation * 4000, (generation + 1) * 4000), NOW + generation)
    assert not [line for line in fixture.warnings if "nothing new is stored" in line]
    assert fixture.path.stat().st_size <= SMALL


def test_max_size_can_be_raised_by_a_reload(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=SMALL)
    cache.configure((True, False, False, False, False), 0, 86400, 16 * SMALL, 0)
    flood(cache, range(20_000), NOW + 3600)
    assert fixture.path.stat().st_size > SMALL
    assert fixture.warnings == []


def test_max_size_can_be_lowered_below_the_size_of_the_file(fixture: Fixture) -> None:
    """The file does not shrink, but it does not grow either, and new records are still stored."""
    cache = fixture.cache(max_size=16 * SMALL)
    flood(cache, range(30_000), NOW + 3600)
    before = fixture.path.stat().st_size
    cache.configure((True, False, False, False, False), 0, 86400, SMALL, 0)
    flood(cache, range(30_000, 60_000), NOW + 3600)
    assert fixture.path.stat().st_size <= before * 9 // 8
    assert not [line for line in fixture.warnings if "nothing new is stored" in line]
    cache.store(b"aaaa", stamps(NOW + 7200))
    cache.close()
    assert fixture.lookup(b"aaaa") == stamps(NOW + 7200)


def test_a_disk_with_little_left_is_not_filled(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=64 * SMALL, keep_free=5)
    flood(cache, range(30_000), NOW + 3600)
    before = fixture.path.stat().st_size
    assert before > 2 * SMALL
    fixture.free = 4
    flood(cache, range(30_000, 90_000), NOW + 3600)
    assert fixture.path.stat().st_size <= before * 9 // 8
    assert fixture.warnings == [
        f"less than 5 % of the file system of {fixture.path} is free: the cache does not grow, and drops the clients"
        " whose pass expires first"
    ]
    assert text_of(fixture, Kind.DISK) == fixture.warnings[0]
    fixture.free = 5  # a little room is not enough: it must not begin and end each second
    cache.turn()
    assert text_of(fixture, Kind.DISK) is not None
    fixture.free = 20
    cache.turn()
    assert text_of(fixture, Kind.DISK) is None
    flood(cache, range(90_000, 150_000), NOW + 3600)
    assert fixture.path.stat().st_size > before * 9 // 8


def test_a_file_opened_on_a_full_disk_keeps_what_it_has(fixture: Fixture) -> None:
    cache = fixture.cache()
    flood(cache, range(30_000), NOW + 3600)
    cache.close()
    size = fixture.path.stat().st_size
    fixture.free = 1
    cache = fixture.cache(keep_free=5)
    for _ in range(3):
        cache.turn()
    there = sum(cache.lookup(random.Random(number).randbytes(16)) is not None for number in range(30_000))
    cache.end_batch()
    assert there > 20_000
    cache.store(b"aaaa", stamps(NOW + 7200))
    cache.close()
    assert fixture.lookup(b"aaaa") == stamps(NOW + 7200)
    assert fixture.path.stat().st_size <= size * 9 // 8


def test_without_keep_free_the_disk_is_not_looked_at(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(path: Path) -> os.statvfs_result:
        raise AssertionError

    monkeypatch.setattr(fixture, "disk", disk)
    cache = fixture.cache(keep_free=0)
    cache.store(b"aaaa", stamps(NOW))
    cache.turn()
