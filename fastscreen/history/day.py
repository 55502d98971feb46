"""The file of one day (UTC): sessions by time and by address, the settings that they refer to, and a sum per minute.

A session's number is the time of its end in µs since 1970, times 4096, plus a count that makes it unique: sessions that
end in one batch of events have the same time. So a range of numbers is a range of time, without another index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

VERSION = 1
COUNT_BITS = 12
"""Of a session's number, below the time of its end."""
SUFFIX = ".sqlite"

SCHEMA = f"""
CREATE TABLE settings (number INTEGER PRIMARY KEY, description BLOB NOT NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, client BLOB NOT NULL, record BLOB NOT NULL);
CREATE INDEX sessions_by_client ON sessions (client);
CREATE TABLE minutes (
    minute INTEGER NOT NULL, outcome INTEGER NOT NULL, cached INTEGER NOT NULL, sessions INTEGER NOT NULL,
    PRIMARY KEY (minute, outcome, cached)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

Row = tuple[int, bytes, bytes]
"""A session's number, the client's address (4 or 16 bytes), and the packed record (ext/history_record.pyx)."""
Minute = tuple[int, int, int, int]
"""Minutes since 1970, outcome (index into HISTORY_OUTCOMES), 1 if every pass was cached, sessions that ended then."""


def file_of(folder: Path, ended: int) -> Path:
    """The file for sessions that ended at this time (µs since 1970)."""
    return folder / f"{datetime.fromtimestamp(ended // 1_000_000, UTC):%Y-%m-%d}{SUFFIX}"


def day_of(path: Path) -> date | None:
    """The day of a file; None: it is not one of a day."""
    try:
        return date.fromisoformat(path.name.removesuffix(SUFFIX)) if path.name.endswith(SUFFIX) else None
    except ValueError:
        return None


def create(path: Path) -> sqlite3.Connection:
    """Make a new day, mode 0600, for writing. FileExistsError, OSError, sqlite3.Error."""
    path.touch(mode=0o600, exist_ok=False)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    return connection


def insert(
    connection: sqlite3.Connection,
    rows: Iterable[Row],
    minutes: Iterable[Minute],
    settings: Iterable[tuple[int, bytes]] = (),
) -> None:
    """Add sessions and what they add to the minutes' sums; the caller holds the transaction. sqlite3.Error."""
    connection.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", settings)
    connection.executemany("INSERT INTO sessions VALUES (?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO minutes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions",
        minutes,
    )
