"""The recorder's turns: nothing is lost or stored twice, whatever becomes of its process, files, disk and clock."""

import contextlib
import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from historyring import DAY, HOUR, NOON, FakeRing, World, minutes, ports, session, several, stored

from fastscreen.core import HISTORY_FIELDS, history_read
from fastscreen.history import day, folder, open_part, settings, writer
from fastscreen.history.archive import Archive
from fastscreen.history.filter import Query, query
from fastscreen.history.mask import Mask
from fastscreen.history.open_part import OpenPart

TODAY = "2026-11-30.sqlite"
MIB = 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "history")


# ---- storing


def test_sessions_are_stored_and_removed_from_the_ring(world: World) -> None:
    recorder = world.writer()
    recorder.clean_up()
    assert world.names() == [TODAY] and stat.S_IMODE(world.folder.stat().st_mode) == 0o700
    rows = [
        session(NOON, b"\1\2\3\4", 7, outcome=5, marks=4),
        session(NOON + 60, bytes(16), 8, name=b"a'; DROP TABLE\n"),
    ]
    world.ring.add(*rows)
    assert recorder.turn() == 2 / world.ring.capacity
    assert [(number >> day.COUNT_BITS, client, record) for number, client, record in stored(world.folder)] == [
        row[:3] for row in rows
    ]
    minute = int(NOON) // 60
    assert minutes(world.folder) == {(minute, 5, 1): 1, (minute + 1, 0, 0): 1}
    assert recorder.is_drained and world.ring.tail == 2
    connection = day.connect(world.folder / TODAY)
    assert connection.execute("SELECT * FROM settings").fetchall() == [
        (settings.number(b'{"of":"worker"}'), b'{"of":"worker"}')
    ]
    connection.close()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in world.folder.iterdir())
    stats = recorder.stats()
    assert (stats.recording, stats.sessions, stats.lost, stats.waiting, stats.days) == (True, 2, 0, 0, 1)
    assert stats.bytes == sum(path.stat().st_size for path in world.folder.iterdir()) and stats.file == TODAY


def test_a_sampled_session_counts_as_many(world: World) -> None:
    world.ring.add(
        *(session(NOON, port=port, marks=4, weight=weight) for port, weight in ((1, 10), (2, 1), (3, 70000)))
    )
    world.ring.add(session(NOON, port=4, pass_seconds=9, weight=1, marks=4))
    world.writer().turn()
    assert minutes(world.folder) == {(int(NOON) // 60, 0, 1): 70012}


def test_many_that_end_at_the_same_time(tmp_path: Path) -> None:
    """Of several workers, and more of them than there are numbers."""
    world = World(tmp_path, FakeRing(), FakeRing())
    recorder = world.writer()
    for turn in range(3):
        for ring in world.rings:
            ring.add(*(session(NOON, port=turn * 1000 + port) for port in range(200)))
            ring.add(session(NOON + 1e-6, port=turn * 1000 + 500))
        recorder.turn()
    found = stored(world.folder)
    assert len(found) == len({number for number, _, _ in found}) == 3 * 402
    assert max(number >> day.COUNT_BITS for number, _, _ in found) <= NOON * 1e6 + 5
    assert sum(minutes(world.folder).values()) == 3 * 402


def test_sessions_of_a_midnight(world: World) -> None:
    midnight = NOON + 12 * HOUR
    recorder = world.writer()
    world.ring.add(*several(4, midnight - 0.002))
    recorder.turn()
    assert world.names() == [TODAY, "2026-12-01.sqlite"]
    world.wait(12 * HOUR)
    recorder.clean_up()
    world.ring.add(session(midnight - 0.5, port=5), session(midnight + 1, port=6))
    recorder.turn()
    assert ports(world.folder) == [5, 1, 2, 3, 4, 6]
    world.wait(writer.WARN_SECONDS * 3)
    recorder.clean_up()
    assert not (world.folder / f"{TODAY}-wal").exists(), "the day is over, and its file complete"
    connection = day.connect(world.folder / TODAY)
    assert day.count_unindexed(connection) == 0
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_new_file_has_the_settings_that_are_in_use(tmp_path: Path) -> None:
    world = World(tmp_path, FakeRing(), FakeRing())
    recorder = world.writer()
    world.rings[1].description = None  # its worker has not started
    first = world.rings[0].description
    world.ring.add(session(NOON))
    recorder.turn()
    world.rings[1].generation, world.rings[1].description = 4, b"{}"
    world.ring.add(session(NOON + DAY))
    recorder.turn()

    def known(name: str) -> set[bytes]:
        with contextlib.closing(day.connect(world.folder / name)) as connection:
            return {description for (description,) in connection.execute("SELECT description FROM settings")}

    assert known(TODAY) == {first} and known("2026-12-01.sqlite") == {first, b"{}"}
    for ring in world.rings:
        ring.generation, ring.description = ring.generation + 2, b"[]"
    world.wait(DAY)
    world.ring.add(session(NOON + 2 * DAY))
    recorder.turn()
    assert known("2026-12-02.sqlite") >= {b"{}", b"[]"}, "sessions of before may still end"
    world.wait(2 * DAY)
    world.ring.add(session(NOON + 4 * DAY))
    recorder.turn()
    assert known("2026-12-04.sqlite") == {b"[]"}


def test_addresses_are_masked(tmp_path: Path) -> None:
    world = World(tmp_path, mask=(24, 48))
    ipv6 = bytes.fromhex("20010db8000100020000000000000003")
    names = {
        b"[192.0.2.1]": b"[192.0.2.0]",
        b"192.0.2.1": b"192.0.2.0",
        b"[192.0.2.11]": b"[192.0.2.11]",
        b"1.192.0.2.1": b"1.192.0.2.1",
        b"[IPv6:::ffff:192.0.2.1]": b"[IPv6:::ffff:192.0.2.0]",
        b"[IPv6:::ffff:c000:201]": b"[IPv6:::ffff:192.0.2.0]",
        b"[192.000.002.001]:25": b"[192.0.2.0]:25",
        b"mail.example": b"mail.example",
        b"": b"",
    }
    names6 = {
        b"[IPv6:2001:DB8:1:2::3]": b"[IPv6:2001:db8:1::]",
        b"[2001:db8:1:2::33]": b"[2001:db8:1:2::33]",
        b"[IPv6:2001:db8:1:2:0:0:0:3]": b"[IPv6:2001:db8:1::]",
        b"2001:0db8:1:02:0::0.0.0.3:": b"2001:db8:1:::",
    }
    for name in names:
        world.ring.add(session(NOON, name=name, port=9, settings=5))
    for name in names6:
        world.ring.add(session(NOON, ipv6, name=name))
    world.writer().turn()
    found = stored(world.folder)
    assert [client for _, client, _ in found] == [b"\xc0\0\2\0"] * len(names) + [ipv6[:6] + bytes(10)] * len(names6)
    read = [
        dict(zip(HISTORY_FIELDS, history_read(1, client, record) or (), strict=True)) for _, client, record in found
    ]
    assert [one["name"] for one in read] == [*names.values(), *names6.values()]
    assert {one["client_port"] for one in read[: len(names)]} == {9}


@pytest.mark.parametrize("last", range(256))
def test_a_masked_name_after_any_server_address(tmp_path: Path, last: int) -> None:
    """The byte before the name in a record is not part of the name."""
    mask = Mask((24, 48))
    for before, client, name, wanted in (
        (3, bytes((192, 0, 2, 77)), b"192.0.2.77", b"192.0.2.0"),
        (15, bytes.fromhex("20010db8000100020000000000000003"), b"2001:db8:1:2::3", b"2001:db8:1::"),
    ):
        _, _, record, _, _ = session(NOON, client, name=name, server=bytes(before) + bytes([last]))
        assert (history_read(1, client, mask.record(client, record)) or ())[-1] == wanted


# ---- not twice, and not lost


def test_a_recorder_that_is_killed_before_it_moves_the_tail(world: World) -> None:
    before = world.writer()
    world.ring.add(*several(5, NOON))
    world.ring.done = lambda: None  # type: ignore[method-assign]
    before.turn()
    del world.ring.done
    assert ports(world.folder) == [1, 2, 3, 4, 5] and world.ring.tail == 0
    world.ring.add(*several(3, NOON + 1, first=6))
    world.writer().turn()
    assert ports(world.folder) == list(range(1, 9)) and world.ring.tail == 8
    assert sum(minutes(world.folder).values()) == 8


def test_it_is_killed_in_a_midnight(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the transactions of two days."""
    world.ring.add(*several(4, NOON + 12 * HOUR - 0.002))
    store = OpenPart.store

    def killed(self: OpenPart, *arguments: Any) -> None:
        if self.path.name != TODAY:
            raise SystemExit
        store(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(OpenPart, "store", killed)
        world.writer().turn()
    assert ports(world.folder) == [1, 2] and world.ring.tail == 0
    world.writer().turn()
    assert ports(world.folder) == [1, 2, 3, 4]


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_transaction_that_ends_with_an_error(world: World, is_stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be stored all the same."""
    recorder = world.writer()
    recorder.turn()
    world.ring.add(*several(3, NOON))
    store = OpenPart.store

    def failing(self: OpenPart, *arguments: Any) -> None:
        if is_stored:
            store(self, *arguments)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(OpenPart, "store", failing)
        recorder.turn()
    assert world.ring.tail == 0 and "history" in world.held()
    world.ring.add(*several(2, NOON + 1, first=4))
    world.wait(1)
    recorder.turn()
    assert ports(world.folder) == [1, 2, 3, 4, 5] and world.ring.tail == 5 and world.held() == {}


def test_what_a_ring_has_no_room_for_is_lost_and_counted(tmp_path: Path) -> None:
    world = World(tmp_path, FakeRing(capacity=4))
    recorder = world.writer()
    world.ring.add(*several(6, NOON))
    assert recorder.stats().lost == 2 and recorder.stats().waiting == 4
    recorder.turn()
    assert ports(world.folder) == [3, 4, 5, 6]
    assert world.lines == ["history: 2 sessions lost: they were overwritten before they could be stored"]
    assert recorder.stats().lost == 2 and recorder.stats().sessions == 4
    world.ring.add(*several(5, NOON))
    recorder.turn()
    assert len(world.lines) == 1, "not more often than once a minute"
    world.wait(60)
    recorder.turn()
    assert world.lines[1:] == ["history: 1 session lost: they were overwritten before they could be stored"]


# ---- files that cannot be used


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        for at in range(4096, path.stat().st_size, 4096):
            file.seek(at)
            file.write(os.urandom(4096))


@pytest.mark.parametrize("how", ["pages", "header", "empty", "no_table"])
def test_a_file_that_is_damaged_at_the_start(world: World, how: str) -> None:
    before = world.writer()
    world.ring.add(*several(100, NOON))
    before.turn()
    before.close()
    path = world.folder / TODAY
    match how:
        case "pages":
            damage(path)
        case "header":
            path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
        case "empty":
            path.write_bytes(b"")
        case _:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE chunks")
    recorder = world.writer()
    world.ring.add(session(NOON, port=7))
    recorder.turn()
    recorder.clean_up()
    assert world.names() == ["2026-11-30.2.sqlite", f"{TODAY}.damaged"]
    assert ports(world.folder) == [7]
    (line,) = world.lines
    assert line.endswith(f"; it is set aside as {TODAY}.damaged, and recording goes on in another file")
    assert world.held() == {
        "history_files": f"history: damaged and set aside: {TODAY}.damaged; their sessions are not shown"
    }
    assert (recorder.stats().set_aside, recorder.stats().days, recorder.stats().error) == (1, 1, line[9:])
    (world.folder / f"{TODAY}.damaged").unlink()
    recorder.clean_up()
    assert world.held() == {}


def test_a_file_that_is_damaged_while_it_is_written(world: World) -> None:
    recorder = world.writer()
    world.ring.add(*several(3000, NOON))
    recorder.turn()
    with contextlib.closing(sqlite3.connect(world.folder / TODAY)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    damage(world.folder / TODAY)
    (world.folder / f"{TODAY}-shm").stat()
    for turn in range(3):
        world.ring.add(*several(3000, NOON + turn + 1, first=5000))
        recorder.turn()
    assert world.names() == ["2026-11-30.2.sqlite", f"{TODAY}.damaged"]
    assert world.ring.tail == world.ring.head and "set aside" in world.lines[0]
    assert sum(minutes(world.folder).values()) == len(ports(world.folder)) in (3000, 6000, 9000)


def test_it_is_damaged_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = world.writer()
    world.ring.add(session(NOON))

    def failing(self: OpenPart, *arguments: Any) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(OpenPart, "store", failing)
        recorder.turn()
        assert len([name for name in world.names() if name.endswith(".damaged")]) == writer.MAX_FILES
        assert world.held()["history"].endswith("is damaged as soon as it is written; recording is suspended")
    world.wait(1)
    recorder.turn()
    assert ports(world.folder) == [1] and "history" not in world.held()


def test_a_file_of_another_version_stays_as_it_is(world: World) -> None:
    world.folder.mkdir()
    path = world.folder / TODAY
    connection = day.create(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes(), path.stat().st_mtime_ns
    recorder = world.writer()
    for port in (1, 2):
        world.ring.add(session(NOON, port=port))
        recorder.turn()
        recorder.clean_up()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert world.names() == ["2026-11-30.2.sqlite", TODAY]
    (line,) = world.lines
    assert "version 2; expected 1; it stays as it is, and recording goes on in another file" in line
    assert world.held() == {"history_files": f"history: of another version: {TODAY}; their sessions are not shown"}


def test_a_file_that_another_process_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_part, "LOCK_SECONDS", 0.01)
    recorder = world.writer()
    world.ring.add(session(NOON, port=1))
    recorder.turn()
    with contextlib.closing(sqlite3.connect(world.folder / TODAY, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        world.ring.add(session(NOON, port=2))
        for _ in range(4):
            recorder.turn()
        assert world.held() == {} and world.names() == [TODAY], "it may let go soon"
        recorder.turn()
        assert world.names() == ["2026-11-30.2.sqlite", TODAY] and world.ring.tail == 2
        assert "another process holds it; recording goes on in another file" in world.lines[0]
        other.execute("ROLLBACK")
    assert ports(world.folder) == [1, 2]


def test_a_file_that_is_removed_while_it_is_written(world: World) -> None:
    recorder = world.writer()
    world.ring.add(session(NOON, port=1))
    recorder.turn()
    (world.folder / TODAY).unlink()
    world.ring.add(session(NOON, port=2))
    recorder.turn()
    assert ports(world.folder) == [2] and "was removed or replaced" in world.lines[0]
    assert world.names() == ["2026-11-30.2.sqlite"], "SQLite would take the write-ahead log of before for its own"
    (world.folder / "2026-11-30.2.sqlite-wal").unlink()
    world.ring.add(session(NOON, port=3))
    recorder.turn()
    assert ports(world.folder) == [2, 3]
    recorder.clean_up()
    assert {path.name for path in world.folder.glob("*-wal")} == {"2026-11-30.2.sqlite-wal"}


def test_names_that_are_not_files(world: World) -> None:
    (world.folder / TODAY).mkdir(parents=True)
    (world.folder / "2026-11-30.2.sqlite").symlink_to("/etc/passwd")
    recorder = world.writer()
    world.ring.add(session(NOON))
    recorder.turn()
    recorder.clean_up()
    assert world.names() == ["2026-11-30.2.sqlite", "2026-11-30.3.sqlite", TODAY] and world.lines == []
    assert recorder.stats().file == "2026-11-30.3.sqlite" and world.held() == {}


def test_a_folder_that_is_removed(world: World) -> None:
    recorder = world.writer()
    world.ring.add(session(NOON, port=1))
    recorder.turn()
    for path in world.folder.iterdir():
        path.unlink()
    world.folder.rmdir()
    world.ring.add(session(NOON, port=2))
    recorder.turn()
    assert ports(world.folder) == [2] and world.held() == {}


def test_drafts_of_a_process_that_was_killed_are_removed(world: World) -> None:
    world.folder.mkdir()
    (world.folder / f".{TODAY}.{2**22 + 1}.new").touch()
    (world.folder / f".{TODAY}.{os.getpid()}.new").touch()  # another recorder's
    (world.folder / "notes.txt").touch()
    world.writer().clean_up()
    assert world.names() == [TODAY, "notes.txt"]


# ---- the disk


def test_a_full_disk_suspends_recording(tmp_path: Path) -> None:
    world = World(tmp_path, FakeRing(capacity=4))
    recorder = world.writer()
    recorder.turn()
    reserve = (1 << 30) * 4096 // 20
    world.free = reserve - 4096
    began = world.now
    for turn in range(10):
        world.ring.add(session(NOON + turn, port=turn))
        recorder.turn()
        world.wait(1)
    assert len(world.lines) == 1 and "is free; recording is suspended, retried automatically" in world.lines[0]
    assert world.held()["history"].endswith(
        "of the file system of " + str(tmp_path) + " is free; recording is suspended"
    )
    stats = recorder.stats()
    assert (stats.recording, stats.since, stats.lost, stats.waiting) == (False, began, 6, 4)
    assert stats.problem and stats.error == stats.problem
    world.free = reserve + 4096
    world.wait(10)
    recorder.turn()
    assert not recorder.stats().recording, "the limit must not flap"
    world.free = 2 * reserve
    world.wait(10)
    recorder.turn()
    assert world.lines[1:] == ["history: sessions are recorded again; 6 sessions lost meanwhile"]
    assert world.held() == {} and ports(tmp_path) == [6, 7, 8, 9]
    assert recorder.stats().recording and recorder.stats().error, "the last error is still known"


GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(4 * MIB, MIB), (GIB // 2, GIB // 8), (GIB, GIB // 4), (4 * GIB, GIB // 4), (40 * GIB, 2 * GIB)],
)
def test_what_is_left_to_others(world: World, total: int, reserve: int) -> None:
    world.folder.mkdir()
    world.total = total
    for free, is_recording in ((reserve, True), (reserve - 4096, False)):
        world.free = free
        recorder = world.writer()
        world.ring.add(session(NOON))
        recorder.turn()
        assert recorder.stats().recording == is_recording


@pytest.mark.parametrize("is_suspended", [False, True])
def test_old_files_go_before_recording_is_suspended(tmp_path: Path, is_suspended: bool) -> None:
    """As many as are needed, and all but one."""
    world = World(tmp_path, max_size=32 * MIB)
    recorder = world.writer()
    for each in range(6):
        world.ring.add(*several(2000, NOON + each * DAY))
        recorder.turn()
        world.wait(DAY)
        recorder.clean_up()
    recorder.close()
    files = day.files(tmp_path)
    sizes = [path.stat().st_size for path in files]
    disk = 256 * MIB + sum(sizes) - sizes[0] - 1  # bytes that files and free space have together

    def free() -> int:
        return disk - sum(path.stat().st_size for path in day.files(tmp_path))

    world.total, world.free_now = 2 * GIB, free
    recorder = world.writer()
    if is_suspended:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(recorder._parts, "to_write", lambda of_day: 1 // 0)
            patched.setattr(recorder, "_check_disk", lambda: None)
            world.ring.add(session(world.now))
            recorder.turn()
        assert not recorder.stats().recording
        disk += 64 * MIB  # it resumes with a quarter more
        world.wait(60)
    world.ring.add(session(world.now))
    recorder.turn()
    assert recorder.stats().recording and world.held() == {}
    assert day.files(tmp_path)[:-1] == files[2:-1] or day.files(tmp_path) == files[2:]
    deleted = [line for line in world.lines if "is deleted: less than 268.4 MB of the file system" in line]
    assert len(deleted) == 2
    disk = 0
    world.ring.add(session(world.now))
    recorder.turn()
    assert not recorder.stats().recording and day.files(tmp_path) == files[-1:]
    world.wait(60)
    recorder.turn()
    assert day.files(tmp_path) == files[-1:], "one stays"


@pytest.mark.parametrize("jump", [0, 365 * DAY])
def test_days_are_deleted_while_recording_is_suspended(
    tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not by a clock that is wrong."""
    world = World(tmp_path, keep=3 * int(DAY))
    recorder = world.writer()
    run_days(world, recorder, 6)
    before = days(world)

    def failing(self: OpenPart, *arguments: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    monkeypatch.setattr(OpenPart, "store", failing)
    world.now += jump
    run_days(world, recorder, 1 if jump else 4)
    assert not recorder.stats().recording and len(world.held()) == 1
    if jump:
        assert set(before[1:]) <= set(days(world)), "up to the day that was certain"
    else:
        assert not set(before[:-1]) & set(days(world)), "the last one has sessions that wait"


def test_a_clock_that_jumps_to_many_days_deletes_little(tmp_path: Path) -> None:
    """Each day's file is open, but they are small."""
    world = World(tmp_path, max_size=4 * MIB)
    recorder = world.writer()
    for turn in range(50):
        world.ring.add(*several(1000, NOON + turn))
        recorder.turn()
    assert 2 * MIB < recorder.stats().bytes < 3 * MIB
    for each in range(1, 9):
        world.ring.add(session(NOON + each * DAY))
        recorder.turn()
    assert len(recorder._parts.open) >= 8
    assert len(stored(tmp_path)) == 50_008 and world.lines == []


def test_many_workers_whose_rings_fill_fast(tmp_path: Path) -> None:
    """A turn that leaves sessions behind says that the next one is due."""
    world = World(tmp_path, *(FakeRing() for _ in range(64)))
    world.ring.add(*several(1100, NOON))
    recorder = world.writer()
    assert recorder.turn() >= writer.BUSY
    assert recorder.turn() < writer.BUSY and recorder.is_drained


def test_it_resumes_without_a_session(world: World) -> None:
    recorder = world.writer()
    world.folder.parent.mkdir(exist_ok=True)
    world.folder.write_bytes(b"")  # not a folder
    recorder.clean_up()
    assert world.held() == {"history": f"history: {world.folder}: Not a directory; recording is suspended"}
    world.folder.unlink()
    world.wait(5)
    recorder.turn()
    assert world.held() == {} and world.names() == [TODAY]
    assert world.lines[-1] == "history: sessions are recorded again; 0 sessions lost meanwhile"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.EACCES])
def test_a_new_day_cannot_be_made(world: World, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = world.writer()
    world.ring.add(session(NOON, port=1))
    recorder.turn()
    world.ring.add(session(NOON + DAY, port=2))

    def failing(*arguments: object) -> None:
        raise OSError(code, os.strerror(code), str(world.folder))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", failing)
        for _ in range(5):
            recorder.turn()
            world.wait(1)
    assert len(world.lines) == 1 and os.strerror(code) in world.held()["history"] and world.names() == [TODAY]
    world.wait(5)
    recorder.turn()
    assert ports(world.folder) == [1, 2] and world.held() == {}


def test_a_reader_whose_transaction_lasts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log cannot be used again, so the day gets another part."""
    monkeypatch.setattr(open_part, "RESTART_SIZE", MIB // 2)
    monkeypatch.setattr(open_part, "RESTART_SECONDS", 0.001)
    monkeypatch.setattr(open_part, "MAX_WAL_SIZE", 2 * MIB)
    recorder = world.writer()
    world.ring.add(session(NOON, port=1))
    recorder.turn()
    with contextlib.closing(day.connect(world.folder / TODAY)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]
        largest, total = 0, 1
        for turn in range(60):
            world.ring.add(*several(1000, NOON + turn, first=2))
            recorder.turn()
            total += 1000
            largest = max(largest, *(path.stat().st_size for path in world.folder.glob("*-wal")))
            world.wait(1)
        assert largest < 3 * MIB and len(day.files(world.folder)) == 2
        assert reader.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]
    world.wait(DAY)
    recorder.clean_up()
    world.wait(DAY)
    recorder.clean_up()
    assert not list(world.folder.glob("2026-11-30*-wal")), "completed once the reader has ended"
    assert len(stored(world.folder)) == total and world.lines == []


# ---- retention


def test_max_size_smaller_than_a_day(tmp_path: Path) -> None:
    world = World(tmp_path, max_size=4 * MIB)
    recorder = world.writer()
    first = 1
    for turn in range(100):
        world.ring.add(*several(1000, NOON + turn, first=first % 60000))
        recorder.turn()
        recorder.clean_up()
        first += 1000
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * MIB
        assert recorder.stats().bytes <= 4 * MIB
    found = stored(tmp_path)
    assert 20_000 < len(found) < 100_000
    assert found[-1][0] >> day.COUNT_BITS == round((NOON + 99.999) * 1e6) and world.held() == {}
    assert sum(minutes(tmp_path).values()) == len(found), "sums are only of sessions that are there"
    assert "is deleted: the history is as large as history.max_size allows" in world.lines[0]
    assert recorder.stats().lost == 0


def test_the_parts_of_a_day_are_read_in_their_order(tmp_path: Path) -> None:
    world = World(tmp_path, max_size=4 * MIB)
    recorder = world.writer()
    for turn in range(30):
        world.ring.add(*several(1000, NOON + turn))
        recorder.turn()
    assert len(day.files(tmp_path)) == 3
    archive = Archive(tmp_path, world.lines.append)
    assert archive.count() == 30_000
    of_client = query("192.0.2.1", NOON + DAY, archive.all_list_names)
    for chosen, newest_first in ((Query(), False), (Query(), True), (of_client, False), (of_client, True)):
        numbers = [number for number, _, _ in archive.rows(chosen, newest_first=newest_first)]
        assert len(numbers) == 30_000 and numbers == sorted(numbers, reverse=newest_first)
    assert world.lines == []


def test_files_that_cannot_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, max_size=2 * MIB)
    recorder = world.writer()

    def refuse(path: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(day, "remove", refuse)
        patched.setattr("fastscreen.history.day.create", lambda path, after=None, make=day.create: _made(make, path))
        for turn in range(160):
            world.ring.add(*several(1000, NOON + turn))
            recorder.turn()
            world.wait(1)
    assert "larger than history.max_size allows; recording is suspended" in world.held()["history"]
    assert len([line for line in world.lines if "suspended" in line]) == 1, "the limit must not flap"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * MIB
    world.wait(5)
    recorder.turn()
    assert world.held() == {} and recorder.stats().bytes <= 2 * MIB


def _made(make: Any, path: Path) -> sqlite3.Connection:
    """`day.create` without the removal of a draft."""
    draft = path.with_suffix(".draft")
    connection = sqlite3.connect(draft)
    connection.executescript(day.SCHEMA)
    connection.close()
    draft.rename(path)
    return day.connect_to_write(path)


def run_days(world: World, recorder: writer.HistoryWriter, count: float) -> None:
    """Time passes, with a session every six hours."""
    for _ in range(int(count * 4)):
        world.ring.add(session(world.now))
        recorder.turn()
        recorder.clean_up()
        world.wait(6 * HOUR)


def days(world: World) -> list[str]:
    return [path.stem for path in day.files(world.folder)]


def test_days_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    world = World(tmp_path, keep=3 * int(DAY))
    recorder = world.writer()
    run_days(world, recorder, 6)
    assert days(world) == ["2026-12-03", "2026-12-04", "2026-12-05", "2026-12-06"]
    recorder.configure(World(tmp_path, keep=int(DAY)).settings)
    recorder.clean_up()
    assert days(world) == ["2026-12-05", "2026-12-06"]
    assert "history: 2026-12-03.sqlite (" in world.lines[-2] and "older than history.keep" in world.lines[-2]


@pytest.mark.parametrize("jump", [365 * DAY, -365 * DAY, 70 * 365 * DAY, 2000 * 365 * DAY, -HOUR, -2 * HOUR, 40 * DAY])
@pytest.mark.parametrize("lasts", [0.25, 1])
def test_a_clock_that_jumps_and_comes_back(tmp_path: Path, jump: float, lasts: float) -> None:
    """No day is deleted, and no session is missing."""
    world = World(tmp_path, keep=10 * int(DAY))
    recorder = world.writer()
    run_days(world, recorder, 8)
    before = days(world)
    world.now += jump
    run_days(world, recorder, lasts)
    assert set(before) <= set(days(world)) and world.held() == {}
    of_jump = str(day.day_at(int((world.now - 6 * HOUR) * 1e6)))
    assert of_jump in days(world)
    world.now -= jump
    recorder = world.writer()
    run_days(world, recorder, 1)
    assert {*before, of_jump} <= set(days(world))
    assert len(stored(world.folder)) == world.ring.tail and world.ring.lost == 0 and world.held() == {}
    run_days(world, recorder, 4)
    assert before[0] not in days(world), "days are deleted again"


def test_a_clock_that_goes_back_an_hour_again_and_again(world: World) -> None:
    recorder = world.writer()
    for turn in range(40):
        world.ring.add(*several(10, world.now, first=10 * turn))
        recorder.turn()
        world.wait(600 if turn % 4 else -1700)
    assert sorted(ports(world.folder)) == list(range(400))


def test_a_quiet_day_has_a_file(world: World) -> None:
    """Otherwise its clock would not be believed."""
    recorder = world.writer()
    for _ in range(4):
        recorder.clean_up()
        world.wait(DAY)
    assert days(world) == ["2026-11-30", "2026-12-01", "2026-12-02", "2026-12-03"]


def test_two_recorders_during_a_restart(world: World) -> None:
    """The one of before has its own rings, and both write to the same file."""
    before = World(world.folder)
    recorders = [(before, before.writer()), (world, world.writer())]
    for turn in range(20):
        for number, (each, recorder) in enumerate(recorders):
            each.ring.add(*several(100, NOON + turn, first=200 * turn + 100 * number))
            recorder.turn()
            recorder.clean_up()
    assert sorted(ports(world.folder)) == list(range(4000)) and world.names() == [TODAY]
    assert sum(minutes(world.folder).values()) == 4000 and [*world.lines, *before.lines] == []


def test_what_a_killed_recorder_left_is_completed_the_next_day(world: World) -> None:
    recorder = world.writer()
    world.ring.add(*several(10, NOON))
    recorder.turn()
    world.wait(DAY)
    world.writer().clean_up()
    recorder.close()
    world.writer().clean_up()
    assert not (world.folder / f"{TODAY}-wal").exists() and len(stored(world.folder)) == 10


def test_a_file_that_was_closed_before_its_day_was_over_is_completed(world: World) -> None:
    recorder = world.writer()
    world.ring.add(*several(10, NOON))
    recorder.turn()
    recorder.close()
    assert not (world.folder / f"{TODAY}-wal").exists() and not day.is_complete(world.folder / TODAY)
    world.wait(DAY)
    world.writer().clean_up()
    assert day.is_complete(world.folder / TODAY)
    with contextlib.closing(day.connect(world.folder / TODAY)) as connection:
        assert day.count_unindexed(connection) == 0


def test_a_clean_up_that_fails_does_not_end_the_recording(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = world.writer()

    def failing(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/x")

    monkeypatch.setattr(folder, "remove_remains", failing)
    for turn in range(3):
        world.ring.add(session(NOON, port=turn))
        recorder.turn()
        recorder.clean_up()
    assert ports(world.folder) == [0, 1, 2] and world.lines == ["history: /x: Permission denied"] and world.held() == {}


def test_names_of_damaged_files_are_not_used_again(tmp_path: Path) -> None:
    (tmp_path / TODAY).touch()
    assert folder.set_aside(tmp_path / TODAY).name == f"{TODAY}.damaged"
    (tmp_path / TODAY).touch()
    (tmp_path / f"{TODAY}-wal").touch()
    assert folder.set_aside(tmp_path / TODAY).name == f"{TODAY}.damaged2"
    found = folder.entries(tmp_path)
    assert [(entry.path.name, entry.is_damaged) for entry in found] == [
        (f"{TODAY}.damaged", True),
        (f"{TODAY}.damaged2", True),
    ]
    assert folder.next_part(tmp_path, found, found[0].part.day).number == 2
    assert (tmp_path / f"{TODAY}.damaged2-wal").exists()
