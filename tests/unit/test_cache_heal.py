"""After any failure the cache is reopened soon after the damage is gone. Undamaged files stay."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from cachefixture import CLIENT, NOW, Fixture, stamps

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.file_check import Inode, inode_of, lock_path
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.control.cache_store import Store, StoreError
from fastscreen.process.conditions import Kind

OTHER = bytes([192, 0, 2, 2])


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "cache")
    yield fixture
    fixture.close()


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def opened(fixture: Fixture) -> LmdbCache:
    cache: LmdbCache = fixture.cache()
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.end_batch()
    return cache


def condition(fixture: Fixture) -> str | None:
    return next((held.text for held in fixture.conditions.read() if held.kind is Kind.CACHE), None)


@pytest.mark.parametrize("seed", range(5))
def test_overwritten_meta_pages_are_noticed_without_a_look_up(fixture: Fixture, seed: int) -> None:
    cache = opened(fixture)
    overwrite(fixture.path, 0, random.Random(seed).randbytes(8192))
    cache.turn()
    assert len(fixture.aside()) == 1
    cache.store(OTHER, stamps(NOW))
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)


def test_overwritten_meta_pages_that_a_look_up_meets_first(fixture: Fixture) -> None:
    cache = opened(fixture)
    cache.turn()  # nothing is kept in memory any more
    overwrite(fixture.path, 0, random.Random(1).randbytes(8192))
    assert cache.lookup(CLIENT) is None
    cache.end_batch()
    cache.store(OTHER, stamps(NOW))
    cache.turn()
    assert cache.lookup(OTHER) == stamps(NOW)
    cache.end_batch()
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)
    assert len(fixture.aside()) == 1


@pytest.mark.parametrize("place", [136, 4096 + 136])
def test_a_meta_page_that_promises_too_many_pages_is_damage(fixture: Fixture, place: int) -> None:
    """LMDB would create a map of that size, and always fail because of insufficient memory."""
    opened(fixture).close()
    overwrite(fixture.path, place, struct.pack("=QQ", 1 << 45, 1 << 40))
    cache = fixture.cache()
    assert len(fixture.aside()) == 1
    cache.store(OTHER, stamps(NOW))
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)


class Broken:
    """An environment of which one method fails, as LMDB's do when the system refuses something."""

    def __init__(self, environment: Any, name: str, error: Exception) -> None:
        self._environment = environment
        self._name = name
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._environment, name)

        def fail(*arguments: object, **named: object) -> None:
            raise self._error

        return fail


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("set_mapsize", lmdb.MemoryError("mdb_env_set_mapsize: Cannot allocate memory")),
        ("begin", lmdb.Error("Attempt to operate on closed/deleted/dropped object.")),
        ("begin", lmdb.BadRslotError("mdb_txn_begin: MDB_BAD_RSLOT")),
        ("begin", lmdb.ReadersFullError("mdb_txn_begin: MDB_READERS_FULL")),
        ("begin", lmdb.Error("mdb_txn_begin: Input/output error")),
        ("begin", RuntimeError("anything")),
    ],
)
def test_any_failure_of_the_environment_is_over_after_two_turns(
    fixture: Fixture, method: str, error: Exception
) -> None:
    cache = opened(fixture)
    broken = Broken(cache._shared.environment, method, error)
    cache._shared.environment = broken
    cache._shared.was_resized = True
    cache.store(OTHER, stamps(NOW))
    for _ in range(3):
        try:
            cache.turn()
        except RuntimeError as met:  # as the thread does
            cache._writer._give_up(str(met))
    assert cache._shared.environment is not broken
    assert cache._shared.environment is not None
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.end_batch()
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)
    assert len(fixture.warnings) == 1
    assert fixture.lines[-1] == f"cache lmdb:{fixture.path}: works again"
    assert fixture.aside() == []


def test_a_failure_that_a_look_up_meets_is_over_after_two_turns(fixture: Fixture) -> None:
    cache = opened(fixture)
    cache.turn()
    error = lmdb.BadRslotError("mdb_txn_begin: MDB_BAD_RSLOT")
    cache._shared.environment = Broken(cache._shared.environment, "begin", error)
    assert cache.lookup(CLIENT) is None
    cache.end_batch()
    cache.turn()
    cache.turn()
    assert cache.lookup(CLIENT) == stamps(NOW)


def test_a_directory_in_the_files_place_is_noticed_when_it_is_gone(fixture: Fixture) -> None:
    """However long it was there; and what clients passed meanwhile is stored then."""
    cache = opened(fixture)
    fixture.path.unlink()
    fixture.path.mkdir()
    for _ in range(100):
        cache.turn()
    cache._lines.flush()
    rest = "passes are kept in memory; retried automatically"
    text = f"cache lmdb:{fixture.path}: cannot be opened: not a regular file; {rest}"
    assert fixture.warnings == [text]
    assert condition(fixture) == text
    cache.store(OTHER, stamps(NOW))
    assert cache.lookup(OTHER) == stamps(NOW)
    fixture.path.rmdir()
    cache.turn()
    cache._lines.flush()
    assert condition(fixture) is None
    assert fixture.lines == [f"cache lmdb:{fixture.path}: works again"]
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)


def test_attempts_follow_each_other_soon_at_first_and_never_late(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(fixture)
    fixture.path.unlink()
    turns: list[int] = []
    turn = 0

    def refuse(*arguments: object, **named: object) -> None:
        turns.append(turn)
        raise lmdb_file.UnusableError("no memory")

    monkeypatch.setattr(lmdb_file, "open_file", refuse)
    while turn < 60:
        turn += 1
        cache.turn()
    gaps = [after - before for before, after in itertools.pairwise(turns)]
    assert gaps[:3] == [2, 3, 5]
    assert set(gaps[3:]) == {6}


def test_what_is_kept_in_memory_is_bounded(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscreen.cache.pending.MAX_PENDING", 100)
    cache = opened(fixture)
    fixture.path.unlink()
    fixture.path.mkdir()
    cache.turn()
    for number in range(1000):
        cache.store(number.to_bytes(4, "big"), stamps(NOW))
        cache.turn()
    assert len(cache._pending.unwritten) <= 101
    cache.store((0).to_bytes(4, "big"), stamps(NOW + 1))  # one that is there can be changed
    assert cache.lookup((0).to_bytes(4, "big")) == stamps(NOW + 1)


def test_what_was_written_to_a_damaged_file_just_now_goes_into_the_next_one(fixture: Fixture) -> None:
    cache = opened(fixture)
    cache.store(OTHER, stamps(NOW))
    cache.turn()
    overwrite(fixture.path, 0, bytes(8192))
    cache.turn()
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)


def test_the_file_that_another_process_made_is_not_moved_aside_for_the_damage_in_the_old_one(fixture: Fixture) -> None:
    opened(fixture).close()
    old = inode_of(fixture.path.stat())
    fixture.path.rename(fixture.path.with_name("old"))
    opened(fixture).close()  # as another worker does that was faster
    said: list[str] = []
    lmdb_file.open_file(fixture.path, 1 << 20, time.time, said.append, damaged=(old, "overwritten")).close()
    assert fixture.aside() == []
    assert said == []
    new = inode_of(fixture.path.stat())
    lmdb_file.open_file(fixture.path, 1 << 20, time.time, said.append, damaged=(new, "overwritten")).close()
    assert len(fixture.aside()) == len(said) == 1


def test_only_the_file_that_was_meant_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"one")
    killed = inode_of(path.stat())
    other = tmp_path / "other"
    other.write_bytes(b"two")
    other.rename(path)
    assert lmdb_file.move_aside(path, killed) is None
    assert path.read_bytes() == b"two"
    aside = lmdb_file.move_aside(path, inode_of(path.stat()))
    assert aside is not None
    assert aside.read_bytes() == b"two"


def test_files_that_are_moved_aside_again_and_again_do_not_fill_the_disk(fixture: Fixture) -> None:
    for number in range(10):
        fixture.path.write_bytes(b"damage %d" % number)
        fixture.cache().close()
    assert sorted(path.read_bytes() for path in fixture.aside()) == [b"damage 7", b"damage 8", b"damage 9"]
    assert len(list(fixture.path.parent.iterdir())) <= 8  # each may have a lock file


def test_the_mark_names_the_file_that_is_in_use(fixture: Fixture) -> None:
    mark = memoryview(bytearray(b"\xff" * use_mark.SIZE))
    use_mark.clear(mark)
    assert use_mark.file_in_use(mark) is None
    seen: list[Inode | None] = []

    def look(text: object) -> None:
        seen.append(use_mark.file_in_use(mark))

    cache = LmdbCache(fixture.path, warn=look, log=look, wake=lambda call: None, mark=mark)
    cache.open()
    assert use_mark.file_in_use(mark) is None
    mark[use_mark.WRITER] = 1
    assert use_mark.file_in_use(mark) == inode_of(fixture.path.stat())
    # A lookup has its mark only while it reads.
    cache._shared.environment = Broken(cache._shared.environment, "begin", ZeroDivisionError("killed there"))
    mark[use_mark.WRITER] = 0
    with pytest.raises(ZeroDivisionError):
        cache.lookup(CLIENT)
    assert use_mark.file_in_use(mark) == inode_of(fixture.path.stat())


def test_a_lost_lock_file_is_made_again_when_no_other_process_writes_under_the_old_one(fixture: Fixture) -> None:
    cache = opened(fixture)
    lock_path(fixture.path).unlink()
    cache.turn()
    cache._lines.flush()
    assert not lock_path(fixture.path).exists()
    assert fixture.warnings == [f"cache lmdb:{fixture.path}: its lock file was removed or replaced; it is opened again"]
    cache.store(OTHER, stamps(NOW))
    for _ in range(5):
        cache.turn()
    assert lock_path(fixture.path).exists()
    cache.close()
    assert fixture.lookup(CLIENT) == stamps(NOW)
    assert fixture.lookup(OTHER) == stamps(NOW)
    assert fixture.aside() == []


def test_a_damaged_lock_file_costs_no_record(fixture: Fixture) -> None:
    cache = opened(fixture)
    overwrite(lock_path(fixture.path), 0, bytes(16))
    for _ in range(6):
        cache.turn()
    assert cache.lookup(CLIENT) == stamps(NOW)
    assert fixture.aside() == []


@pytest.mark.parametrize("which", ["cache", "cache-lock"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, which: str) -> None:
    fixture = Fixture(tmp_path / "cache")
    target = tmp_path / "target"
    target.write_bytes(b"another's")
    if which == "cache-lock":
        fixture.path.touch()
    (tmp_path / which).symlink_to(target)
    cache = fixture.cache()
    cache.store(CLIENT, stamps(NOW))
    cache.turn()
    assert cache.lookup(CLIENT) is None
    assert target.read_bytes() == b"another's"
    assert len(fixture.warnings) == 1
    (tmp_path / which).unlink()
    cache.turn()
    cache.store(CLIENT, stamps(NOW))
    cache.close()
    assert fixture.lookup(CLIENT) == stamps(NOW)


def test_a_locked_folder_does_not_hold_up_the_start(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def refuse(*arguments: object, lock_seconds: float, **named: object) -> None:
        waited.append(lock_seconds)
        raise lmdb_file.UnusableError("another process holds the lock on its folder")

    monkeypatch.setattr(lmdb_file, "open_file", refuse)
    fixture.cache()
    assert waited == [3.0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_is_no_reason_to_close_the_file(fixture: Fixture, code: int) -> None:
    cache = opened(fixture)
    cache.turn()
    environment = cache._shared.environment
    cache.store(OTHER, stamps(NOW))
    cache._writer._put = _raiser(lmdb.Error(f"mdb_txn_commit: {os.strerror(code)}"))  # type: ignore[method-assign]
    for _ in range(20):
        cache.turn()
    cache._lines.flush()
    assert fixture.warnings == [f"cache lmdb:{fixture.path}: {os.strerror(code)}"]
    assert condition(fixture) is not None
    assert cache._shared.environment is environment
    assert cache.lookup(CLIENT) == stamps(NOW)
    cache.end_batch()
    del cache._writer._put
    for _ in range(6):
        cache.turn()
    assert condition(fixture) is None
    cache.close()
    assert fixture.lookup(OTHER) == stamps(NOW)


def _raiser(error: Exception) -> Any:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def test_only_sound_files_are_opened_by_the_hub(fixture: Fixture) -> None:
    """Its map of a truncated file would be its death; and after the damage it works again."""
    fixture.write({number.to_bytes(4, "big"): stamps(NOW) for number in range(20_000)})
    store = Store(fixture.path)
    assert store.get(b"\0\0\0\1") == stamps(NOW)
    size = fixture.path.stat().st_size
    os.truncate(fixture.path, 8192)
    with pytest.raises(StoreError, match="truncated"):
        store.get(b"\0\0\0\1")
    assert size > 8192
    opened(fixture).close()
    assert store.get(CLIENT) == stamps(NOW)
    fixture.path.unlink()
    fixture.path.symlink_to("elsewhere")
    with pytest.raises(StoreError):
        store.get(CLIENT)
    store.close()


def test_a_child_that_looks_the_file_over_says_no_more_than_its_parent(fixture: Fixture) -> None:
    opened(fixture).close()
    file = lmdb_file.open_file(fixture.path, 1 << 20, time.time, print)
    try:
        # Not in this process: closing the file would drop LMDB's lock on it.
        overwriting = "import sys; open(sys.argv[1], 'r+b').write(bytes(16))"
        subprocess.run([sys.executable, "-c", overwriting, str(lock_path(fixture.path))], check=True, timeout=60)
        command = [sys.executable, "-m", "fastscreen.cache.lmdb_file", str(fixture.path), str(1 << 20)]
        child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        file.close()
    assert child.returncode == 1  # not the code for damage: the data are sound
    assert child.stdout.startswith("its lock file is damaged")
    assert child.stderr == ""


@pytest.mark.parametrize("error", [lmdb.PageFullError, lmdb.CursorFullError, lmdb.ProblemError, lmdb.PanicError])
def test_what_lmdb_calls_an_internal_error_is_damage(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch, error: type[lmdb.Error]
) -> None:
    """A node that is larger than its page, for example. To open the same file again would not help."""
    cache = opened(fixture)

    def put(_: object) -> None:
        raise error("Internal error")

    with monkeypatch.context() as patched:
        patched.setattr(cache._writer, "_put", put)
        cache.store(OTHER, stamps(NOW))
        cache.turn()
    cache.turn()
    assert len(fixture.aside()) == 1
    cache.store(OTHER, stamps(NOW))
    cache.turn()
    assert cache.lookup(OTHER) == stamps(NOW)
    cache.end_batch()
