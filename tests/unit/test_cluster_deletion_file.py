"""The file with deletions that the server does not have yet."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from pathlib import Path

import pytest

from fastscreen.cluster import deletion_file
from fastscreen.cluster.deletion_file import DamagedError, DeletionFile

ONE, TWO, SIX = map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.7/32", "2001:db8::/64"))
NOW = int(time.time())


@pytest.fixture
def file(tmp_path: Path) -> DeletionFile:
    return DeletionFile(tmp_path / "cache")


def add(file: DeletionFile, *deletions: deletion_file.Deletion) -> None:
    for deletion in deletions:
        asyncio.run(file.add(deletion))


def test_what_is_added_is_there_until_it_is_removed(file: DeletionFile) -> None:
    assert file.read() == {}
    add(file, (ONE, NOW), (SIX, NOW + 1), (TWO, NOW + 2))
    assert list(file.read().items()) == [(ONE, NOW), (SIX, NOW + 1), (TWO, NOW + 2)]
    assert file.path.name == "cache.deletions"
    assert file.path.stat().st_mode == 0o100600
    asyncio.run(file.remove([(ONE, NOW), (TWO, NOW + 2)]))
    assert DeletionFile(file.path.with_name("cache")).read() == {SIX: NOW + 1}
    asyncio.run(file.remove([(SIX, NOW + 1)]))
    assert list(file.path.parent.iterdir()) == []
    asyncio.run(file.remove([(SIX, NOW + 1)]))


def test_the_later_of_two_deletions_stays(file: DeletionFile) -> None:
    """Also if the earlier one is removed meanwhile, by another process."""
    add(file, (ONE, NOW), (TWO, NOW), (ONE, NOW + 5), (TWO, NOW - 5))
    assert file.read() == {ONE: NOW + 5, TWO: NOW}
    asyncio.run(file.remove([(ONE, NOW), (TWO, NOW + 1)]))
    assert file.read() == {ONE: NOW + 5}


def test_a_deletion_of_the_future_is_removed_with_one_of_the_present(file: DeletionFile) -> None:
    """The clock was wrong, and is right now."""
    add(file, (ONE, NOW + 1_000_000), (TWO, NOW + 100))
    asyncio.run(file.remove([(ONE, NOW), (TWO, NOW)]))
    assert file.read() == {TWO: NOW + 100}


def test_it_is_bounded(file: DeletionFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_file, "MOST", 3)
    networks = [ipaddress.ip_network(f"192.0.2.{number}") for number in range(5)]
    add(file, *((network, NOW) for network in networks))
    assert list(file.read()) == networks[2:]


def test_as_many_as_fit_can_be_read(file: DeletionFile) -> None:
    networks = [ipaddress.ip_network((0x20010DB8 << 96 | number << 64 | 1 << 63, 128)) for number in range(10_000)]
    file._write(dict.fromkeys(networks, 2**32 - 1))
    assert file.path.stat().st_size < deletion_file.SIZE_MAX
    assert len(file.read()) == deletion_file.MOST


ODD = {
    "empty": b"",
    "text": b"deletions\n",
    "cut": b'{"version":1,"deletions":[{"network":"192.0.2.0/2',
    "version": b'{"version":2,"deletions":[]}',
    "list": b"[]",
    "no-network": b'{"version":1,"deletions":[{"network":"192.0.2.0/33","time":1}]}',
    "host-bits": b'{"version":1,"deletions":[{"network":"192.0.2.1/24","time":1}]}',
    "no-time": b'{"version":1,"deletions":[{"network":"192.0.2.0/24","time":"1"}]}',
    "odd-time": b'{"version":1,"deletions":[{"network":"192.0.2.0/24","time":-1}]}',
    "late": b'{"version":1,"deletions":[{"network":"192.0.2.0/24","time":4294967296}]}',
    "nested": b"[" * 100_000,
    "binary": bytes(range(256)),
    "long": b'{"version":1,"deletions":[' + b" " * (1 << 20) + b"]}",
    "many": b'{"version":1,"deletions":[' + b",".join([b'{"network":"::1","time":1}'] * 10_001) + b"]}",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_damaged_file_is_set_aside(file: DeletionFile, content: bytes) -> None:
    file.path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"cache\.deletions is damaged, and now named cache\.deletions\.damaged: "):
        file.read()
    assert file.path.with_name("cache.deletions.damaged").read_bytes() == content
    assert file.read() == {}


def test_what_is_added_to_a_damaged_file_is_kept(file: DeletionFile) -> None:
    file.path.write_bytes(b"{")
    with pytest.raises(DamagedError):
        add(file, (ONE, NOW))
    assert file.read() == {ONE: NOW}


def test_what_is_no_file_is_not_waited_for(file: DeletionFile, tmp_path: Path) -> None:
    os.mkfifo(file.path)
    with pytest.raises(DamagedError, match="not a file"):
        file.read()
    (tmp_path / "elsewhere").write_text("{}")
    file.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic links.*cache\.deletions"):
        file.read()


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    file = DeletionFile(tmp_path / "missing" / "cache")
    assert file.read() == {}
    with pytest.raises(OSError, match="missing"):
        add(file, (ONE, NOW))
