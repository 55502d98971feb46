"""The files of a day: names, parts, and the index by address, which lags behind."""

import random
import sqlite3
import stat
from datetime import date
from pathlib import Path

import pytest

from fastscreen.history import day
from fastscreen.history.day import COUNT_BITS, EVER, MAX_TIME, Part, VersionError


def test_names_of_files(tmp_path: Path) -> None:
    first, second = Part(date(2026, 11, 30), 1), Part(date(2026, 11, 30), 2)
    assert [part.path(tmp_path).name for part in (first, second)] == ["2026-11-30.sqlite", "2026-11-30.2.sqlite"]
    assert day.part_of(second.path(tmp_path)) == second and day.day_of(second.path(tmp_path)) == second.day
    others = ("2026-11-30.1.sqlite", "2026-11-31.sqlite", "2026-11-30.sqlite.damaged", "20261130.sqlite", "x.sqlite",
              "2026-11-30.sqlite-wal", "2026-11-30.02.sqlite", ".2026-11-30.sqlite")  # fmt: skip
    assert [name for name in others if day.part_of(tmp_path / name) is not None] == []
    for name in ("2026-12-01.sqlite", "2026-11-30.10.sqlite", "2026-11-30.2.sqlite", "2026-11-30.sqlite", *others):
        (tmp_path / name).touch()
    assert [path.name for path in day.files(tmp_path)] == [
        "2026-11-30.sqlite", "2026-11-30.2.sqlite", "2026-11-30.10.sqlite", "2026-12-01.sqlite"
    ]  # fmt: skip


@pytest.mark.parametrize("ended", [-1, 0, 1_796_083_199_999_999, 1_796_083_200_000_000, MAX_TIME, 2**63])
def test_every_time_has_a_day(ended: int, tmp_path: Path) -> None:
    of_day = day.day_at(ended)
    assert day.begin_of(of_day) <= min(max(ended, 0), MAX_TIME) < day.begin_of(of_day) + 86_400_000_000
    assert day.part_of(day.file_of(tmp_path, ended)) == Part(of_day, 1)


def test_a_file_has_its_name_once_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "2026-11-30.sqlite"
    seen = []

    def link(draft: Path, target: Path) -> None:
        seen.append((draft.stat().st_mode, draft.stat().st_size, target.exists()))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr("os.link", link)
        day.create(path)
    ((mode, size, existed),) = seen
    assert stat.S_IMODE(mode) == 0o600 and size > 4096 and not existed
    assert list(tmp_path.iterdir()) == []
    day.create(path, date(2026, 11, 29)).close()
    with pytest.raises(FileExistsError):
        day.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection = day.connect(path)
    assert day.made_after(connection) == date(2026, 11, 29)
    connection.close()


def test_another_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-30.sqlite"
    connection = day.create(path)
    connection.execute(f"PRAGMA user_version = {day.VERSION + 1}")
    connection.close()
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(VersionError, match=f"version {day.VERSION + 1}; expected {day.VERSION}"):
        day.connect_to_write(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"x" * 4096])
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "2026-11-30.sqlite"
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError):
        day.connect(path)


def of_clients(connection: sqlite3.Connection, low: bytes, high: bytes, first: int = 0, last: int = EVER) -> list[int]:
    values = {"low": low, "high": high, "first": first, "last": last}
    return sorted(number for (number,) in connection.execute(day.NUMBERS_OF_CLIENTS, values))


def test_addresses_are_found_before_and_after_they_are_indexed(tmp_path: Path) -> None:
    """With late sessions, of times that were indexed already."""
    chance = random.Random(17)
    connection = day.create(tmp_path / "2026-11-30.sqlite")
    clients = [bytes([192, 0, 2, last]) for last in range(20)] + [b"\x20\1\x0d\xb8" + bytes(11) + b"\1", bytes(16)]
    rows: dict[int, day.Row] = {}
    for turn in range(60):
        fresh: list[day.Row] = []
        for _ in range(chance.randrange(8)):
            number = chance.randrange(turn * 1000) if turn and chance.random() < 0.2 else turn * 1000 + len(fresh)
            if number not in rows:
                rows[number] = number, chance.choice(clients), b"%d" % number
                fresh.append(rows[number])
        connection.execute("BEGIN IMMEDIATE")
        day.insert(connection, sorted(fresh), [])
        if chance.random() < 0.2:
            day.index(connection)
        connection.execute("COMMIT")
        low, high = sorted(chance.choices([client for client in clients if len(client) == 4], k=2))
        first, last = sorted((chance.randrange(turn * 1000 + 1), chance.randrange(turn * 1000 + 1000)))
        for bounds in ((low, high, 0, EVER), (low, low, first, last), (clients[-1], b"\xff" * 16, first, EVER)):
            wanted = [
                row
                for number, row in sorted(rows.items())
                if len(row[1]) == len(bounds[0])
                and bounds[0] <= row[1] <= bounds[1]
                and bounds[2] <= number <= bounds[3]
            ]
            assert of_clients(connection, *bounds) == [number for number, _, _ in wanted]
    ((chunks,),) = connection.execute("SELECT count(*) FROM chunks").fetchall()
    ((late,),) = connection.execute("SELECT count(*) FROM clients WHERE chunk = 0").fetchall()
    assert chunks > 5 and late > 5
    ids = {number for (number,) in connection.execute("SELECT id FROM clients")}
    assert len(ids) + day.count_unindexed(connection) == len(rows)
    connection.close()


def test_the_numbers_of_sessions_fit(tmp_path: Path) -> None:
    assert MAX_TIME << COUNT_BITS | 255 == EVER
    connection = day.create(tmp_path / "2026-11-30.sqlite")
    day.insert(connection, [(EVER, b"\1\2\3\4", b"")], [])
    assert of_clients(connection, b"\1\2\3\4", b"\1\2\3\4") == [EVER]
    connection.close()
