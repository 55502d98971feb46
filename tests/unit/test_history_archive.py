"""The folder of a history, for reading: while it is written, with files that are damaged or of another version."""

import os
import sqlite3
import time
from collections.abc import Callable
from datetime import date
from ipaddress import ip_address
from pathlib import Path

import historyfiles
import pytest
from historyfiles import NOON, deferred, known, listed, row

from fastscreen.history import archive as archives
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.day import (
    COUNT_BITS,
    Part,
    Row,
    create,
    file_of,
    index,
    insert,
    numbers_of_clients,
)
from fastscreen.history.filter import Query, query

DAY = 86400
NOW = NOON + 3600.0


def ends(rows: list[Row]) -> list[float]:
    """The times of the ends, in s after noon."""
    return [(number >> COUNT_BITS) / 1e6 - NOON for number, _, _ in rows]


def found(archive: Archive, text: str, *, newest_first: bool = False) -> list[float]:
    chosen = query(text, NOW, archive.all_list_names)
    return ends(list(archive.rows(chosen, newest_first=newest_first)))


CLIENTS = ("192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8::1")
ROWS = [known(day * DAY + at * 60, CLIENTS[at % 4]) for day in (-2, -1, 0) for at in range(8)]


@pytest.fixture(params=[1, 3])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three days, in one or three parts, with one session each minute for a while, of four clients in turn."""
    return historyfiles.make(tmp_path / "history", ROWS, parts=request.param)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The same, in one part."""
    return historyfiles.make(tmp_path / "history", ROWS)


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


@pytest.mark.parametrize("newest_first", [False, True])
def test_parts_of_a_day_that_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    """As after a clock was set back. Their minutes are those of one day."""
    rows = [known(at, CLIENTS[at % 4]) for at in (*range(9), *range(20, 29), *range(40, 60))]
    folder = tmp_path / "h"
    for number, among in enumerate((rows[:12], rows[5:9], rows[12:], [known(3)]), 1):
        part = historyfiles.make(tmp_path / str(number), among)
        folder.mkdir(exist_ok=True)
        (part / "2026-11-22.sqlite").rename(Part(date(2026, 11, 22), number).path(folder))
    archive = Archive(folder, pytest.fail)
    wanted = sorted(ends([*rows, *rows[5:9], known(3)]), reverse=newest_first)
    for size in (1, 2, 3, 7, 4096):
        monkeypatch.setattr(archives, "PAGE", size)
        assert found(archive, "", newest_first=newest_first) == wanted
    assert [day.day for day in archive.days()] == [date(2026, 11, 22)]
    assert len(archive.days()[0].paths) == 4 and archive.days()[0].size >= 4 * 4096
    assert sum(minute[3] for minute in archive.minutes()) == archive.count() == len(wanted)
    assert len({minute[:3] for minute in archive.minutes()}) == len(list(archive.minutes())) == 1


def test_sessions_of_the_same_microsecond(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, counter=at) for at in range(5)])
    assert found(Archive(folder, pytest.fail), f"since:@{NOON} until:@{NOON}.000001") == [0] * 5


def test_the_index_is_used(tmp_path: Path) -> None:
    """A client is found without reading the other sessions, whether the file has an index of all of them or not."""
    folder = historyfiles.make(tmp_path / "h", [known(at, f"10.0.{at >> 8}.{at & 255}") for at in range(5000)])
    path = file_of(folder, NOON * 1_000_000)
    connection = sqlite3.connect(path, isolation_level=None)
    index(connection)
    insert(connection, [known(9000, "10.0.0.7")], [])
    connection.execute("ANALYZE")
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(step, 1)
    wanted = ip_address("10.0.0.7").packed
    first = (NOON - 1) * 1_000_000 << COUNT_BITS
    assert len(list(numbers_of_clients(connection, wanted, wanted, first))) == 2
    assert steps < 300
    connection.close()


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


def test_a_day_that_is_deleted_meanwhile(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PAGE", 2)
    reading = Archive(single, pytest.fail).rows(Query())
    next(reading)
    for each in sorted(single.iterdir())[:2]:
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
def test_a_file_that_cannot_be_read_is_named_once(single: Path, harm: Callable[[Path], None]) -> None:
    path = sorted(single.iterdir())[1]
    harm(path)
    before = path.read_bytes()
    said: list[str] = []
    archive = Archive(single, said.append)
    others = [each for day in (-2, 0) for each in (day * DAY + at * 60 for at in range(8))]
    for _ in range(2):
        assert [each for each in found(archive, "") if not -DAY <= each < -DAY + 480] == others
        assert len(found(archive, "192.0.2.1")) >= 4
        list(archive.minutes())
        archive.settings(12345)
    assert len(said) == 1
    assert said[0].startswith(f"{path}: ") and said[0].endswith("; sessions of this day are missing")
    version = "not a file of this version of fastscreen (version 2; expected 1)"
    assert (version in said[0]) == (harm is of_another_version)
    assert ("damaged (" in said[0]) == (harm is not of_another_version)
    assert path.read_bytes() == before


def locked(path: Path) -> sqlite3.Connection:
    """Nobody else can read it, until the connection is closed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_problem_ends_when_the_file_can_be_read(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is reported again when it returns."""
    monkeypatch.setattr(archives, "BUSY", 0.05)
    said: list[str] = []
    archive = Archive(single, said.append)
    for times in (1, 2):
        holder = locked(sorted(single.iterdir())[1])
        for _ in range(2):
            assert len(found(archive, "")) == 16
        assert len(said) == times
        assert archive.problem() == said[-1]
        assert "locked by another program" in said[-1]
        holder.close()
        assert archive.problem() == ""
    assert len(found(archive, "")) == 24


@pytest.mark.parametrize("harm", [no_database, zeros_in_it, of_another_version])
def test_a_problem_ends_when_the_file_is_gone_or_another(single: Path, harm: Callable[[Path], None]) -> None:
    path = sorted(single.iterdir())[1]
    whole = path.read_bytes()
    said: list[str] = []
    archive = Archive(single, said.append)
    for times in (1, 2):
        harm(path)
        for _ in range(2):
            found(archive, "")
            list(archive.minutes())
        assert len(said) == times
        assert archive.problem() == said[-1]
        path.unlink()
        assert archive.problem() == ""
        path.write_bytes(whole)
        assert len(found(archive, "")) == 24


def test_settings_in_a_file_that_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found later, but not searched for each session meanwhile."""
    monkeypatch.setattr(archives, "BUSY", 0.05)
    monkeypatch.setattr(archives, "_RETRY", 0.3)
    folder = historyfiles.make(tmp_path / "h", [listed(0)])
    historyfiles.make(folder, [listed(DAY)], {})
    archive = Archive(folder)
    opened: list[Path] = []
    connect = archives._connect

    def counted(path: Path) -> sqlite3.Connection:
        opened.append(path)
        return connect(path)

    monkeypatch.setattr(archives, "_connect", counted)
    holder = locked(file_of(folder, NOON * 1_000_000))
    assert [archive.settings(historyfiles.NUMBER) for _ in range(9)] == [None] * 9
    assert len(opened) == 2
    holder.close()
    time.sleep(0.3)
    assert archive.settings(historyfiles.NUMBER) == historyfiles.SETTINGS
    assert [archive.settings(12345) for _ in range(9)] == [None] * 9
    assert len(opened) == 6, "what no file has is searched once"


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_read_of_the_index_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    monkeypatch.setattr(archives, "_CHECK", 10)
    folder = historyfiles.make(tmp_path / "h", [known(at) for at in range(35)])
    archive = Archive(folder, pytest.fail)
    counts: list[int] = []
    chosen = query("192.0.2.0/24", NOW, archive.all_list_names)
    pages = archive.pages(chosen, newest_first=newest_first, seen=counts.append)
    assert sum(len(page) for page in pages) == 35
    assert counts == [0, 0, 0, 35]

    def ended(rows: int) -> None:
        raise InterruptedSearchError(rows)

    with pytest.raises(InterruptedSearchError, match="0"):
        next(archive.pages(chosen, newest_first=newest_first, seen=ended))


class InterruptedSearchError(Exception):
    """Time has run out."""


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
    assert archive.unreadable == 0
    assert found(archive, "outcome:handed_off") == [1]
    assert archive.unreadable == 2


def test_sums_that_are_no_numbers(tmp_path: Path) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0), known(-DAY)])
    path = file_of(folder, NOON * 1_000_000)
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO minutes VALUES (?, 'x', x'ff', 'y')", (NOON // 60 + 1,))
    writer.commit()
    writer.close()
    said: list[str] = []
    assert sum(minute[3] for minute in Archive(folder, said.append).minutes()) == 2
    assert len(said) == 1 and said[0].startswith(f"{path}: damaged (")


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
def test_without_rights(single: Path) -> None:
    """In a child, which becomes another user."""
    single.parent.chmod(0o755)
    single.chmod(0o755)
    for parent in single.parents:
        if parent.stat().st_uid == 0 and parent.name.startswith(("pytest-", "popen-gw")):  # the latter is xdist's
            parent.chmod(0o755)
    inside, outside = os.pipe()
    if not (child := os.fork()):
        try:
            os.seteuid(65534)
            said: list[str] = []
            count = len(list(Archive(single, said.append).rows(Query())))
            os.write(outside, f"{count} {'; '.join(said)}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(outside)
    with os.fdopen(inside) as answer:
        text = answer.read()
    assert (
        text.startswith("0 ") and text.count("permission denied; only root and the user of fastscreen may read it") == 3
    )


@pytest.mark.parametrize("text", ["", "192.0.2.1"])
def test_the_recorder_opens_a_file_while_it_is_read(single: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A reader that took it for a file to which nobody writes looks again before it says that it is damaged."""
    path = sorted(single.iterdir())[-1]
    with path.open("r+b") as file:  # as the recorder leaves it when it ends in the middle of a day
        file.seek(18)
        file.write(b"\2\2")
    archive = Archive(single, pytest.fail)
    wanted = found(archive, text)
    connect, before = archives._connect, path.read_bytes()
    connected: list[Path] = []

    def late(of: Path) -> sqlite3.Connection:
        connection = connect(of)
        if of == path and of not in connected:
            path.write_bytes(before[:4096] + os.urandom(len(before) - 4096))  # what it writes meanwhile
        elif of == path:
            path.write_bytes(before)
        connected.append(of)
        return connection

    monkeypatch.setattr(archives, "_connect", late)
    assert found(archive, text) == wanted
    assert connected.count(path) > 1
