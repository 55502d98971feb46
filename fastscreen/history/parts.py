"""The files that the recorder has open, one for each day that sessions end on: which part it is, and what becomes of a
file that cannot be opened or written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

from fastscreen.escaping import escape_text
from fastscreen.format import size
from fastscreen.history import day, folder, retention
from fastscreen.history.failures import Failure, SuspendedError, described, failure_of, is_of_file
from fastscreen.history.folder import Entry
from fastscreen.history.notes import Notes
from fastscreen.history.open_part import OpenPart

SHARE = 8  # parts that max_size has room for, so that old sessions are deleted in such steps
MAX_GROWING = 2  # files that are filled at the same time, as around midnight
LOCKED_TURNS = 5  # in a row with a file that another process holds; then another part begins


class Parts:
    """Those of one recorder. max_size: bytes of all files. clock: s since 1970; timer: s, monotonic."""

    def __init__(
        self,
        path: Path,
        max_size: int,
        notes: Notes,
        on_open: Callable[[OpenPart], object],
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        """on_open: called with a file that others have written to."""
        self.folder = path
        self._notes = notes
        self._on_open = on_open
        self._clock = clock
        self._timer = timer
        self.open: dict[date, OpenPart] = {}
        self.used: dict[date, float] = {}
        """When each was written last (s, monotonic)."""
        self.entries: list[Entry] = []
        """The files of the folder, as they were found last."""
        self.file = ""
        """The name of the file that was opened last."""
        self.is_certain = False
        """Whether no session that is still to be stored can be in a file already."""
        self._locked: dict[Path, int] = {}  # turns in a row
        self.resize(max_size)

    def resize(self, max_size: int) -> None:
        """Follow a new configuration."""
        self._max_size = max_size
        self._part_size = max_size // SHARE
        for part in self.open.values():
            part.max_size = self._part_size

    # ---- for writing

    def to_write(self, of_day: date) -> OpenPart:
        """The file for sessions of a day. SuspendedError, OSError, sqlite3.Error: none can be written now."""
        part = self.open.get(of_day)
        if part is not None and not part.is_in_place:
            self._notes.warn(f"{shown(part.path)} was removed or replaced while it was written; another is begun")
            self.close(of_day)
            self.is_certain = False
            part = None
        return part if part is not None else self._open(of_day)

    def written(self, of_day: date) -> None:
        """Sessions were stored in a day's file."""
        self.used[of_day] = self._timer()
        self._locked.clear()

    def finish_full(self) -> None:
        """Complete the files that are large enough. The next one begins with the next session."""
        for of_day, part in list(self.open.items()):
            if part.is_full:
                self.finish(of_day)

    def _open(self, of_day: date) -> OpenPart:
        """Open the last part of a day, or begin a new one."""
        self.scan()
        last = folder.last_part(self.entries, of_day)
        part = None
        if last is not None:
            try:
                part = OpenPart(last, self._part_size)
                self._on_open(part)
            except (OSError, sqlite3.DatabaseError, day.VersionError) as error:
                self.put_away(last, error, opening=True)
        if part is not None and part.is_full and self.is_certain:
            self._finish(part)
            part = None
        if part is None:
            part = self._begin(of_day)
        self.open[of_day] = part
        self.used[of_day] = self._timer()
        self.file = part.path.name
        return part

    def _begin(self, of_day: date) -> OpenPart:
        """Begin a part, once there is room for it."""
        self.scan()
        self.make_room()
        made_after = retention.made_after({entry.part.day for entry in self.entries}, self._clock())
        while True:
            path = folder.next_part(self.folder, self.entries, of_day).path(self.folder)
            try:
                return OpenPart(path, self._part_size, day.create(path, made_after))
            except FileExistsError:  # the recorder of before a restart has been quicker
                self.scan()

    # ---- what goes wrong

    def failed(self, of_day: date, error: sqlite3.DatabaseError) -> None:
        """The file of a day could not be written. Raises the error if another file would not help."""
        path = self.open[of_day].path
        self.close(of_day)
        self.is_certain = False
        self.put_away(path, error)
        part = self.open[of_day] = self._begin(of_day)
        self.used[of_day] = self._timer()
        self.file = part.path.name

    def put_away(self, path: Path, error: Exception, *, opening: bool = False) -> None:
        """See to it that a file is not used again. Raises the error, or SuspendedError, if that would not help."""
        failure = failure_of(error)
        if opening and is_of_file(error):
            failure = Failure.SKIPPED
        text = f"{shown(path)}: {described(error)}"
        match failure:
            case Failure.DAMAGED:
                try:
                    name = folder.set_aside(path).name
                except OSError as problem:
                    raise SuspendedError(f"{text}; it cannot be set aside: {described(problem)}") from None
                self._notes.warn(f"{text}; it is set aside as {name}, and recording goes on in another file")
            case Failure.SKIPPED:
                self._notes.warn(f"{text}; it stays as it is, and recording goes on in another file")
            case Failure.LOCKED:
                self._locked[path] = self._locked.get(path, 0) + 1
                if self._locked[path] < LOCKED_TURNS:
                    raise error
                del self._locked[path]
                self._notes.warn(f"{text}: another process holds it; recording goes on in another file")
            case Failure.SUSPENDED:
                raise error
        self.scan()

    # ---- the end of a file

    def finish(self, of_day: date) -> None:
        """No more sessions are written to a file."""
        part = self.open.pop(of_day, None)
        self.used.pop(of_day, None)
        if part is not None:
            self._finish(part)

    def _finish(self, part: OpenPart) -> None:
        try:
            part.finish()
        except (OSError, sqlite3.DatabaseError) as error:  # a later clean-up completes it
            if failure_of(error) is Failure.DAMAGED:
                self.put_away(part.path, error)

    def complete(self, path: Path) -> None:
        """Complete a file that a process has left without an end."""
        try:
            part = OpenPart(path, self._part_size)
        except (OSError, sqlite3.DatabaseError, day.VersionError) as error:
            if failure_of(error) is Failure.DAMAGED:
                self.put_away(path, error)
        else:
            self._finish(part)

    def close(self, of_day: date) -> None:
        """Close a file as it is."""
        part = self.open.pop(of_day, None)
        self.used.pop(of_day, None)
        if part is not None:
            part.close()

    def close_all(self) -> None:
        """Close all files as they are."""
        for of_day in list(self.open):
            self.close(of_day)

    # ---- the folder

    def scan(self) -> None:
        """Look at the folder again. OSError."""
        try:
            self.entries = folder.entries(self.folder)
        except FileNotFoundError:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.entries = folder.entries(self.folder)

    @property
    def closed(self) -> list[Entry]:
        """The files that are not being written, the oldest first."""
        in_use = {part.path for part in self.open.values()}
        return [entry for entry in self.entries if entry.path not in in_use]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.closed) + sum(part.size for part in self.open.values())

    def check_size(self) -> None:
        """SuspendedError: the files are too large, and cannot be deleted."""
        if self.size > self._max_size + self._part_size:
            self.scan()
            self.make_room()

    def make_room(self) -> None:
        """Delete the oldest files, so that the one that is written may become as large as a part. SuspendedError."""
        # A clock that jumps opens a file for each day; all of them are not going to be filled.
        written = sum(part.size for part in self.open.values())
        room = max(self._part_size * min(max(len(self.open), 1), MAX_GROWING), written)
        old = retention.oversized(self.closed, self._max_size, room)
        self.delete(old, "the history is as large as history.max_size allows")
        if self.size > self._max_size + self._part_size:  # a file could not be deleted
            raise SuspendedError(f"the files in {shown(self.folder)} are larger than history.max_size allows")

    def free(self, wanted: int, why: str) -> None:
        """Delete the oldest files until they have freed so many bytes; one stays. OSError."""
        self.scan()
        closed = self.closed if self.open else self.closed[:-1]
        self.delete(retention.oversized(closed, sum(entry.size for entry in closed), wanted), why)

    def delete(self, old: Iterable[Entry], why: str) -> None:
        """Delete files. OSError: the folder cannot be read."""
        for entry in old:
            try:
                day.remove(entry.path)
            except OSError as error:
                self._notes.warn_once(f"{shown(entry.path)} cannot be deleted: {described(error)}")
            else:
                self._notes.info(f"{entry.path.name} ({size(entry.size)}) is deleted: {why}")
        self.scan()


def shown(path: Path) -> str:
    """A path in a message."""
    return escape_text(str(path), 300)
