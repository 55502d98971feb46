"""The interfaces that a cache backend implements: LMDB's does, as far as mypy and the core can tell."""

from __future__ import annotations

import inspect
import ipaddress
from pathlib import Path

import pytest
from cachefixture import stamps

from fastscreen.cache import pending
from fastscreen.cache.interfaces import CacheAdmin, StampCache
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.pending import DELETED, PendingRecords
from fastscreen.control.cache_store import Store

KEY = bytes((192, 0, 2, 1))
STAMPS = stamps(2_000_000_000)


def opened(path: Path) -> StampCache:
    cache: StampCache = LmdbCache(path, warn=print, log=print, wake=lambda callback: callback())
    cache.open()
    return cache


@pytest.mark.parametrize(("protocol", "kind"), [(StampCache, LmdbCache), (CacheAdmin, Store)])
def test_each_method_has_the_parameters_of_the_interface(protocol: type, kind: type) -> None:
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"]
    assert len(methods) >= 6
    for name in methods:
        wanted = list(inspect.signature(getattr(protocol, name)).parameters)
        assert list(inspect.signature(getattr(kind, name)).parameters) == wanted, name


def test_what_a_worker_keeps_the_commands_find_and_delete(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    cache = opened(path)
    cache.keep(KEY, b"\x95\xce\x77\x35\x94\x00\x01\x01\x01\x01")
    assert cache.pending(KEY) == cache.lookup(KEY) == STAMPS
    cache.close()
    admin: CacheAdmin = Store(path)
    assert admin.get(KEY) == STAMPS
    assert admin.entries(None, b"", 10) == ([(KEY, STAMPS)], False)
    assert admin.delete(ipaddress.ip_network("192.0.2.0/24")) == (1, False)
    assert admin.get(KEY) is None
    admin.put([(KEY, STAMPS)])
    admin.close()
    cache = opened(path)
    assert cache.lookup(KEY) == STAMPS
    cache.end_batch()
    cache.close()


def test_pending_records_are_found_while_they_are_written() -> None:
    records = PendingRecords()
    records.add(b"a", b"1")
    taken = records.take()
    assert (taken, records.unwritten, records.find(b"a")) == ({b"a": b"1"}, {}, b"1")
    records.add(b"a", b"2")
    records.put_back(taken)  # it could not be written: what is newer stays
    assert records.find(b"a") == b"2"
    records.delete([b"a"])
    assert records.find(b"a") is DELETED


def test_another_file_gets_what_was_written_last() -> None:
    records = PendingRecords()
    records.add(b"a", b"1")
    records.take()
    records.write_again()
    assert records.unwritten == {b"a": b"1"}
    records.take()
    records.forget_written()
    records.write_again()
    assert records.unwritten == {}
    assert records.find(b"a") is None


def test_pending_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_PENDING", 2)
    records = PendingRecords()
    for key in (b"a", b"b", b"c"):
        records.add(key, b"1")
    records.add(b"a", b"2")
    assert records.unwritten == {b"a": b"2", b"b": b"1"}
