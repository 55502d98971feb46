"""The files of a day (UTC): sessions by time and by address, the settings that they refer to, and a sum per minute.

A day has one file, or several parts: another part begins when a file becomes large or cannot be written any more.

A session's number is the time of its end in µs since 1970, times 256, plus a count that makes it unique: sessions that
end in one batch of events have the same time. So a range of numbers is a range of time, without another index.

An index by address of all sessions would be written in random places, several times the work of all else. So sessions
are indexed in chunks: once there are CHUNK new ones, their addresses are sorted and written one after the other. Who
looks for an address looks into each chunk, and through the sessions since the last one (`NUMBERS_OF_CLIENTS`).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import struct
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

VERSION = 1
COUNT_BITS = 8
"""Of a session's number, below the time of its end."""
SUFFIX = ".sqlite"
CHUNK = 1 << 16
"""Sessions that are indexed by address together."""
MAX_TIME = (1 << 63 - COUNT_BITS) - 1
"""µs since 1970: the year 3111. Whatever a clock says, a session is recorded."""
EVER = (1 << 63) - 1
"""The greatest number of a session."""

_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\.([1-9][0-9]{0,8}))?\.sqlite", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86_400_000_000  # µs
_MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes
_WRITE_FORMAT_AT = 18
_WAL = 2
_VERSION_AT = 60

SCHEMA = f"""
CREATE TABLE settings (number INTEGER PRIMARY KEY, description BLOB NOT NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, client BLOB NOT NULL, record BLOB NOT NULL);
CREATE TABLE chunks (number INTEGER PRIMARY KEY, through INTEGER NOT NULL);
CREATE TABLE clients (
    chunk INTEGER NOT NULL, client BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (chunk, client, id)
) WITHOUT ROWID;
CREATE TABLE minutes (
    minute INTEGER NOT NULL, outcome INTEGER NOT NULL, cached INTEGER NOT NULL, sessions INTEGER NOT NULL,
    PRIMARY KEY (minute, outcome, cached)
) WITHOUT ROWID;
CREATE TABLE made (after TEXT NOT NULL);
INSERT INTO chunks VALUES (0, -1);
PRAGMA user_version = {VERSION};
"""
# chunks: `through` is the last session of a chunk. Chunk 0 is that of sessions which ended before the last session of
# a chunk, but came after it was indexed. made: the newest day that was certain when the file was made (retention.py).

NUMBERS_OF_CLIENTS = """
SELECT clients.id FROM chunks
CROSS JOIN clients ON clients.chunk = chunks.number AND clients.client BETWEEN :low AND :high
WHERE (chunks.number = 0 OR chunks.through >= :first) AND clients.id BETWEEN :first AND :last
    AND length(clients.client) = length(:low)
UNION ALL
SELECT id FROM sessions
WHERE id > max(:first - 1, (SELECT max(through) FROM chunks)) AND id <= :last AND client BETWEEN :low AND :high
    AND length(client) = length(:low)
"""
"""The numbers from `first` to `last` of the sessions of the clients from the address `low` to `high`; in any order."""

Row = tuple[int, bytes, bytes]
"""A session's number, the client's address (4 or 16 bytes), and the packed record (ext/history_record.pyx)."""
Minute = tuple[int, int, int, int]
"""Minutes since 1970, outcome (index into HISTORY_OUTCOMES), 1 if every pass was cached, sessions that ended then: a
recorded session counts as many as it stands for (its weight)."""


class VersionError(Exception):
    """A file of another version: it is neither read nor changed."""


class Part(NamedTuple):
    """One of the files of a day. number: from 1."""

    day: date
    number: int

    def path(self, folder: Path) -> Path:
        """Where it is."""
        return folder / f"{self.day}{f'.{self.number}' if self.number > 1 else ''}{SUFFIX}"


# ---- names


def day_at(ended: int) -> date:
    """The day of a time (µs since 1970)."""
    return date.fromordinal(_EPOCH + min(max(ended, 0), MAX_TIME) // _DAY)


def begin_of(day: date) -> int:
    """µs since 1970."""
    return (day.toordinal() - _EPOCH) * _DAY


def file_of(folder: Path, ended: int) -> Path:
    """The first file for sessions that ended at this time (µs since 1970)."""
    return Part(day_at(ended), 1).path(folder)


def part_of(path: Path) -> Part | None:
    """Which file it is. None: not one of a day."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        part = Part(date.fromisoformat(found[1]), int(found[2] or 1))
    except ValueError:
        return None
    return part if part.path(path.parent) == path else None


def day_of(path: Path) -> date | None:
    """The day of a file; None: it is not one of a day."""
    part = part_of(path)
    return part.day if part is not None else None


def files(folder: Path) -> list[Path]:
    """All files of days, the oldest first. OSError."""
    found = [(part, path) for path in folder.iterdir() if (part := part_of(path)) is not None]
    return [path for _, path in sorted(found)]


# ---- a file


def check_version(path: Path) -> None:
    """Without a lock, and without a change of the file. VersionError, OSError; sqlite3.DatabaseError: no database."""
    header = _header(path)
    (version,) = struct.unpack_from(">i", header, _VERSION_AT)
    if not version:
        raise sqlite3.DatabaseError("file is not a database of the history")
    if version != VERSION:
        raise VersionError(f"version {version}; expected {VERSION}")


def is_complete(path: Path) -> bool:
    """Whether no more sessions were expected when it was closed. OSError; sqlite3.DatabaseError: no database."""
    return _header(path)[_WRITE_FORMAT_AT] != _WAL


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise sqlite3.DatabaseError("file is not a database")
    return header


def connect(path: Path, mode: str = "ro", timeout: float = 5.0) -> sqlite3.Connection:
    """Open a file that exists. mode: "ro" or "rw". VersionError, OSError, sqlite3.Error."""
    check_version(path)
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)


def create(path: Path, made_after: date | None = None) -> sqlite3.Connection:
    """Make a new file, mode 0600, for writing. FileExistsError, OSError, sqlite3.Error.

    It has its name only once it is complete, whenever this process is killed.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    remove(draft)
    try:
        draft.touch(mode=0o600, exist_ok=False)
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.executescript(f"PRAGMA journal_mode = MEMORY; BEGIN; {SCHEMA} COMMIT;")
            if made_after is not None:
                connection.execute("INSERT INTO made VALUES (?)", (made_after.isoformat(),))
        finally:
            connection.close()
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return connect_to_write(path)


def connect_to_write(path: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """Open a file for the recorder. VersionError, OSError, sqlite3.Error."""
    connection = connect(path, "rw", timeout)
    try:
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;"
            "PRAGMA cache_size = -8192;"
        )
    except BaseException:
        connection.close()
        raise
    return connection


def remove(path: Path) -> None:
    """Remove a file, and what SQLite keeps next to it. OSError."""
    for each in with_sidecars(path):
        each.unlink(missing_ok=True)


def with_sidecars(path: Path) -> list[Path]:
    """The file and those that SQLite keeps next to it."""
    return [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))]


# ---- reading


def numbers_of_clients(
    connection: sqlite3.Connection, low: bytes, high: bytes, first: int = 0, last: int = EVER
) -> Iterator[int]:
    """The numbers of the sessions of clients from one address to another (both of 4 or of 16 bytes), in any order.

    first, last: numbers of sessions; a time (µs) times 1 << COUNT_BITS is the first of that time. sqlite3.Error.
    """
    values = {"low": low, "high": high, "first": first, "last": last}
    for (number,) in connection.execute(NUMBERS_OF_CLIENTS, values):
        yield number


# ---- writing


def insert(
    connection: sqlite3.Connection,
    rows: Sequence[Row],
    minutes: Iterable[Minute],
    settings: Iterable[tuple[int, bytes]] = (),
) -> None:
    """Add sessions, by number, and what they add to the minutes' sums; the caller holds the transaction.

    sqlite3.IntegrityError: a number is there already; sqlite3.Error.
    """
    connection.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", settings)
    connection.executemany("INSERT INTO sessions VALUES (?, ?, ?)", rows)
    late = rows[: bisect(rows, indexed_through(connection), key=lambda row: row[0])]
    connection.executemany("INSERT INTO clients VALUES (0, ?, ?)", ((client, number) for number, client, _ in late))
    connection.executemany(
        "INSERT INTO minutes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions",
        minutes,
    )


def indexed_through(connection: sqlite3.Connection) -> int:
    """The last session of the last chunk; -1: there is no chunk. sqlite3.Error."""
    ((through,),) = connection.execute("SELECT max(through) FROM chunks").fetchall()
    return int(through)


def count_unindexed(connection: sqlite3.Connection) -> int:
    """How many sessions no chunk has. sqlite3.Error."""
    through = indexed_through(connection)
    ((count,),) = connection.execute("SELECT count(*) FROM sessions WHERE id > ?", (through,)).fetchall()
    return int(count)


def index(connection: sqlite3.Connection) -> None:
    """Make a chunk of the sessions since the last one; the caller holds the transaction. sqlite3.Error."""
    through = indexed_through(connection)
    ((last,),) = connection.execute("SELECT max(id) FROM sessions").fetchall()
    if last is None or last <= through:
        return
    ((number,),) = connection.execute("SELECT max(number) + 1 FROM chunks").fetchall()
    connection.execute(
        "INSERT INTO clients SELECT ?, client, id FROM sessions WHERE id > ? ORDER BY client, id", (number, through)
    )
    connection.execute("INSERT INTO chunks VALUES (?, ?)", (number, last))


def made_after(connection: sqlite3.Connection) -> date | None:
    """The newest day that was certain when the file was made. sqlite3.Error."""
    with contextlib.suppress(ValueError, TypeError):
        for (text,) in connection.execute("SELECT after FROM made"):
            return date.fromisoformat(text)
    return None
