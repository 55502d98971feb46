"""The folder of the days' files, for reading: sessions by time or by client, the minutes' sums, settings by number.

Nothing here changes a file. The recorder may write at the same time. Sessions are read in pages, each through its own
connection, so that a slow reader does not keep the recorder from truncating its write-ahead log. A file that cannot be
read is reported once and omitted.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from fastscreen.core import HISTORY_FIELDS, history_read
from fastscreen.escaping import one_line, printable
from fastscreen.filter_terms import Network
from fastscreen.history.day import COUNT_BITS, VERSION, Minute, Row, day_of
from fastscreen.history.filter import END, Query
from fastscreen.history.session import Session, named
from fastscreen.history.settings import HistorySettings, decode

PAGE = 4096  # sessions
BUSY = 5.0  # s to wait for the recorder
INDEXED = {4: 16, 6: 40}
"""Bits of a network from which the index by client is used, instead of reading all sessions of the time."""
_PARAMETERS = 500  # numbers in one statement
_SETTINGS = HISTORY_FIELDS.index("settings")


class ArchiveError(Exception):
    """The folder cannot be read. One line for people."""


class DayFile(NamedTuple):
    """A day (UTC) and its file."""

    day: date
    path: Path

    @property
    def since(self) -> int:
        """Its beginning, in µs since 1970."""
        return _microseconds(self.day)

    @property
    def until(self) -> int:
        """Its end, in µs since 1970."""
        return _microseconds(self.day + timedelta(days=1))


class Archive:
    """warn: called with one line for each file that cannot be read."""

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda line: None) -> None:
        self.folder = folder
        self._warn = warn
        self._warned: set[Path] = set()
        self._settings: dict[int, HistorySettings | None] = {}

    # ---- what is there

    def days(self) -> list[DayFile]:
        """The days' files, the oldest first. Raises ArchiveError."""
        try:
            found = [DayFile(day, path) for path in self.folder.iterdir() if (day := day_of(path)) is not None]
        except FileNotFoundError:
            raise ArchiveError(f"{printable(str(self.folder))}: missing; expected the folder of history.path") from None
        except NotADirectoryError:
            raise ArchiveError(f"{printable(str(self.folder))}: not a folder; expected that of history.path") from None
        except PermissionError:
            raise ArchiveError(
                f"{printable(str(self.folder))}: permission denied; only root and the user of fastscreen may read it"
            ) from None
        except OSError as error:
            raise ArchiveError(printable(one_line(error))) from None
        return sorted(found)

    def settings(self, number: int) -> HistorySettings | None:
        """The settings with this number. None: no file has them."""
        if number not in self._settings:
            for each in reversed(self.days()):
                with self._opened(each.path) as connection:
                    if connection is not None:
                        self._keep_settings(connection)
                if number in self._settings:
                    break
            else:
                self._settings[number] = None
        return self._settings[number]

    def list_names(self, number: int) -> Sequence[str]:
        """The names of the lists in the settings with this number, by index."""
        found = self.settings(number)
        return found.lists if found is not None else ()

    def all_list_names(self) -> list[str]:
        """The names of all lists in all settings, the newest day's first."""
        names: dict[str, None] = {}
        for each in reversed(self.days()):
            with self._opened(each.path) as connection:
                for number in self._keep_settings(connection) if connection is not None else ():
                    names |= dict.fromkeys(self.list_names(number))
        return list(names)

    def all_settings(self) -> dict[int, HistorySettings]:
        """All settings by their numbers, those of the newest day last."""
        numbers: dict[int, None] = {}
        for each in reversed(self.days()):
            with self._opened(each.path) as connection:
                numbers |= dict.fromkeys(self._keep_settings(connection) if connection is not None else ())
        found = {number: self._settings[number] for number in reversed(numbers)}
        return {number: settings for number, settings in found.items() if settings is not None}

    # ---- sessions

    def sessions(self, query: Query, *, newest_first: bool = False) -> Iterator[Session]:
        """The sessions that a filter chooses, by the time of their end. Records of another version are omitted."""
        for row in self.rows(query, newest_first=newest_first):
            found = self.session(row)
            if found is not None:
                yield found

    def session(self, row: Row) -> Session | None:
        """Decode a row. None: its record is of another version, or damaged."""
        try:
            found = history_read(row[0] >> COUNT_BITS, row[1], row[2])
        except TypeError:
            return None
        return None if found is None else named(found, self.settings(found[_SETTINGS]))

    def rows(self, query: Query, *, newest_first: bool = False) -> Iterator[Row]:
        """The same as rows of the database."""
        for page in self.pages(query, newest_first=newest_first):
            yield from page

    def pages(
        self, query: Query, *, newest_first: bool = False, seen: Callable[[int], None] = lambda rows: None
    ) -> Iterator[list[Row]]:
        """The same in lists of at most PAGE rows. seen: called with the number of rows that were looked at."""
        chosen = query.compiled(self.list_names)
        for day in self._days_of(query.since, query.until, newest_first):
            for page in self._pages_of(day, query, newest_first):
                seen(len(page))
                found = page if chosen is None else chosen.chosen(page)
                if found:
                    yield found

    def count(self, since: int = 0, until: int = END) -> int:
        """About how many sessions there are in a period, from the minutes' sums."""
        return sum(minute[3] for minute in self.minutes(since, until))

    def minutes(self, since: int = 0, until: int = END) -> Iterator[Minute]:
        """The sums of the minutes that begin in a period, in µs since 1970. One day after the other."""
        first, last = -(-since // 60_000_000), -(-until // 60_000_000)
        for day in self._days_of(since, until, False):
            with self._opened(day.path) as connection:
                statement = "SELECT * FROM minutes WHERE minute >= ? AND minute < ? ORDER BY minute, outcome, cached"
                found = self._all(day.path, connection, statement, (first, last))
            yield from found

    # ---- files

    def _days_of(self, since: int, until: int, newest_first: bool) -> list[DayFile]:
        found = [day for day in self.days() if day.since < until and since < day.until]
        return found[::-1] if newest_first else found

    def _pages_of(self, day: DayFile, query: Query, newest_first: bool) -> Iterator[list[Row]]:
        first = max(query.since, day.since) << COUNT_BITS
        last = min(query.until, day.until) << COUNT_BITS
        network = query.network
        if network is not None and network.prefixlen >= INDEXED[network.version]:
            yield from self._pages_of_client(day, network, first, last, newest_first)
            return
        order = "DESC" if newest_first else "ASC"
        statement = f"SELECT * FROM sessions WHERE id >= ? AND id < ? ORDER BY id {order} LIMIT {PAGE}"
        while True:
            with self._opened(day.path) as connection:
                page = self._all(day.path, connection, statement, (first, last))
            if page:
                yield page
            if len(page) < PAGE:
                return
            if newest_first:
                last = page[-1][0]
            else:
                first = page[-1][0] + 1

    def _pages_of_client(
        self, day: DayFile, network: Network, first: int, last: int, newest_first: bool
    ) -> Iterator[list[Row]]:
        """By the index: first the numbers of the sessions, which are in it, then their records."""
        ends = network.network_address.packed, network.broadcast_address.packed
        statement = (
            "SELECT id FROM sessions INDEXED BY sessions_by_client "
            "WHERE client BETWEEN ? AND ? AND length(client) = ? AND id >= ? AND id < ?"
        )
        with self._opened(day.path) as connection:
            found = self._all(day.path, connection, statement, (*ends, len(ends[0]), first, last))
        numbers = array("q", sorted((number for (number,) in found), reverse=newest_first))
        del found
        for at in range(0, len(numbers), _PARAMETERS):
            wanted = numbers[at : at + _PARAMETERS].tolist()
            statement = f"SELECT * FROM sessions WHERE id IN ({','.join('?' * len(wanted))})"
            with self._opened(day.path) as connection:
                rows = self._all(day.path, connection, statement, wanted)
            rows.sort(reverse=newest_first)
            if rows:
                yield rows

    @contextmanager
    def _opened(self, path: Path) -> Iterator[sqlite3.Connection | None]:
        """A connection to a day; None if it cannot be used, or is not made yet."""
        try:
            connection = _connect(path)
        except (sqlite3.Error, OSError) as error:
            self._problem(path, error)
            yield None
            return
        with closing(connection):
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    usable = False  # the recorder is making it
                elif version != VERSION:
                    raise _OtherVersionError(version)
                else:
                    usable = True
            except (sqlite3.Error, OSError, _OtherVersionError) as error:
                self._problem(path, error)
                usable = False
            yield connection if usable else None

    def _all(
        self, path: Path, connection: sqlite3.Connection | None, statement: str, values: Sequence[Any]
    ) -> list[Any]:
        """All rows of a short query; none without a connection, or if the file is damaged, which is reported."""
        if connection is None:
            return []
        try:
            return connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._problem(path, error)
            return []

    def _keep_settings(self, connection: sqlite3.Connection) -> list[int]:
        """Read the settings of a day; return their numbers."""
        found = []
        try:
            rows = connection.execute("SELECT number, description FROM settings").fetchall()
        except sqlite3.Error:
            return []
        for number, description in rows:
            found.append(number)
            if self._settings.get(number) is None:
                try:
                    self._settings[number] = decode(description)
                except (msgspec.MsgspecError, TypeError):  # of another version
                    self._settings[number] = None
        return found

    def _problem(self, path: Path, error: Exception) -> None:
        if path in self._warned or isinstance(error, FileNotFoundError):  # deleted in the meantime: too old
            return
        self._warned.add(path)
        if isinstance(error, _OtherVersionError):
            what = f"written by another version of fastscreen (format {error}, expected {VERSION})"
        elif isinstance(error, PermissionError):
            what = "permission denied; only root and the user of fastscreen may read it"
        elif isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            what = "locked by another program"
        elif isinstance(error, sqlite3.DatabaseError):
            what = f"damaged ({error})"
        else:
            what = one_line(error)
        self._warn(printable(f"{path}: {what}; sessions of this day are missing"))


class _OtherVersionError(Exception):
    """The argument is the version."""


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file for reading. A reader of a file without a write-ahead log would make one, and leave it there: such a
    file, which nobody writes, is read as it is. sqlite3.Error, OSError."""
    with path.open("rb"):
        """SQLite says nothing about why it cannot open a file."""
    written = path.with_name(f"{path.name}-wal").exists()
    name = f"file:{quote(str(path))}?mode=ro{'' if written else '&immutable=1'}"
    return sqlite3.connect(name, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False)


def _microseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
