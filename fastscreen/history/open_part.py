"""A file of the history that the recorder writes: transactions, the write-ahead log, and the index.

SQLite appends a transaction to the file's write-ahead log (`-wal`) and copies it into the file later, at a checkpoint,
after which the log is used again from its begin. A reader whose transaction lasts keeps it from that, so that the log
grows. `is_full` says when it has grown so much that another part has to begin.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastscreen.history import day
from fastscreen.history.day import COUNT_BITS, MAX_TIME, Minute, Row

LOCK_SECONDS = 0.5  # for another process to let go of the file
RESTART_SECONDS = 0.1  # for readers to let go of the write-ahead log
CHECKPOINT_PAGES = 1000  # of the write-ahead log, after which it is copied into the file
PAGE = 4096
RESTART_SIZE = 16 << 20  # bytes of it, after which readers are waited for, so that it can be used again
RESTART_TURNS = 20  # between two such attempts
MAX_WAL_SIZE = 64 << 20  # after which another part begins
MAX_CARRY = 64  # µs by which a session's number may differ from its end, if very many ended at the same time

Session = tuple[int, bytes, bytes]
"""When it ended (µs since 1970), the client's address, the packed record."""


class OpenPart:
    """One file. max_size: bytes, after which the next part begins. OSError, VersionError, sqlite3.Error."""

    def __init__(self, path: Path, max_size: int, connection: sqlite3.Connection | None = None) -> None:
        """connection: to a file that was just created."""
        self.path = path
        self.max_size = max_size
        self._connection = connection or day.connect_to_write(path, LOCK_SECONDS)
        try:
            found = path.stat()
            self._identity = found.st_dev, found.st_ino
            pages = min(CHECKPOINT_PAGES, max_size // 4 // PAGE)
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self._connection.execute(f"PRAGMA journal_size_limit = {RESTART_SIZE}")
            with self._transaction():  # can it be written?
                self._unindexed = day.count_unindexed(self._connection)
                self._settings = {number for (number,) in self._connection.execute("SELECT number FROM settings")}
        except BaseException:
            self._connection.close()
            raise
        self._wait = 0  # turns

    @property
    def wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(map(_size, day.with_sidecars(self.path)))

    @property
    def is_full(self) -> bool:
        """Whether another part has to begin."""
        return self.size >= self.max_size or _size(self.wal) >= MAX_WAL_SIZE

    @property
    def is_in_place(self) -> bool:
        """Whether its name still leads to it. OSError: the folder cannot be searched."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity and self.wal.exists()

    # ---- writing

    def store(
        self, sessions: Sequence[Session], minutes: Iterable[Minute], settings: Iterable[tuple[int, bytes]]
    ) -> None:
        """Store sessions, in the order of their end, in one transaction. sqlite3.Error: none is stored, or all are."""
        fresh = [(number, text) for number, text in settings if number not in self._settings]
        rows = self._numbered(sessions)
        minutes = list(minutes)
        try:
            with self._transaction():
                day.insert(self._connection, rows, minutes, fresh)
                self._index_if_due(len(rows))
        except sqlite3.IntegrityError:  # others ended in the same µs
            with self._transaction():
                day.insert(self._connection, self._renumbered(rows), minutes, fresh)
                self._index_if_due(len(rows))
        self._settings.update(number for number, _ in fresh)
        self._unindexed += len(rows)
        if self._unindexed >= day.CHUNK:
            self._unindexed = 0
        self._restart_wal_if_due()

    def has(self, session: Session) -> bool:
        """Whether it is stored already. A record has the client's port and the session's length to the µs."""
        ended = min(session[0], MAX_TIME)
        first, last = ended << COUNT_BITS, ended + MAX_CARRY << COUNT_BITS
        found = self._connection.execute(
            "SELECT 1 FROM sessions WHERE id BETWEEN ? AND ? AND client = ? AND record = ?",
            (first, min(last, day.EVER), *session[1:]),
        )
        return found.fetchone() is not None

    def known_settings(self) -> list[tuple[int, bytes]]:
        """Descriptions of settings, by number. sqlite3.Error."""
        return self._connection.execute("SELECT number, description FROM settings").fetchall()

    def _numbered(self, sessions: Sequence[Session]) -> list[Row]:
        rows = []
        last = -1
        for ended, client, record in sessions:
            number = min(max(ended, 0), MAX_TIME) << COUNT_BITS
            if number <= last:
                number = last + 1
            last = number
            rows.append((number, client, record))
        return rows

    def _renumbered(self, rows: Sequence[Row]) -> list[Row]:
        """With numbers that are not in the file."""
        found: list[Row] = []
        for number, client, record in rows:
            number = max(number, found[-1][0] + 1 if found else 0)
            while self._connection.execute("SELECT 1 FROM sessions WHERE id = ?", (number,)).fetchone() is not None:
                number += 1
            found.append((number, client, record))
        return found

    def _index_if_due(self, added: int) -> None:
        if self._unindexed + added >= day.CHUNK:
            day.index(self._connection)

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return _Transaction(self._connection)

    # ---- the write-ahead log

    def _restart_wal_if_due(self) -> None:
        if self._wait:
            self._wait -= 1
        if self._wait or _size(self.wal) < RESTART_SIZE:
            return
        self._wait = RESTART_TURNS
        self._connection.execute(f"PRAGMA busy_timeout = {int(1000 * RESTART_SECONDS)}")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(1000 * LOCK_SECONDS)}")

    # ---- the end

    def finish(self) -> None:
        """Index all sessions, and make the file one that readers need no other file for; then close it. While others
        have the file open, it stays as it is, and a later `finish` completes it. sqlite3.Error.
        """
        try:
            with self._transaction():
                day.index(self._connection)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with contextlib.suppress(sqlite3.OperationalError):  # locked
                self._connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        finally:
            self.close()

    def close(self) -> None:
        """Close it as it is. Never raises."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


class _Transaction(contextlib.AbstractContextManager[None]):
    """BEGIN IMMEDIATE, and COMMIT or ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                self._rollback()
                raise
        self._rollback()

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it may have ended already, as when the disk is full
            self._connection.execute("ROLLBACK")


def _size(path: Path) -> int:
    """Bytes that it takes on the disk; 0: it does not exist."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0
