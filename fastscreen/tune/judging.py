"""Judges the sessions of a history: reads the days' files in time order, and gives them to the core's judge."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import msgspec

from fastscreen.core import HistoryJudge
from fastscreen.escaping import printable
from fastscreen.history.day import COUNT_BITS, VERSION, Row, day_of, files
from fastscreen.history.settings import HistorySettings, decode
from fastscreen.tune.settings import description

PAGE = 16384  # sessions that are read together
MICROSECONDS = 1_000_000


class HistoryError(Exception):
    """The history cannot be read. One line for people."""


class Past:
    """The days of a history in a period. since, until: µs since 1970. warn: called with one line for a file that cannot
    be read, whose sessions are missing."""

    def __init__(self, folder: Path, since: int, until: int, warn: Callable[[str], None]) -> None:
        self.folder, self.since, self.until = folder, since, until
        self._warn = warn
        try:
            found = [(day, path) for path in files(folder) if (day := day_of(path)) is not None]
        except OSError as error:
            raise HistoryError(f"{printable(str(folder))}: cannot be read: {error.strerror}") from None
        self._files = [path for day, path in found if _start(day) < until and since < _start(day + timedelta(days=1))]
        self.settings: dict[int, HistorySettings] = {}
        """By their numbers, the newest last."""
        for path in self._files:
            self._read_settings(path)

    def count(self) -> int:
        """About how many sessions there are."""
        total = 0
        for path in self._files:
            first, last = self.since // 60_000_000, self.until // 60_000_000
            statement = "SELECT coalesce(sum(sessions), 0) FROM minutes WHERE minute BETWEEN ? AND ?"
            for ((found,),) in self._pages(path, statement, (first, last)):
                total += found
        return total

    def span(self) -> tuple[int, int] | None:
        """The ends of the first and the last session, in µs since 1970; None: there is none."""
        ends = []
        for path in self._files:
            for ((first, last),) in self._pages(
                path,
                "SELECT min(id), max(id) FROM sessions WHERE id >= ? AND id < ?",
                (self.since << COUNT_BITS, self.until << COUNT_BITS),
            ):
                ends += [] if first is None else [first >> COUNT_BITS, last >> COUNT_BITS]
        return (min(ends), max(ends)) if ends else None

    def pages(self) -> Iterator[list[Row]]:
        """The sessions in the order of their ends."""
        for path in self._files:
            first, last = self.since << COUNT_BITS, self.until << COUNT_BITS
            while True:
                statement = f"SELECT id, client, record FROM sessions WHERE id >= ? AND id < ? ORDER BY id LIMIT {PAGE}"
                found = [row for page in self._pages(path, statement, (first, last)) for row in page]
                if found:
                    yield found
                if len(found) < PAGE:
                    break
                first = found[-1][0] + 1

    def _read_settings(self, path: Path) -> None:
        for page in self._pages(path, "SELECT number, description FROM settings ORDER BY rowid", ()):
            for number, text in page:
                try:
                    self.settings[number] = decode(text)
                except (msgspec.MsgspecError, TypeError):  # of another version
                    continue

    def _pages(self, path: Path, statement: str, values: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
        """All rows of a statement in one page. A file that cannot be read is named once, and has none."""
        if path not in self._files:
            return
        try:
            with closing(_connect(path)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != VERSION:
                    raise sqlite3.DatabaseError(f"of version {version}, expected {VERSION}")
                found = connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._files.remove(path)
            self._warn(printable(f"{path}: {error}; sessions of this day are missing"))
            return
        yield found


def _connect(path: Path) -> sqlite3.Connection:
    with path.open("rb"):
        pass
    written = path.with_name(f"{path.name}-wal").exists()
    name = f"file:{quote(str(path))}?mode=ro{'' if written else '&immutable=1'}"
    return sqlite3.connect(name, uri=True, timeout=5.0, isolation_level=None)


def _start(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * MICROSECONDS


def judge(
    past: Past,
    settings: HistorySettings,
    hostname: str,
    advance: Callable[[int], None] = lambda count: None,
    *,
    detail: bool = False,
    collecting: bool = False,
) -> HistoryJudge:
    """Judge every session of a period by these settings. advance: called with the number of sessions that were read."""
    found = HistoryJudge(description(settings), hostname, detail=detail, collecting=collecting)
    for number, had in past.settings.items():
        found.add_settings(number, description(had))
    for page in past.pages():
        found.feed(page)
        advance(len(page))
    found.finish()
    return found
