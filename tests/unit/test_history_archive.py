"""The folder of a history, for reading: while it is written, with files that are damaged or of another version."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import historyfiles
import pytest
from historyfiles import NOON, deferred, known, listed, row

from fastscreen.history import archive as archives
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.day import COUNT_BITS, Row, create, file_of, insert
from fastscreen.history.filter import Query, query

DAY = 86400
NOW = NOON + 3600.0


def ends(rows: list[Row]) -> list[float]:
    """The times of the ends, in s after noon."""
    return [(number >> COUNT_BITS) / 1e6 - NOON for number, _, _ in rows]


def found(archive: Archive, text: str, *, newest_first: bool = False) -> list[float]:
    chosen = query(text, NOW, archive.all_list_names)
    return ends(list(archive.rows(chosen, newest_first=newest_first)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three days, with one session each minute for a while, of four clients in turn."""
    clients = ("192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8::1")
    rows = [known(day * DAY + at * 60, clients[at % 4]) for day in (-2, -1, 0) for at in range(8)]
    return historyfiles.make(tmp_path / "history", rows)


def test_by_time(folder: Path) -> None:
    archive = Archive(folder, pytest.fail)
    assert len(found(archive, "")) == 24
    assert found(archive, f"since:@{NOON + 300}") == [300, 360, 420]
    assert found(archive, f"until:@{NOON - 2 * DAY + 60}") == [-2 * DAY], "the end is not included"
    across = f"since:@{NOON - DAY + 420} until:@{NOON + 60}"
    assert found(archive, across) == [420 - DAY, 0]
    assert found(archive, across, newest_first=True) == [0, 420 - DAY]


def test_by_client(folder: Path) -> None:
    archive = Archive(folder, pytest.fail)
    assert found(archive, f"192.0.2.1 since:@{NOON - DAY}") == [-DAY, 240 - DAY, 0, 240]
    assert found(archive, "192.0.2.1", newest_first=True)[:3] == [240, 0, 240 - DAY]
    assert found(archive, f"192.0.2.0/24 since:@{NOON}") == [0, 60, 240, 300]
    assert found(archive, f"2001:db8::/32 since:@{NOON}") == [180, 420]
    assert found(archive, f"192.0.0.0/4 since:@{NOON}") == [0, 60, 120, 240, 300, 360], "without the index"
    assert found(archive, f"192.0.2.0/24 -192.0.2.9 since:@{NOON}") == [0, 240]
    assert found(archive, "203.0.113.1") == []


def test_an_ipv6_address_that_begins_like_an_ipv4_network(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, "192.0.2.1"), known(1, "c000:201::")])
    archive = Archive(folder, pytest.fail)
    assert found(archive, "192.0.2.0/24") == [0]
    assert found(archive, "192.0.2.1/32") == [0]


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_are_complete(folder: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    archive = Archive(folder, pytest.fail)
    everything = found(archive, "", newest_first=newest_first)
    client = found(archive, "192.0.2.0/24", newest_first=newest_first)
    for size in (1, 2, 3, 8):
        monkeypatch.setattr(archives, "PAGE", size)
        monkeypatch.setattr(archives, "_PARAMETERS", size)
        assert found(archive, "", newest_first=newest_first) == everything == sorted(everything, reverse=newest_first)
        assert found(archive, "192.0.2.0/24", newest_first=newest_first) == client


def test_sessions_of_the_same_microsecond(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, counter=at) for at in range(5)])
    assert found(Archive(folder, pytest.fail), f"since:@{NOON} until:@{NOON}.000001") == [0] * 5


def test_minutes(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0), known(59), listed(59, counter=1), deferred(60), known(-DAY)])
    archive = Archive(folder, pytest.fail)
    first = NOON // 60
    assert list(archive.minutes(NOON * 1_000_000)) == [(first, 1, 1, 2), (first, 5, 0, 1), (first + 1, 4, 0, 1)]
    assert list(archive.minutes(NOON * 1_000_000, NOON * 1_000_000 + 1)) == [(first, 1, 1, 2), (first, 5, 0, 1)]
    assert archive.count() == 5


def test_settings_by_number(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [listed(0)])
    historyfiles.make(folder, [row(-DAY, settings=77)], {77: b"{}", 78: b"text"})
    archive = Archive(folder, pytest.fail)
    assert archive.settings(historyfiles.NUMBER) == historyfiles.SETTINGS
    assert archive.settings(77) is None, "of another version"
    assert archive.settings(79) is None
    assert archive.all_list_names() == list(historyfiles.LISTS)
    assert found(archive, "list:zen") == [0]
    (session, other) = archive.sessions(Query())
    assert [answer.name for answer in other.lists] == ["zen.example"]
    assert session.lists == ()


def test_settings_of_another_day(tmp_path: Path) -> None:
    """A session that began before a reload, and ended the next day."""
    folder = historyfiles.make(tmp_path / "h", [listed(0)])
    historyfiles.make(folder, [listed(DAY)], {})
    (_, session) = Archive(folder, pytest.fail).sessions(Query())
    assert [answer.name for answer in session.lists] == ["zen.example"]


# ---- a live writer


def test_while_it_is_written(tmp_path: Path) -> None:
    """Readers see what is committed, keep nobody waiting, and leave nothing behind."""
    folder = tmp_path / "h"
    folder.mkdir()
    archive = Archive(folder, pytest.fail)
    assert found(archive, "") == []
    path = file_of(folder, NOON * 1_000_000)
    path.touch()
    assert found(archive, "") == [], "the recorder has just made the file"
    path.unlink()
    writer = create(path)
    assert found(archive, "") == []
    writer.execute("BEGIN")
    insert(writer, [known(0)], [])
    assert found(archive, "") == []
    writer.execute("COMMIT")
    assert found(archive, "") == [0]
    reading = archive.rows(Query())
    next(reading)
    writer.execute("BEGIN")
    insert(writer, [known(1)], [])
    writer.execute("COMMIT")
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "the reader does not prevent it"
    del reading
    writer.close()
    assert sorted(each.name for each in folder.iterdir()) == [path.name]
    assert found(archive, "") == [0, 1]
    assert sorted(each.name for each in folder.iterdir()) == [path.name]


def test_what_is_written_meanwhile_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PAGE", 2)
    folder = historyfiles.make(tmp_path / "h", [known(at) for at in range(4)])
    reading = Archive(folder, pytest.fail).rows(Query())
    assert len([next(reading) for _ in range(2)]) == 2
    writer = sqlite3.connect(file_of(folder, NOON * 1_000_000), isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN")
    insert(writer, [known(9)], [])
    writer.execute("COMMIT")
    assert ends(list(reading)) == [2, 3, 9]
    writer.close()


def test_a_day_that_is_deleted_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PAGE", 2)
    reading = Archive(folder, pytest.fail).rows(Query())
    next(reading)
    for each in sorted(folder.iterdir())[:2]:
        each.unlink()
    assert ends(list(reading)) == [60 - 2 * DAY, *(60 * at for at in range(8))]


# ---- bad files


def no_database(path: Path) -> None:
    path.write_bytes(b"what the power failure left" * 1000)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def zeros_in_it(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


def without_tables(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE other (a); PRAGMA user_version = 1;")
    connection.close()


def of_another_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("harm", [no_database, cut_short, zeros_in_it, without_tables, of_another_version])
def test_a_file_that_cannot_be_read_is_named_once(folder: Path, harm: Callable[[Path], None]) -> None:
    path = sorted(folder.iterdir())[1]
    harm(path)
    before = path.read_bytes()
    said: list[str] = []
    archive = Archive(folder, said.append)
    others = [each for day in (-2, 0) for each in (day * DAY + at * 60 for at in range(8))]
    for _ in range(2):
        assert [each for each in found(archive, "") if not -DAY <= each < -DAY + 480] == others
        assert len(found(archive, "192.0.2.1")) >= 4
        list(archive.minutes())
        archive.settings(12345)
    assert len(said) == 1
    assert said[0].startswith(f"{path}: ") and said[0].endswith("; sessions of this day are missing")
    assert ("written by another version of fastscreen (format 2, expected 1)" in said[0]) == (
        harm is of_another_version
    )
    assert ("damaged (" in said[0]) == (harm is not of_another_version)
    assert path.read_bytes() == before


def test_a_record_of_another_version_is_omitted(tmp_path: Path) -> None:
    (number, client, packed) = known(0)
    folder = historyfiles.make(tmp_path / "h", [known(1)])
    writer = sqlite3.connect(file_of(folder, NOON * 1_000_000))
    writer.execute("INSERT INTO sessions VALUES (?, ?, ?)", (number, client, b"\2" + packed[1:]))
    writer.execute("INSERT INTO sessions VALUES (?, ?, ?)", (number + 1, 7, "text"))
    writer.commit()
    writer.close()
    archive = Archive(folder, pytest.fail)
    assert [session.ended - NOON for session in archive.sessions(Query())] == [1]
    assert [archive.session(each) is None for each in archive.rows(Query())] == [True, True, False]


def test_other_files_are_ignored(folder: Path) -> None:
    for name in (
        "2026-11-22.sqlite.damaged",
        "2026-13-01.sqlite",
        "notes.txt",
        "2026-11-22.sqlite-journal",
        "x.sqlite",
    ):
        (folder / name).write_text("x")
    assert len(found(Archive(folder, pytest.fail), "")) == 24


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "missing; expected the folder of history.path"),
        ("file", "not a folder; expected that of history.path"),
    ],
)
def test_no_folder(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError) as caught:
        Archive(tmp_path / name).days()
    assert str(caught.value) == f"{tmp_path / name}: {said}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_without_rights(folder: Path) -> None:
    """In a child, which becomes another user."""
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    inside, outside = os.pipe()
    if not (child := os.fork()):
        os.seteuid(65534)
        said: list[str] = []
        count = len(list(Archive(folder, said.append).rows(Query())))
        os.write(outside, f"{count} {'; '.join(said)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(outside)
    with os.fdopen(inside) as answer:
        text = answer.read()
    assert (
        text.startswith("0 ") and text.count("permission denied; only root and the user of fastscreen may read it") == 3
    )
