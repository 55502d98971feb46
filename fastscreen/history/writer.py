"""Stores what the workers' rings have: a turn is one transaction per day, and then the rings' tails move on.

A recorder that is killed between the two finds sessions in the rings that are stored already, and so does one whose
transaction ended with an error: then each session is looked up before it is stored (`Parts.is_certain`).

Nothing here waits for anything but the disk. While the disk cannot be written, sessions stay in the rings, and the
oldest are overwritten and counted once a ring is full.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from fastscreen.config.model import History
from fastscreen.core import HISTORY_FIELDS, history_read
from fastscreen.format import plural, size
from fastscreen.history import day
from fastscreen.history.cleanup import Cleanup
from fastscreen.history.failures import Failure, SuspendedError, described, failure_of
from fastscreen.history.known_settings import KnownSettings
from fastscreen.history.mask import Mask
from fastscreen.history.notes import Notes
from fastscreen.history.open_part import OpenPart
from fastscreen.history.parts import LOCKED_TURNS, Parts, shown
from fastscreen.history.ring import Ring, Row
from fastscreen.history.state import HistoryStats
from fastscreen.process.conditions import Conditions, Kind

MAX_ROWS = 65536  # of all rings together in one turn
MAX_FILES = 3  # that turn out to be damaged in one turn
RETRY_SECONDS = 5.0  # at most, between attempts with a disk that cannot be written; the first ones are sooner
WARN_SECONDS = 60.0  # between two warnings about lost sessions
BUSY = 1 / 8  # of a ring, in one turn: the next one is due soon
MIN_FREE = 256 << 20  # bytes that are left to others, above all to a mail queue, but not more than MAX_FREE_SHARE
MIN_FREE_SHARE = 1 / 20  # of the file system, if that is more
MAX_FREE_SHARE = 1 / 4
_WEIGHT = HISTORY_FIELDS.index("weight")


def left_free(total: int) -> int:
    """How much of a file system of this size is left to others (bytes)."""
    return min(max(MIN_FREE, int(total * MIN_FREE_SHARE)), int(total * MAX_FREE_SHARE))


class HistoryWriter:
    """One recorder's. clock: s since 1970; timer: s, monotonic. disk: as os.statvfs. learn: gets the sessions, too."""

    def __init__(
        self,
        config: History,
        rings: Sequence[Ring],
        conditions: Conditions,
        *,
        info: Callable[[str], object],
        warn: Callable[[str], object],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        disk: Callable[[Path], os.statvfs_result] = os.statvfs,
        learn: Callable[[Sequence[Row]], object] | None = None,
    ) -> None:
        self._rings = rings
        self._conditions = conditions
        self._clock = clock
        self._timer = timer
        self._disk = disk
        self._learn = learn
        self._notes = Notes(info, warn, clock)
        self._settings = KnownSettings(rings, timer)
        self._parts = Parts(
            Path(config.path),
            config.max_size,
            self._notes,
            lambda part: self._settings.add(part.known_settings()),
            clock,
            timer,
        )
        self._cleanup = Cleanup(self._parts, conditions, clock, timer)
        self._limit = max(1024, MAX_ROWS // len(rings))
        self._since = clock()
        self._suspended = ""
        self._suspended_lost = 0
        self._attempts = 0
        self._retry_at = 0.0
        self._lost = self.lost
        self._warn_at = 0.0
        self.configure(config)

    def configure(self, config: History) -> None:
        """Follow a new configuration."""
        self._keep = config.keep
        self._mask = Mask(config.mask)
        self._parts.resize(config.max_size)

    # ---- a turn

    def turn(self) -> float:
        """Store what the rings have. Return how full the fullest ring was, from 0 to 1, and at least BUSY if it may
        have more than one turn stores. Never raises."""
        if self._suspended and self._timer() < self._retry_at:
            return 0.0
        try:
            return self._turn()
        except Exception as error:
            self._fail(error)
            return 0.0

    def _turn(self) -> float:
        self._settings.update()
        read = [ring.read(self._limit)[0] if ring.head != ring.tail else [] for ring in self._rings]
        self._settings.update()  # again: a session may have ended under newer ones
        rows = sorted((row for rows in read for row in rows), key=itemgetter(0))
        if rows or self._suspended:
            self._parts.check_size()
            self._check_disk()
        for of_day, of_one in _by_day(rows):
            self._store(of_day, of_one)
        if self._suspended and not rows:
            self._parts.to_write(day.day_at(int(self._clock() * 1e6)))
        for ring, found in zip(self._rings, read, strict=True):
            if found:
                ring.done()
        if self._learn is not None and rows:
            self._learn(rows)
        self._parts.is_certain = True
        self._recovered()
        self._tell_lost()
        self._parts.finish_full()
        most = self._limit / BUSY
        return max(
            (len(found) / min(ring.capacity, most) for ring, found in zip(self._rings, read, strict=True)), default=0.0
        )

    def _store(self, of_day: date, rows: Sequence[Row]) -> None:
        """Store the sessions of a day in a file that can be written."""
        for _ in range(MAX_FILES):
            part = self._parts.to_write(of_day)
            try:
                self._store_in(part, rows)
            except sqlite3.DatabaseError as error:
                self._parts.failed(of_day, error)
            else:
                self._parts.written(of_day)
                return
        raise SuspendedError(f"every file in {shown(self._parts.folder)} is damaged as soon as it is written")

    def _store_in(self, part: OpenPart, rows: Sequence[Row]) -> None:
        sessions = []
        minutes: Counter[tuple[int, int, int]] = Counter()
        mask, is_certain = self._mask, self._parts.is_certain
        for ended, client, record, outcome, cached in rows:
            weight = _weight(ended, client, record) if cached else 1
            session = (
                (ended, mask.client(client), mask.record(client, record)) if mask.is_on else (ended, client, record)
            )
            if is_certain or not part.has(session):
                sessions.append(session)
                minutes[ended // 60_000_000, outcome, cached] += weight
        if sessions:
            part.store(sessions, ((*key, count) for key, count in minutes.items()), self._settings.all())

    def _check_disk(self) -> None:
        """Leave some room to others, above all to the mail queue: delete the oldest files. SuspendedError: it was not
        enough."""
        try:
            found = self._disk(self._parts.folder)
        except FileNotFoundError:
            return
        total = found.f_blocks * found.f_frsize
        wanted = left_free(total)
        more = wanted // 4 if self._suspended else 0  # so that it does not flap
        missing = wanted + more - found.f_bavail * found.f_frsize
        if missing <= 0:
            return
        text = f"less than {size(wanted)} of the file system of {shown(self._parts.folder)} is free"
        self._parts.free(missing, text)
        found = self._disk(self._parts.folder)
        if found.f_bavail * found.f_frsize < wanted + more:
            raise SuspendedError(text)

    def clean_up(self) -> None:
        """What is due every minute. Never raises."""
        try:
            # Also without a session: a day that has a file was recorded.
            self._parts.to_write(day.day_at(int(self._clock() * 1e6)))
        except Exception as error:
            if not self._suspended:
                self._fail(error)
                return
        try:
            if self._suspended:
                self._cleanup.delete_old(self._keep)
            else:
                self._cleanup.run(self._keep)
        except Exception as error:  # recording can go on
            if not self._suspended:
                self._notes.warn_once(described(error))

    # ---- what goes wrong

    def _fail(self, error: Exception) -> None:
        """Nothing can be stored now: say so once, and try again soon."""
        self._parts.close_all()
        self._parts.is_certain = False
        text = described(error)
        self._retry_at = self._timer() + min(2.0 ** min(self._attempts, 10), RETRY_SECONDS)
        self._attempts += 1
        if failure_of(error) is Failure.LOCKED and self._attempts <= LOCKED_TURNS:
            return  # the next attempt may succeed; the last one uses another file
        if not self._suspended:
            self._suspended_lost = self.lost
            self._since = self._clock()
            self._notes.warn(f"{text}; recording is suspended, retried automatically")
        self._notes.note(text)
        self._suspended = text
        self._conditions.begin(Kind.HISTORY, f"history: {text}; recording is suspended")

    def _recovered(self) -> None:
        self._attempts = 0
        if self._suspended:
            self._suspended = ""
            self._since = self._clock()
            self._conditions.end(Kind.HISTORY)
            lost, self._lost = self.lost - self._suspended_lost, self.lost
            self._notes.info(f"sessions are recorded again; {plural(lost, 'session')} lost meanwhile")

    def _tell_lost(self) -> None:
        if self.lost > self._lost and self._timer() >= self._warn_at:
            self._warn_at = self._timer() + WARN_SECONDS
            lost, self._lost = self.lost - self._lost, self.lost
            self._notes.warn(f"{plural(lost, 'session')} lost: they were overwritten before they could be stored")

    # ---- what is known

    @property
    def lost(self) -> int:
        """Sessions that were overwritten before they were stored."""
        return sum(ring.lost for ring in self._rings)

    @property
    def is_drained(self) -> bool:
        """Whether all sessions in the rings are stored."""
        return all(ring.head == ring.tail for ring in self._rings)

    def stats(self) -> HistoryStats:
        """How it is doing."""
        entries = self._parts.entries
        days = {entry.part.day for entry in entries if not entry.is_damaged}
        overrun = sum(max(0, ring.head - ring.tail - ring.capacity) for ring in self._rings)
        return HistoryStats(
            recording=not self._suspended,
            since=self._since,
            problem=self._suspended,
            sessions=sum(ring.tail for ring in self._rings) - self.lost,
            lost=self.lost + overrun,
            waiting=sum(ring.head - ring.tail for ring in self._rings) - overrun,
            bytes=self._parts.size,
            days=len(days),
            oldest=day.begin_of(min(days)) / 1e6 if days else 0.0,
            set_aside=sum(entry.is_damaged for entry in entries),
            file=self._parts.file,
            error=self._notes.error,
            error_time=self._notes.error_time,
        )

    def close(self) -> None:
        """The process ends."""
        if waiting := self.stats().waiting:
            self._notes.warn(f"{plural(waiting, 'session')} lost at the end: {self._suspended or 'time ran out'}")
        self._parts.close_all()


def _by_day(rows: list[Row]) -> list[tuple[date, list[Row]]]:
    """rows: by their end."""
    if rows and day.day_at(rows[0][0]) == day.day_at(rows[-1][0]):
        return [(day.day_at(rows[0][0]), rows)]
    return [(of_day, list(group)) for of_day, group in groupby(rows, key=lambda row: day.day_at(row[0]))]


def _weight(ended: int, client: bytes, record: bytes) -> int:
    """How many sessions a record stands for. Bit 4 of byte 5 is set if that is more than one (history_record.pyx)."""
    if len(record) > 5 and record[5] & 0x10:
        found = history_read(ended, client, record)
        if found is not None:
            return int(found[_WEIGHT])
    return 1
