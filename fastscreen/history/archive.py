"""The folder of the days' files, for reading: sessions by time or by client, the minutes' sums, settings by number.

Nothing here changes a file. The recorder may write at the same time. Sessions are read in pages, each through its own
connection, so that a slow reader does not keep the recorder from truncating its write-ahead log. A file that cannot be
read is reported once, until it can be read again, and omitted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from fastscreen.core import HISTORY_FIELDS, history_read
from fastscreen.escaping import one_line, printable
from fastscreen.filter_terms import Network
from fastscreen.history.day import (
    COUNT_BITS,
    Minute,
    Row,
    VersionError,
    begin_of,
    check_version,
    day_of,
    files,
    numbers_of_clients,
    with_sidecars,
)
from fastscreen.history.filter import END, Query
from fastscreen.history.session import Session, named
from fastscreen.history.settings import HistorySettings, decode

PAGE = 4096  # sessions
BUSY = 5.0  # s to wait for the recorder
INDEXED = {4: 16, 6: 40}
"""Bits of a network from which the index by client is used, instead of reading all sessions of the time."""
_PARAMETERS = 500  # numbers in one statement
_CHECK = 4096  # numbers from the index between two calls of `seen`
_RETRY = 60.0  # s after which settings are searched again that may be in a file that could not be read
_SETTINGS = HISTORY_FIELDS.index("settings")
_JOURNAL_AT = 18  # in the header of an SQLite file
_WITH_LOG = 2  # a write-ahead log


class ArchiveError(Exception):
    """The folder cannot be read. One line for people."""


class Day(NamedTuple):
    """A day (UTC) and its files, in the order of their parts."""

    day: date
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """Its first file."""
        return self.paths[0]

    @property
    def since(self) -> int:
        """Its beginning, in µs since 1970."""
        return begin_of(self.day)

    @property
    def until(self) -> int:
        """Its end, in µs since 1970."""
        return begin_of(self.day + timedelta(days=1))

    @property
    def size(self) -> int:
        """Bytes of its files, with what SQLite keeps next to them."""
        found = 0
        for path in self.paths:
            for each in with_sidecars(path):
                with contextlib.suppress(OSError):
                    found += each.stat().st_size
        return found


class _Problem(NamedTuple):
    """Why a file cannot be read. file: its inode, time and size, which must change first; None: this may pass."""

    line: str
    file: tuple[int, int, int] | None


class Archive:
    """warn: called with one line for each file that cannot be read."""

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda line: None) -> None:
        self.folder = folder
        self._warn = warn
        self._problems: dict[Path, _Problem] = {}
        self._failures = 0  # to read a file, also those that were not reported again
        self._settings: dict[int, HistorySettings | None] = {}
        self._missing: dict[int, float] = {}  # settings that were not found, and when (monotonic) to search them again
        self.unreadable = 0
        """Records of another version, or damaged ones, that a filter could not judge."""

    # ---- what is there

    def days(self) -> list[Day]:
        """The days, the oldest first. Raises ArchiveError."""
        self._forget_old_problems()
        found: dict[date, list[Path]] = {}
        try:
            for path in files(self.folder):
                if (day := day_of(path)) is not None:
                    found.setdefault(day, []).append(path)
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
        return [Day(day, tuple(paths)) for day, paths in sorted(found.items())]

    def settings(self, number: int) -> HistorySettings | None:
        """The settings with this number. None: no file that can be read has them."""
        if number in self._settings:
            return self._settings[number]
        if time.monotonic() < self._missing.get(number, 0.0):
            return None
        failures = self._failures
        for path in self._newest_files():
            with self._opened(path) as connection:
                self._keep_settings(path, connection)
            if number in self._settings:
                return self._settings[number]
        if self._failures == failures:
            self._settings[number] = None
        else:
            self._missing[number] = time.monotonic() + _RETRY
        return None

    def list_names(self, number: int) -> Sequence[str]:
        """The names of the lists in the settings with this number, by index."""
        found = self.settings(number)
        return found.lists if found is not None else ()

    def all_list_names(self) -> list[str]:
        """The names of all lists in all settings, the newest day's first."""
        names: dict[str, None] = {}
        for path in self._newest_files():
            with self._opened(path) as connection:
                for number in self._keep_settings(path, connection):
                    names |= dict.fromkeys(self.list_names(number))
        return list(names)

    def _newest_files(self) -> list[Path]:
        return [path for day in reversed(self.days()) for path in reversed(day.paths)]

    def all_settings(self) -> dict[int, HistorySettings]:
        """All settings by their numbers, those of the newest file last."""
        numbers: dict[int, None] = {}
        for path in self._newest_files():
            with self._opened(path) as connection:
                numbers |= dict.fromkeys(self._keep_settings(path, connection))
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
        """The same in lists of at most PAGE rows. seen: called with the number of rows that were looked at, and with 0
        while the index is read; what it raises ends the search."""
        chosen = query.compiled(self.list_names)
        for day in self._days_of(query.since, query.until, newest_first):
            for page in self._pages_of(day, query, newest_first, seen):
                seen(len(page))
                if chosen is None:
                    found = page
                else:
                    before = chosen.unreadable
                    found = chosen.chosen(page)
                    self.unreadable += chosen.unreadable - before
                if found:
                    yield found

    def count(self, since: int = 0, until: int = END) -> int:
        """About how many sessions there are in a period, from the minutes' sums."""
        return sum(minute[3] for minute in self.minutes(since, until))

    def minutes(self, since: int = 0, until: int = END) -> Iterator[Minute]:
        """The sums of the minutes that begin in a period, in µs since 1970: those of a session that stands for several
        count as many."""
        first, last = -(-since // 60_000_000), -(-until // 60_000_000)
        for day in self._days_of(since, until, False):
            sums: Counter[tuple[int, int, int]] = Counter()
            for path in day.paths:
                statement = "SELECT * FROM minutes WHERE minute >= ? AND minute < ?"
                with self._opened(path) as connection, self._reported(path):
                    for minute, outcome, cached, sessions in self._all(path, connection, statement, (first, last)):
                        sums[int(minute), int(outcome), int(cached)] += int(sessions)
            for (minute, outcome, cached), sessions in sorted(sums.items()):
                yield minute, outcome, cached, sessions

    # ---- files

    def _days_of(self, since: int, until: int, newest_first: bool) -> list[Day]:
        found = [day for day in self.days() if day.since < until and since < day.until]
        return found[::-1] if newest_first else found

    def _pages_of(self, day: Day, query: Query, newest_first: bool, seen: Callable[[int], None]) -> Iterator[list[Row]]:
        first = max(query.since, day.since) << COUNT_BITS
        last = (min(query.until, day.until) << COUNT_BITS) - 1
        network = query.network
        if network is not None and network.prefixlen >= INDEXED[network.version]:
            parts = [self._pages_of_client(path, network, first, last, newest_first, seen) for path in day.paths]
        else:
            parts = [self._pages_of_time(path, first, last, newest_first) for path in day.paths]
        return parts[0] if len(parts) == 1 else _merged(parts, newest_first)

    def _pages_of_time(self, path: Path, first: int, last: int, newest_first: bool) -> Iterator[list[Row]]:
        order = "DESC" if newest_first else "ASC"
        statement = f"SELECT * FROM sessions WHERE id BETWEEN ? AND ? ORDER BY id {order} LIMIT {PAGE}"
        while True:
            with self._opened(path) as connection:
                page = self._all(path, connection, statement, (first, last))
            if page:
                yield page
            if len(page) < PAGE:
                return
            if newest_first:
                last = page[-1][0] - 1
            else:
                first = page[-1][0] + 1

    def _pages_of_client(
        self, path: Path, network: Network, first: int, last: int, newest_first: bool, seen: Callable[[int], None]
    ) -> Iterator[list[Row]]:
        """By the index: first the numbers of the sessions, then the sessions, so that memory is limited."""
        ends = network.network_address.packed, network.broadcast_address.packed
        numbers = array("q")

        def find(connection: sqlite3.Connection) -> None:
            del numbers[:]
            for number in numbers_of_clients(connection, *ends, first, last):
                numbers.append(number)
                if len(numbers) % _CHECK == 0:
                    seen(0)

        with self._opened(path) as connection:
            self._ask(path, connection, find)
        wanted = sorted(numbers, reverse=newest_first)
        for at in range(0, len(wanted), _PARAMETERS):
            some = wanted[at : at + _PARAMETERS]
            statement = f"SELECT * FROM sessions WHERE id IN ({','.join('?' * len(some))})"
            with self._opened(path) as connection:
                rows = self._all(path, connection, statement, some)
            rows.sort(reverse=newest_first)
            if rows:
                yield rows

    @contextmanager
    def _opened(self, path: Path) -> Iterator[sqlite3.Connection | None]:
        """A connection to a file; None if it cannot be used."""
        connection = None
        with self._reported(path):
            connection = _connect(path)
        try:
            yield connection
        finally:
            if connection is not None:
                connection.close()

    @contextmanager
    def _reported(self, path: Path) -> Iterator[None]:
        """What is wrong with a file is reported, and the rest of it omitted."""
        try:
            yield
        except (sqlite3.Error, OSError, VersionError, TypeError, ValueError) as error:
            self._problem(path, error)

    def _all(
        self, path: Path, connection: sqlite3.Connection | None, statement: str, values: Sequence[Any]
    ) -> list[Any]:
        """All rows of a short query; none without a connection, or if the file is damaged, which is reported."""
        found: list[Any] = []

        def fetch(connection: sqlite3.Connection) -> None:
            found.extend(connection.execute(statement, values).fetchall())

        self._ask(path, connection, fetch)
        return found

    def _ask(
        self, path: Path, connection: sqlite3.Connection | None, ask: Callable[[sqlite3.Connection], None]
    ) -> None:
        """The same for any question. If the recorder has begun to write to a file that was opened as one to which
        nobody writes, errors do not mean that it is damaged: it is opened and asked once more."""
        if connection is None:
            return
        with self._reported(path):
            try:
                ask(connection)
            except sqlite3.DatabaseError:
                if not isinstance(connection, _Unused):
                    raise
                with contextlib.closing(_connect(path)) as again:
                    ask(again)
            self._solved(path)

    def _keep_settings(self, path: Path, connection: sqlite3.Connection | None) -> list[int]:
        """Read the settings of a file; return their numbers."""
        found = []
        for number, description in self._all(path, connection, "SELECT number, description FROM settings", ()):
            found.append(number)
            if self._settings.get(number) is None:
                try:
                    self._settings[number] = decode(description)
                except (msgspec.MsgspecError, TypeError):  # of another version
                    self._settings[number] = None
        return found

    def _problem(self, path: Path, error: Exception) -> None:
        if isinstance(error, FileNotFoundError):  # deleted in the meantime: too old
            return
        self._failures += 1
        if path in self._problems:
            return
        passes = False
        if isinstance(error, VersionError):
            what = f"not a file of this version of fastscreen ({error})"
        elif isinstance(error, PermissionError):
            what, passes = "permission denied; only root and the user of fastscreen may read it", True
        elif isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            what, passes = "locked by another program", True
        elif isinstance(error, sqlite3.DatabaseError | TypeError | ValueError):  # a column has something else in it
            what = f"damaged ({error})"
        else:
            what, passes = one_line(error), True
        line = printable(f"{path}: {what}; sessions of this day are missing")
        self._problems[path] = _Problem(line, None if passes else _state_of(path))
        self._warn(line)

    def _solved(self, path: Path) -> None:
        """A file was read: it is not locked any more. One that is damaged may be so in another place."""
        found = self._problems.get(path)
        if found is not None and found.file is None:
            self._problems.pop(path, None)

    def _forget_old_problems(self) -> None:
        """Of files that are gone, were replaced or changed."""
        for path, found in list(self._problems.items()):
            now = _state_of(path)
            if now == _GONE or (found.file is not None and now != found.file):
                self._problems.pop(path, None)

    def problem(self) -> str:
        """Which file cannot be read now; empty: none is known. Those that may be readable again are tried."""
        self._forget_old_problems()
        for path, found in list(self._problems.items()):
            if found.file is None:
                with self._opened(path) as connection:
                    if connection is not None:
                        connection.execute("PRAGMA busy_timeout = 0")
                        self._all(path, connection, "SELECT number FROM settings LIMIT 1", ())
        lines = [found.line for found in list(self._problems.values())]
        return lines[-1] if lines else ""


_GONE = (0, 0, 0)


def _state_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written."""
    try:
        found = path.stat()
    except OSError:
        return _GONE
    return found.st_ino, found.st_mtime_ns, found.st_size


def _merged(parts: Sequence[Iterator[list[Row]]], newest_first: bool) -> Iterator[list[Row]]:
    """The pages of several files as those of one. Files follow each other in time, so most pages stay as they are."""
    sign = -1 if newest_first else 1
    waiting: list[tuple[list[Row], Iterator[list[Row]]]] = []
    for part in parts:
        if page := next(part, None):
            waiting.append((page, part))
    while waiting:
        end = min(sign * page[-1][0] for page, _ in waiting)
        ready: list[list[Row]] = []
        left: list[tuple[list[Row], Iterator[list[Row]]]] = []
        for page, part in waiting:
            count = bisect_right(page, end, key=lambda row: sign * row[0])
            if count:
                ready.append(page[:count])
            rest = page[count:] or next(part, [])
            if rest:
                left.append((rest, part))
        waiting = left
        if len(ready) == 1:
            yield ready[0]
        else:
            yield sorted((row for page in ready for row in page), key=lambda row: sign * row[0])


class _Unused(sqlite3.Connection):
    """To a file to which nobody wrote when it was opened."""


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file for reading. If the recorder was stopped, a file has no write-ahead log; a reader would make one and
    leave it there. Such a file, to which nobody writes, is read as it is. VersionError, OSError, sqlite3.Error."""
    check_version(path)
    with path.open("rb") as file:
        has_log = file.read(_JOURNAL_AT + 1)[_JOURNAL_AT] == _WITH_LOG
    unused = has_log and not path.with_name(f"{path.name}-wal").exists()
    name = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if unused else ''}"
    kind = _Unused if unused else sqlite3.Connection
    connection = sqlite3.connect(
        name, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False, factory=kind
    )
    connection.text_factory = bytes  # a damaged record may be text that is not UTF-8: it must not cost its page
    return connection
