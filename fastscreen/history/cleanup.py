"""What the recorder does every minute: old files are deleted, files that were left are completed, and it shows which
files are not read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from fastscreen.history import day, folder, retention
from fastscreen.history.parts import Parts
from fastscreen.process.conditions import Conditions, Kind

IDLE_SECONDS = 120.0  # without a session, after which the file of another day than today is completed


class Cleanup:
    """Of one recorder's files. clock: s since 1970; timer: s, monotonic."""

    def __init__(
        self, parts: Parts, conditions: Conditions, clock: Callable[[], float], timer: Callable[[], float]
    ) -> None:
        self._parts = parts
        self._conditions = conditions
        self._clock = clock
        self._timer = timer

    def run(self, keep: float) -> None:
        """keep: s. SuspendedError, OSError, sqlite3.Error."""
        parts = self._parts
        today = day.day_at(int(self._clock() * 1e6))
        self._finish_idle(today)
        parts.scan()
        folder.remove_remains(parts.folder)
        for entry in parts.closed:
            if not entry.is_damaged and entry.part.day != today and _is_left(entry.path):
                parts.complete(entry.path)  # but not today's: it may be another recorder's
        self.delete_old(keep)
        self._show_unread()

    def delete_old(self, keep: float) -> None:
        """Only the deletion. SuspendedError, OSError."""
        parts = self._parts
        parts.scan()
        closed = {entry.path for entry in parts.closed}
        old = retention.expired(parts.entries, keep, self._clock(), _made_after)
        parts.delete([entry for entry in old if entry.path in closed], "it is older than history.keep")
        parts.make_room()

    def _finish_idle(self, today: date) -> None:
        for of_day, at in list(self._parts.used.items()):
            if of_day != today and self._timer() >= at + IDLE_SECONDS:
                self._parts.finish(of_day)

    def _show_unread(self) -> None:
        entries, texts = self._parts.entries, []
        if damaged := [entry.path for entry in entries if entry.is_damaged]:
            texts.append(f"damaged and set aside: {_some(damaged)}")
        if others := [entry.path for entry in entries if not entry.is_damaged and _is_of_other_version(entry.path)]:
            texts.append(f"of another version: {_some(others)}")
        if texts:
            self._conditions.begin(Kind.HISTORY_FILES, f"history: {'; '.join(texts)}; their sessions are not shown")
        else:
            self._conditions.end(Kind.HISTORY_FILES)


def _is_left(path: Path) -> bool:
    """Whether a process has ended before the file was complete."""
    try:
        return path.with_name(path.name + "-wal").exists() or not day.is_complete(path)
    except (OSError, sqlite3.Error):
        return False


def _made_after(path: Path) -> date | None:
    try:
        with contextlib.closing(day.connect(path)) as connection:
            return day.made_after(connection)
    except (OSError, sqlite3.Error, day.VersionError):
        return None


def _is_of_other_version(path: Path) -> bool:
    try:
        day.check_version(path)
    except day.VersionError:
        return True
    except (OSError, sqlite3.Error):
        return False
    return False


def _some(paths: Sequence[Path]) -> str:
    """The names of the last ones."""
    names = ", ".join(path.name for path in paths[-3:])
    return f"{names} and {len(paths) - 3} more" if len(paths) > 3 else names
