"""The cache: reference section 7, and that no state of its file stops the screener. The clock is the tests' own."""

import ctypes
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import lmdb
import msgpack  # type: ignore[import-untyped]
import pytest
from cachefixture import CLIENT, CLIENT6, DAY, NOW, WEEK, Fixture, stamps
from peers import needs

from fastscreen.cache import lmdb_file, writer
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.stamps import DISABLED, NEW, Stamps, pack_stamps, parse_stamps
from fastscreen.core import TESTS


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "cache")
    yield fixture
    fixture.close()


# ---- records


def test_record_is_unsigned_integers() -> None:
    """postscreen's five where no other test is in use."""
    record = (1795420965, 1795334665, NEW, DISABLED, 1797926567)
    assert msgpack.unpackb(pack_stamps(stamps(*record))) == list(record)
    assert parse_stamps(pack_stamps(stamps(*record))) == stamps(*record)
    assert msgpack.unpackb(pack_stamps((*record, 1797926568))) == [*record, 1797926568]


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ([], ()),
        ([5, 6], (5, 6)),
        ([5, 6, 7, 8, 9, *range(10, 30)], (5, 6, 7, 8, 9, *range(10, 5 + len(TESTS)))),
        ([5, -1, "7", True, 9], (5, 1, 1, 1, 9)),
        ([5, 2**63, 2**64 - 1, None, 1.5], (5,)),
        ({0: 1}, ()),
        ("abcde", ()),
        (7, ()),
    ],
)
def test_missing_and_malformed_fields_read_as_disabled(fields: object, read: Stamps) -> None:
    assert parse_stamps(msgpack.packb(fields, strict_types=False)) == stamps(*read)


# ---- lookup and store


def test_store_is_visible_at_once_and_in_the_next_process(fixture: Fixture) -> None:
    cache = fixture.cache()
    assert cache.lookup(CLIENT) is None
    cache.store(CLIENT, stamps(NOW + 5))
    cache.store(CLIENT6, stamps(NOW + 6, NEW))
    assert cache.lookup(CLIENT) == stamps(NOW + 5)
    cache.end_batch()
    cache.turn()
    assert cache.lookup(CLIENT6) == stamps(NOW + 6, NEW)
    cache.close()
    assert fixture.lookup(CLIENT) == stamps(NOW + 5)
    assert fixture.lookup(CLIENT6) == stamps(NOW + 6, NEW)
    assert fixture.warnings == []


def test_a_batch_that_began_before_the_commit_sees_what_was_stored(fixture: Fixture) -> None:
    cache = fixture.cache()
    assert cache.lookup(CLIENT6) is None  # opens the read transaction
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.end_batch()
    cache.turn()
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.end_batch()


def test_end_batch_lets_the_next_batch_see_another_process(fixture: Fixture) -> None:
    cache = fixture.cache()
    assert cache.lookup(CLIENT) is None
    cache.end_batch()
    cache.end_batch()
    _run(_STORE, str(fixture.path), CLIENT.hex(), str(NOW))
    assert cache.lookup(CLIENT) == stamps(NOW)


def test_the_thread_writes_and_its_lines_come_through_wake(tmp_path: Path) -> None:
    calls: list[Callable[[], None]] = []
    lines: list[str] = []
    cache = LmdbCache(
        tmp_path / "cache", warn=lines.append, log=lines.append, wake=calls.append, clock=lambda: NOW, retention=DAY
    )
    cache.open()
    cache.store(CLIENT, stamps(NOW))
    cache.start()
    cache.close()
    assert Fixture(tmp_path / "cache").lookup(CLIENT) == stamps(NOW)
    # The thread itself says nothing.
    for call in calls:
        call()
    assert all("cleanup" in line for line in lines)


# ---- the file


_STORE = """
import sys
from fastscreen.cache.lmdb_cache import LmdbCache
cache = LmdbCache(sys.argv[1], warn=print, log=print, wake=lambda call: call())
cache.open()
cache.store(bytes.fromhex(sys.argv[2]), (int(sys.argv[3]), 1, 1, 1, 1))
cache.close()
"""

# Writes on and on; says the number of each record that is committed.
_WRITE_ON = """
import sys
from fastscreen.cache.lmdb_cache import LmdbCache
cache = LmdbCache(sys.argv[1], warn=print, log=print, wake=lambda call: call(), cleanup_interval=0)
cache.open()
number = 0
while True:
    for _ in range(50):
        cache.store(number.to_bytes(4, "big"), (number, 1, 1, 1, 1))
        number += 1
    cache.turn()
    print(number, flush=True)
"""


def _run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)


def test_kill_in_the_middle_of_writing_loses_nothing_that_was_committed(fixture: Fixture) -> None:
    for rounds in (3, 20, 60):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITE_ON, str(fixture.path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            committed = 0
            for _ in range(rounds):
                committed = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().splitlines()
            committed = int(rest[-1]) if rest else committed
        cache = fixture.cache()
        for number in range(committed):
            assert cache.lookup(number.to_bytes(4, "big")) == stamps(number)
        cache.close()
    assert fixture.warnings == []
    assert fixture.aside() == []


def _filled(fixture: Fixture, count: int = 20_000) -> bytes:
    fixture.write({number.to_bytes(4, "big"): stamps(NOW) for number in range(count)})
    return fixture.path.read_bytes()


def _assert_moved_aside(fixture: Fixture, content: bytes) -> None:
    cache = fixture.cache()
    assert cache.lookup(b"\0\0\0\1") is None
    cache.store(CLIENT, stamps(NOW))
    cache.close()
    assert fixture.lookup(CLIENT) == stamps(NOW)
    (aside,) = fixture.aside()
    assert aside == fixture.path.with_name(f"cache.damaged-{NOW}")
    assert aside.read_bytes() == content
    (warning,) = fixture.warnings
    assert warning.startswith(f"cache lmdb:{fixture.path} is damaged or foreign (")
    assert str(aside) in warning


@pytest.mark.parametrize("size", [1, 100, 4096, 6000, 8192, 12288, 200_000])
def test_a_truncated_file_is_moved_aside(fixture: Fixture, size: int) -> None:
    content = _filled(fixture)[:size]
    fixture.path.write_bytes(content)
    _assert_moved_aside(fixture, content)


def test_garbage_is_moved_aside(fixture: Fixture) -> None:
    content = random.Random(1).randbytes(300_000)
    fixture.path.write_bytes(content)
    _assert_moved_aside(fixture, content)


def test_garbage_behind_sound_meta_pages_is_moved_aside(fixture: Fixture) -> None:
    content = _filled(fixture)
    content = content[:8192] + random.Random(2).randbytes(len(content) - 8192)
    fixture.path.write_bytes(content)
    _assert_moved_aside(fixture, content)


def test_zeros_behind_sound_meta_pages_are_moved_aside(fixture: Fixture) -> None:
    content = _filled(fixture)
    content = content[:8192] + bytes(len(content) - 8192)
    fixture.path.write_bytes(content)
    _assert_moved_aside(fixture, content)


def test_another_programs_lmdb_file_is_moved_aside(fixture: Fixture) -> None:
    environment = lmdb.open(str(fixture.path), subdir=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"192.0.2.1\0", b"1795420813;1;1;1;1\0")
    environment.close()
    _assert_moved_aside(fixture, fixture.path.read_bytes())


def test_two_files_moved_aside_in_one_second_are_both_kept(fixture: Fixture) -> None:
    for content in (b"one", b"two"):
        fixture.path.write_bytes(content)
        fixture.cache().close()
    assert sorted(path.read_bytes() for path in fixture.aside()) == [b"one", b"two"]


def test_an_empty_file_is_taken(fixture: Fixture) -> None:
    fixture.path.touch()
    fixture.write({CLIENT: stamps(NOW)})
    assert fixture.lookup(CLIENT) == stamps(NOW)
    assert fixture.warnings == []


def test_damage_that_a_lookup_meets_moves_the_file_aside(fixture: Fixture) -> None:
    _filled(fixture)
    cache = fixture.cache()
    # Behind the back of the open environment: every page but the meta pages says that it is nothing known.
    size = fixture.path.stat().st_size
    with fixture.path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    assert cache.lookup(b"\0\0\0\1") is None
    cache.end_batch()
    cache.turn()
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    cache.close()
    assert len(fixture.aside()) == 1
    assert fixture.lookup(CLIENT) == stamps(NOW)


def test_a_file_that_is_removed_is_made_anew(fixture: Fixture) -> None:
    cache = fixture.cache()
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    fixture.path.unlink()
    cache.turn()
    assert cache.lookup(CLIENT) is None
    cache.store(CLIENT, stamps(NOW + 1))
    cache.close()
    assert fixture.lookup(CLIENT) == stamps(NOW + 1)


# ---- the surrogate (reference 7.6)


def _assert_surrogate(fixture: Fixture, cache: LmdbCache, reason: str) -> None:
    cache.store(CLIENT, stamps(NOW))
    assert cache.lookup(CLIENT) is None
    cache.end_batch()
    for _ in range(100):
        cache.turn()
    cache._lines.flush()
    assert fixture.warnings == [
        f"cache lmdb:{fixture.path}: cannot be opened: {reason}; every client is new; retried automatically"
    ]


def test_a_missing_folder_is_warned_of_once_and_tried_again(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path / "later" / "cache")
    cache = fixture.cache()
    _assert_surrogate(fixture, cache, "No such file or directory")
    fixture.path.parent.mkdir()
    for _ in range(31):
        cache.turn()
    cache.store(CLIENT, stamps(NOW))
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.close()
    assert fixture.lines == [f"cache lmdb:{fixture.path}: works again"]


def test_a_folder_or_a_fifo_in_the_files_place_is_left_alone(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path / "fifo")
    os.mkfifo(fixture.path)
    _assert_surrogate(fixture, fixture.cache(), "not a regular file")
    fixture = Fixture(tmp_path / "folder")
    fixture.path.mkdir()
    _assert_surrogate(fixture, fixture.cache(), "not a regular file")


_AS_NOBODY = """
import os, sys
from fastscreen.cache.lmdb_cache import LmdbCache
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
cache = LmdbCache(sys.argv[1], warn=print, log=print, wake=lambda call: call())
cache.open()
cache.store(b"aaaa", (1, 1, 1, 1, 1))
assert cache.lookup(b"aaaa") is None
cache.close()
"""


def test_a_file_that_may_not_be_written_is_not_used(fixture: Fixture) -> None:
    fixture.write({CLIENT: stamps(NOW)})
    for folder in (fixture.path.parent, *fixture.path.parent.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp") and folder.owner() != "root":
            break
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    fixture.path.chmod(0o444)
    result = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(fixture.path)], capture_output=True, text=True, timeout=60, check=False
    )
    rest = "every client is new; retried automatically"
    assert result.stdout == f"cache lmdb:{fixture.path}: cannot be opened: Permission denied; {rest}\n"
    assert result.stderr == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    needs.root("a separate small file system")
    libc = ctypes.CDLL(None, use_errno=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    if libc.mount(b"fastscreen-test", bytes(disk), b"tmpfs", 0, b"size=1m") != 0:
        needs.miss(f"mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield disk
    finally:
        libc.umount2(bytes(disk), 2)


def _fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    fixture = Fixture(small_disk / "cache")
    _fill(small_disk)
    cache = fixture.cache()
    _assert_surrogate(fixture, cache, "No space left on device")
    cache.close()


def test_a_disk_that_becomes_full(small_disk: Path) -> None:
    fixture = Fixture(small_disk / "cache")
    cache = fixture.cache()
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    _fill(small_disk)
    for number in range(5_000):
        cache.store(number.to_bytes(16, "big"), stamps(NOW))
    for _ in range(100):
        cache.turn()
    cache._lines.flush()
    assert fixture.warnings == [f"cache lmdb:{fixture.path}: No space left on device"]
    # What is on the disk stays readable, what is not is remembered.
    assert cache.lookup(CLIENT) == stamps(NOW)
    assert cache.lookup(bytes(16)) == stamps(NOW)
    cache.end_batch()
    (small_disk / "filler").unlink()
    assert fixture.lines == []
    for _ in range(31):
        cache.turn()
    cache.close()
    assert fixture.lines == [f"cache lmdb:{fixture.path}: works again"]
    assert fixture.lookup((4_999).to_bytes(16, "big")) == stamps(NOW)


def test_another_process_that_grew_the_map_is_followed(fixture: Fixture) -> None:
    cache = fixture.cache(max_size=1 << 20, first=False)
    _run(_GROW, str(fixture.path))
    assert cache.lookup(b"\0\0\0\7") is None  # the map is too small for this batch
    cache.end_batch()
    cache.turn()
    assert cache.lookup(b"\0\0\0\7") == stamps(7)


_GROW = """
import sys
from fastscreen.cache.lmdb_cache import LmdbCache
cache = LmdbCache(sys.argv[1], warn=print, log=print, wake=lambda call: call(), cleanup_interval=0, max_size=1 << 24)
cache.open()
for number in range(60_000):
    cache.store(number.to_bytes(4, "big"), (number, 1, 1, 1, 1))
cache.close()
"""


# ---- cleanup (reference 7.4)


def _cleaned(fixture: Fixture, enabled: tuple[bool, ...], records: Mapping[bytes, Stamps]) -> set[bytes]:
    """Return the keys that a cleanup leaves."""
    fixture.write(records)
    cache = fixture.cache(enabled=enabled, cleanup_interval=DAY)
    cache.turn()
    left = {key for key in records if cache.lookup(key) is not None}
    cache.close()
    line = f"full cleanup: retained={len(left)} dropped={len(records) - len(left)} entries"
    assert fixture.lines == [f"cache lmdb:{fixture.path} {line}"]
    return left


def test_cleanup_keeps_what_ended_within_the_retention_time(fixture: Fixture) -> None:
    records = {
        b"live": stamps(NOW + 1),
        b"just": stamps(NOW - WEEK),
        b"gone": stamps(NOW - WEEK - 1),
    }
    assert _cleaned(fixture, (True, False, False, False, False), records) == {b"live", b"just"}


def test_cleanup_drops_a_half_finished_record_however_fresh(fixture: Fixture) -> None:
    records = {b"half": (NOW + DAY, NOW + DAY, NEW, NEW, NEW), b"full": (NOW + DAY,) * 5}
    assert _cleaned(fixture, (True,) * 5, records) == {b"full"}


def test_cleanup_drops_all_records_when_a_test_was_added(fixture: Fixture) -> None:
    records = {b"old1": stamps(NOW + DAY), b"old2": stamps(NOW + DAY, NOW + DAY)}
    assert _cleaned(fixture, (True, True, False, False, True), records) == set()


def test_cleanup_ignores_the_stamps_of_tests_that_are_off(fixture: Fixture) -> None:
    records = {b"off1": (NOW, 5, NEW, DISABLED, 7)}
    assert _cleaned(fixture, (True, False, False, False, False), records) == {b"off1"}


def test_cleanup_reaches_every_record(fixture: Fixture) -> None:
    records = {number.to_bytes(4, "big"): stamps(NOW if number % 3 else NOW - 2 * WEEK) for number in range(20_000)}
    left = _cleaned(fixture, (True, False, False, False, False), records)
    assert left == {key for key in records if int.from_bytes(key, "big") % 3}


def test_cleanup_runs_each_interval_after_the_last_completed_one_and_across_restarts(fixture: Fixture) -> None:
    cache = fixture.cache(cleanup_interval=DAY)
    cache.turn()  # never completed yet: due at once
    cache.turn()
    cache._lines.flush()
    assert len(fixture.lines) == 1
    cache.close()
    fixture.now = NOW + DAY - 1
    cache = fixture.cache(cleanup_interval=DAY)
    cache.turn()
    cache._lines.flush()
    assert len(fixture.lines) == 1
    fixture.now = NOW + DAY
    cache.turn()
    cache._lines.flush()
    assert len(fixture.lines) == 2
    fixture.now = NOW  # the clock is put back: a completion in the future counts for nothing
    cache.turn()
    cache._lines.flush()
    assert len(fixture.lines) == 3


def test_no_cleanup_with_interval_0(fixture: Fixture) -> None:
    cache = fixture.cache(cleanup_interval=0)
    cache.turn()
    cache._lines.flush()
    assert fixture.lines == []


def test_an_update_in_between_cancels_the_deletion(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.write({b"same": stamps(NOW - 2 * WEEK), b"file": stamps(NOW - 2 * WEEK), b"mem1": stamps(NOW - 2 * WEEK)})
    cache = fixture.cache(cleanup_interval=DAY)
    drop = cache._writer.cleanup._drop

    def update_then_drop(victims: list[bytes], enabled: tuple[int, ...], oldest: int) -> int:
        assert sorted(victims) == [b"file", b"mem1", b"same"]
        _run(_STORE, str(fixture.path), b"file".hex(), str(NOW))
        cache.store(b"mem1", stamps(NOW))
        return drop(victims, enabled, oldest)

    monkeypatch.setattr(cache._writer.cleanup, "_drop", update_then_drop)
    cache.turn()
    cache.close()
    assert fixture.lines[-1].endswith("full cleanup: retained=2 dropped=1 entries")
    assert fixture.lookup(b"same") is None
    assert fixture.lookup(b"file") == fixture.lookup(b"mem1") == stamps(NOW)


def test_a_new_policy_rules_the_next_cleanup(fixture: Fixture) -> None:
    cache = fixture.cache(cleanup_interval=DAY)
    cache.store(CLIENT, stamps(NOW + DAY))
    cache.turn()
    cache.configure((True, True, False, False, False), DAY, WEEK)
    fixture.now = NOW + DAY
    cache.turn()
    assert cache.lookup(CLIENT) is None
    cache.close()
    assert [line.rpartition(": ")[2] for line in fixture.lines] == [
        "retained=1 dropped=0 entries",
        "retained=0 dropped=1 entries",
    ]


@pytest.mark.parametrize(("number", "damaged"), [("TERM", False), ("KILL", False), ("HUP", False), ("SEGV", True)])
def test_what_ends_the_process_that_looks_the_file_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, damaged: bool
) -> None:
    """A crash is caused by the file. A stop of the whole service is not, and must not discard the cache."""
    path = tmp_path / "cache"
    lmdb_file.open_file(path, 1 << 20, time.time, print).close()
    reader = tmp_path / "reader"
    reader.write_text(f"#!/bin/sh\nkill -{number} $$\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    said: list[str] = []
    lmdb_file.open_file(path, 1 << 20, time.time, said.append).close()
    assert len(said) == damaged
    assert bool(list(tmp_path.glob("cache.damaged-*"))) == damaged


def test_during_a_restart_each_record_is_written_at_once(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pending when the restart begins, what comes later, and nothing more when it is over."""
    monkeypatch.setattr(writer, "TURN_SECONDS", 60.0)
    cache = fixture.cache()
    cache.start()

    def is_within(condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        return condition()

    def is_written() -> bool:
        return not cache._pending.unwritten

    cache.store(CLIENT, stamps(NOW + DAY))
    assert not is_within(is_written, 0.3)
    cache.write_through()
    assert is_within(is_written, 5)
    cache.store(CLIENT6, stamps(NOW + DAY))
    assert is_within(is_written, 5)
    cache.close()

    monkeypatch.setattr(writer, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(writer, "WRITE_THROUGH_SECONDS", 0.1)
    again = fixture.cache()
    assert again.lookup(CLIENT) and again.lookup(CLIENT6)
    again.end_batch()
    again.start()
    again.write_through()
    assert again._writer.writes_through
    assert is_within(lambda: not again._writer.writes_through, 5)
