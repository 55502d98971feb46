"""For tests of the recorder: sessions, a worker's ring without a worker, and a writer whose clock and disk are the
test's."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastscreen.config.model import History
from fastscreen.core import HISTORY_FIELDS, history_write
from fastscreen.history import day
from fastscreen.history.ring import Row
from fastscreen.history.writer import HistoryWriter
from fastscreen.process import conditions
from fastscreen.process.conditions import Conditions

NOON = 1_796_040_000.0
"""2026-11-30 12:00:00 UTC."""
HOUR = 3600.0
DAY = 86400.0


def session(ended: float, client: bytes = b"\xc0\0\2\1", port: int = 1, **more: Any) -> Row:
    """A session that ended at this time (s since 1970)."""
    microseconds = round(ended * 1e6)
    fields = dict.fromkeys(HISTORY_FIELDS, 0) | {
        "ended": microseconds, "client": client, "server": bytes(len(client)), "client_port": port, "score": None,
        "answers": (), "name": b"", "weight": 1,
    } | more  # fmt: skip
    cached = int(more.get("marks", 0) >> 2 & 1)
    return microseconds, client, history_write([fields[key] for key in HISTORY_FIELDS]), fields["outcome"], cached


class FakeRing:
    """A ring with HistoryReader's methods. Its memory outlives the readers, as shared memory does."""

    def __init__(self, capacity: int = 16384) -> None:
        self.capacity = capacity
        self.head = self.tail = self.lost = 0
        self.generation = 2
        self.description: bytes | None = b'{"of":"worker"}'
        self._rows: list[Row] = []
        self._read = (0, 0)

    def add(self, *rows: Row) -> None:
        """Sessions have ended."""
        self._rows = [*self._rows, *rows][-self.capacity :]
        self.head += len(rows)

    def read(self, limit: int) -> tuple[list[Row], int]:
        lost = max(0, self.head - self.tail - self.capacity)
        waiting = self.head - self.tail - lost
        rows = self._rows[len(self._rows) - waiting :][:limit]
        self._read = len(rows), lost
        return rows, lost

    def done(self) -> None:
        count, lost = self._read
        self.tail += count + lost
        self.lost += lost
        self._read = (0, 0)

    def settings(self) -> bytes | None:
        return self.description


class World:
    """What a writer sees of the world. total, free: bytes of the disk. lines: of the log."""

    def __init__(self, folder: Path, *rings: FakeRing, now: float = NOON, **settings: Any) -> None:
        self.folder = folder
        self.now = now
        self.elapsed = 0.0
        self.free = 1 << 42
        self.free_now: Callable[[], int] = lambda: self.free
        self.total = 1 << 42
        self.lines: list[str] = []
        self.rings = rings or (FakeRing(),)
        self.memory = memoryview(bytearray(conditions.SIZE))
        self.conditions = Conditions(self.memory, lambda: self.now)
        self.settings = History(path=str(folder), **settings)

    @property
    def ring(self) -> FakeRing:
        return self.rings[0]

    def writer(self) -> HistoryWriter:
        """A recorder that starts now."""
        self.conditions.clear()
        return HistoryWriter(
            self.settings,
            self.rings,
            self.conditions,
            info=self.lines.append,
            warn=self.lines.append,
            clock=lambda: self.now,
            timer=lambda: self.elapsed,
            disk=self._disk,
        )

    def _disk(self, folder: Path) -> os.statvfs_result:
        found = list(os.statvfs(folder))
        found[1], found[2], found[4] = 4096, self.total // 4096, self.free_now() // 4096
        return os.statvfs_result(found)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.elapsed += seconds

    def held(self) -> dict[str, str]:
        """Conditions by kind."""
        return {one.kind.label: one.text for one in self.conditions.read()}

    def names(self) -> list[str]:
        """The files of the folder, without those that SQLite keeps next to them."""
        return sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(("-wal", "-shm")))


def stored(folder: Path) -> list[day.Row]:
    """All sessions of all files that can be read."""
    found: list[day.Row] = []
    for path in day.files(folder):
        connection = day.connect(path)
        try:
            found += connection.execute("SELECT id, client, record FROM sessions ORDER BY id")
        finally:
            connection.close()
    return found


def minutes(folder: Path) -> dict[tuple[int, int, int], int]:
    """The sums of all files: minute, outcome, cached."""
    found: dict[tuple[int, int, int], int] = {}
    for path in day.files(folder):
        connection = day.connect(path)
        try:
            for minute, outcome, cached, sessions in connection.execute("SELECT * FROM minutes"):
                found[minute, outcome, cached] = found.get((minute, outcome, cached), 0) + sessions
        finally:
            connection.close()
    return found


def ports(folder: Path) -> list[int]:
    """The client's port of each session."""
    from fastscreen.core import history_read

    at = HISTORY_FIELDS.index("client_port")
    return [found[at] for number, client, record in stored(folder) if (found := history_read(1, client, record))]


def several(count: int, ended: float, first: int = 1, step: float = 0.001) -> Sequence[Row]:
    """Sessions with the ports `first` and up."""
    return [session(ended + at * step, port=first + at) for at in range(count)]
