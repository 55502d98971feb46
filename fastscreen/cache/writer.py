"""The writer thread of the cache: it alone writes, cleans up, drops records of a full file, and replaces the file.

It calls `turn` every second; during a restart, it also writes each record at once. Its messages go through a queue to
the loop's thread.

Each turn checks the file. If anything is wrong with it or with the environment, both are closed and opened again
through `lmdb_file.open_file`, which moves a damaged file aside; attempts follow each other after 1, 2, 4 and then every
5 s, and at once when the path has another file. Meanwhile passes are kept in memory, up to a limit.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.cleanup import Cleanup
from fastscreen.cache.file_check import DamagedError, LockError, ReplacedError, identity
from fastscreen.cache.pending import DELETED, PendingRecords
from fastscreen.cache.shared_file import SharedFile
from fastscreen.cache.size_limit import SizeLimit
from fastscreen.escaping import unexpected
from fastscreen.process.conditions import Conditions, Kind

TURN_SECONDS = 1.0
WRITE_THROUGH_SECONDS = 60.0  # a restart: longer than the start of a worker, and the time that the former one has
RETRY_TURNS = 5  # at most, between attempts with a file or disk that does not work; the first ones are sooner
LOCK_TURNS = 3  # until a lost lock file is made again: by then no other worker writes under the old one
START_LOCK_SECONDS = 3.0  # at the start clients wait; later only this thread does
FULL_TURNS = 600  # without a dropped record, and the cache counts as large enough again
FULL_CHUNKS = 64  # of records that are dropped for one write to a full file
MIN_PUT = 64  # records in a transaction that a full file must take


class Lines:
    """Lines for the log from the writer's thread. Only the loop's thread calls the functions that log them.

    wake(callback): has the loop's thread call back (`loop.call_soon_threadsafe`).
    """

    def __init__(
        self,
        warn: Callable[[str], object],
        log: Callable[[str], object],
        wake: Callable[[Callable[[], None]], object],
    ) -> None:
        self._warn = warn
        self._log = log
        self._wake = wake
        self._lines: deque[tuple[Callable[[str], object], str]] = deque(maxlen=1000)

    def warn(self, text: str) -> None:
        """Queue a warning."""
        self._lines.append((self._warn, text))

    def info(self, text: str) -> None:
        """Queue a line."""
        self._lines.append((self._log, text))

    def notify(self) -> None:
        """Have the loop's thread log what is queued."""
        if self._lines:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `LmdbCache.close` logs the rest
                self._wake(self.flush)

    def flush(self) -> None:
        """Log what is queued. For the loop's thread."""
        while self._lines:
            write, text = self._lines.popleft()
            write(text)


class CacheWriter:
    """The writer of one process. Parameters as for `LmdbCache`."""

    def __init__(
        self,
        shared: SharedFile,
        pending: PendingRecords,
        lines: Lines,
        *,
        clock: Callable[[], float],
        max_size: int,
        keep_free: int,
        look_over: bool,
        first: bool,
        conditions: Conditions,
        disk: Callable[[Path], os.statvfs_result],
    ) -> None:
        self._shared = shared
        self._path = shared.path
        self._pending = pending
        self._lines = lines
        self._clock = clock
        self._look_over = look_over
        self._first = first
        self._conditions = conditions
        self.size_limit = SizeLimit(shared.path, max_size, keep_free, disk)
        self._map_size = max_size
        self.cleanup = Cleanup(self, self.size_limit, clock, first)
        self._written_at = 0.0  # s, monotonic
        self._trouble: str | None = None
        self._attempts = 0  # that failed, in a row
        self._retry_in = 0  # turns
        self._wait_for_lock = 0  # turns
        self._seen: tuple[object, ...] = ()  # at the path, when the last attempt failed
        self._full_for = 0  # turns for which the file counts as full
        self.writes_through = False
        self._writes_through_until = 0.0  # s, monotonic
        self._due = threading.Event()  # something to write at once, or the end
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- the loop's thread

    def open(self) -> None:
        """Open the file before the thread runs. Never fails: without a usable file it is tried again later."""
        self._shared.mark[use_mark.WRITER] = 1
        self._open(START_LOCK_SECONDS)
        self._shared.mark[use_mark.WRITER] = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="cache writer", daemon=True)
        self._thread.start()

    def write_through(self) -> None:
        """Write at once what is pending, and for a minute whatever `wake` announces."""
        self._writes_through_until = time.monotonic() + WRITE_THROUGH_SECONDS
        self.writes_through = True
        self._due.set()

    def wake(self) -> None:
        """Have the thread write what is pending."""
        self._due.set()

    def close(self) -> None:
        """End the thread, write what is pending and close the file."""
        self._stop.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        else:
            self._last_turn()
        self._close()

    # ---- the thread

    def _run(self) -> None:
        turn_at = time.monotonic() + TURN_SECONDS
        while True:
            self._due.wait(max(turn_at - time.monotonic(), 0.0))
            self._due.clear()
            if self._stop.is_set():
                break
            is_turn = time.monotonic() >= turn_at
            self._shared.mark[use_mark.WRITER] = 1
            try:
                if is_turn:
                    self.turn()
                else:
                    self._write_early()
            except Exception as error:
                self._give_up(unexpected(error))
            self._shared.mark[use_mark.WRITER] = 0
            self._lines.notify()
            if is_turn:
                turn_at = time.monotonic() + TURN_SECONDS
                if turn_at > self._writes_through_until:
                    self.writes_through = False
        self._last_turn()

    def _write_early(self) -> None:
        """Between two turns. What cannot be written is left to the next turn, which finds out why."""
        if self._shared.environment is not None and not self._retry_in:
            with contextlib.suppress(lmdb.Error):
                self._write()

    def _last_turn(self) -> None:
        """Write what is pending; a file that became unsound since the last turn is replaced first."""
        self._shared.mark[use_mark.WRITER] = 1
        try:
            self._retry_in = self._wait_for_lock = 0
            if self._shared.file is not None or self._pending.unwritten:
                self._check(START_LOCK_SECONDS)
            if self._shared.environment is not None:
                self._write()
        except lmdb.Error as error:
            self._fail(lmdb_file.reason(error))
        self._shared.mark[use_mark.WRITER] = 0

    def turn(self) -> None:
        """Do what is due: check the file, open it again, write, make room, clean up."""
        self._check()
        if self._shared.environment is None:
            return
        if self._retry_in:  # the disk takes nothing
            self._retry_in -= 1
            return
        try:
            self._write()
            self._count_full_turns()
            self.cleanup.make_room()
            if self.cleanup.is_due():
                self.cleanup.run(lambda text: self._lines.info(f"cache lmdb:{self._path} {text}"))
        except lmdb.MapFullError:
            self._fail(f"holds {self._map_size} bytes and may not grow: nothing new is stored; raise cache.max_size")
        except lmdb.Error as error:
            if lmdb_file.is_damage(error):
                self._shared.note(error)
            elif lmdb_file.is_disk(error):
                self._fail(lmdb_file.reason(error))  # what is there can still be read
            else:
                self._give_up(lmdb_file.reason(error))
        else:
            self._recovered()

    # ---- the file

    def _check(self, lock_seconds: float = lmdb_file.LOCK_SECONDS) -> None:
        """Check the file; close it when it, its lock or the environment is not sound, and open what is to be used."""
        shared = self._shared
        file = shared.file
        if file is not None:
            failure, shared.failure = shared.failure, None
            try:
                file.check()
            except ReplacedError:
                self._close(forget=True)
            except LockError as error:
                self._wait_for_lock = LOCK_TURNS
                self._close()
                self._fail(f"{error}; it is opened again")
            except DamagedError as error:
                shared.damage = (file.inode, str(error))
            except PermissionError:
                pass  # the folder cannot be searched; the open file stays in use
            except OSError as error:
                failure = failure or error.strerror
            if shared.damage is not None:
                self._close()
            elif failure is not None:
                self._give_up(failure)
        if shared.file is not None:
            self._fit()
        elif self._wait_for_lock:
            self._wait_for_lock -= 1
        elif self._retry_in and identity(self._path) == self._seen:
            self._retry_in -= 1
        else:
            self._open(lock_seconds)

    def _fit(self) -> None:
        """Make the map as large as the file may become now, or follow another process that made the file larger."""
        assert self._shared.file is not None
        self._look_at_disk(self._shared.file.size)
        if self._shared.was_resized or self._map_size != self.size_limit.limit:
            try:
                self._resize()
            except lmdb.Error as error:
                self._give_up(lmdb_file.reason(error))

    def _look_at_disk(self, size: int) -> None:
        """size: bytes of the file; 0 if it does not exist."""
        before = self.size_limit.is_short
        self.size_limit.update(size)
        if before == self.size_limit.is_short:
            return
        if self.size_limit.is_short:
            text = (
                f"less than {self.size_limit.keep_free} % of the file system of {self._path} is free: the cache does "
                "not grow, and drops the clients whose pass expires first"
            )
            if self._conditions.begin(Kind.DISK, text) and self._first:
                self._lines.warn(text)
        elif self._conditions.end(Kind.DISK) and self._first:
            self._lines.info(f"cache lmdb:{self._path}: the file system has enough free space again")

    def _open(self, lock_seconds: float) -> None:
        """Open the file, or go on without one."""
        shared = self._shared
        damaged, shared.damage = shared.damage, None
        self._look_at_disk(self._size_at_path())
        try:
            file = lmdb_file.open_file(
                self._path,
                self.size_limit.limit,
                self._clock,
                self._lines.warn,
                damaged=damaged,
                look_over=self._look_over,
                lock_seconds=lock_seconds,
                opening=lambda inode: use_mark.name_file(shared.mark, inode),
            )
        except (lmdb_file.UnusableError, OSError) as error:
            meanwhile = "passes are kept in memory" if shared.was_open else "every client is new"
            self._fail(f"cannot be opened: {error}; {meanwhile}; retried automatically")
            return
        self._look_over = True
        self._map_size = self.size_limit.limit
        shared.was_resized = False
        self._retry_in = 0
        shared.use(file)

    def _size_at_path(self) -> int:
        try:
            return self._path.lstat().st_size
        except OSError:
            return 0

    def _close(self, *, forget: bool = False) -> None:
        """forget: somebody took the file away, and what was in it is not wanted any more."""
        self._shared.close()
        if forget:
            self._pending.forget_written()
        else:
            self._pending.write_again()

    def _resize(self) -> None:
        """Set the map's size. No transaction is open meanwhile. lmdb.Error: the environment can do nothing more."""
        shared = self._shared
        assert shared.file is not None
        try:
            shared.file.check()  # from damaged meta pages LMDB would make a map that does not fit
        except (DamagedError, LockError, ReplacedError, OSError) as error:
            raise lmdb.Error(str(error)) from error
        with shared.reading:
            shared.environment.set_mapsize(self.size_limit.limit)
            self._map_size = self.size_limit.limit
            shared.was_resized = False

    def _give_up(self, text: str) -> None:
        """Log what is wrong, and close a file that cannot go on; it is opened again after a pause."""
        self._close()
        self._fail(text)

    def _fail(self, text: str) -> None:
        """Log what is wrong, once, and wait before the next attempt."""
        self._retry_in = min(1 << self._attempts, RETRY_TURNS)
        self._attempts = min(self._attempts + 1, 10)
        self._seen = identity(self._path)
        self._conditions.begin(Kind.CACHE, f"cache lmdb:{self._path}: {text}")
        if text != self._trouble:
            self._trouble = text
            if self._first:
                self._lines.warn(f"cache lmdb:{self._path}: {text}")

    def _recovered(self) -> None:
        self._attempts = 0
        if self._trouble is not None:
            self._trouble = None
            self._full_for = 0
            self._conditions.end(Kind.CACHE)
            if self._first:
                self._lines.info(f"cache lmdb:{self._path}: works again")

    # ---- writing

    def _write(self) -> None:
        self._written_at = time.monotonic()
        records = self._pending.take()
        if not records:
            return
        try:
            self._put(records)
        except BaseException:
            self._pending.put_back(records)
            raise

    def _put(self, records: dict[bytes, bytes]) -> None:
        """Write the records in one transaction, or in several if room has to be made. MapFullError: still full."""
        items = list(records.items())
        size = len(items)
        chunks = FULL_CHUNKS
        while items:
            try:
                self._put_some(items[:size])
                del items[:size]
            except lmdb.MapFullError:
                if chunks == FULL_CHUNKS:
                    self._shared.environment.reader_check()  # a dead process would keep pages from being used again
                if size > MIN_PUT:
                    size = max(MIN_PUT, size // 4)
                if chunks == 0 or not self.cleanup.drop_chunk(share=4):
                    raise
                chunks -= 1

    def _put_some(self, items: list[tuple[bytes, bytes]]) -> None:
        deleted = [key for key, value in items if value is DELETED]
        kept = [item for item in items if item[1] is not DELETED] if deleted else items
        with self.begin_write() as transaction, transaction.cursor() as cursor:
            cursor.putmulti(kept)
            for key in deleted:
                transaction.delete(key)

    # ---- for the cleanup

    @property
    def environment(self) -> Any:
        """The LMDB environment."""
        return self._shared.environment

    def begin_write(self) -> Any:
        """A write transaction. lmdb.Error."""
        try:
            return self._shared.environment.begin(write=True)
        except lmdb.MapResizedError:
            self._resize()
            return self._shared.environment.begin(write=True)

    def write_when_due(self) -> None:
        """Write what is pending if a turn's time has passed: a cleanup may take minutes."""
        if time.monotonic() >= self._written_at + TURN_SECONDS:
            self._write()

    def is_pending(self, key: bytes) -> bool:
        """Whether a newer record is to be written."""
        return key in self._pending.unwritten

    def pause(self, seconds: float) -> bool:
        """Give the interpreter back. True: the process stops."""
        return self._thread is not None and self._stop.wait(seconds)

    def note_full(self) -> None:
        """Records were dropped because the file is full: show that until none was dropped for a while."""
        self._full_for = FULL_TURNS
        text = f"cache lmdb:{self._path}: nearly full: clients whose pass expires first go; raise cache.max_size"
        if not self.size_limit.is_short and self._conditions.begin(Kind.CACHE, text) and self._first:
            self._lines.warn(text)

    def _count_full_turns(self) -> None:
        if self._full_for:
            self._full_for -= 1
            if not self._full_for and self._trouble is None:
                self._conditions.end(Kind.CACHE)
