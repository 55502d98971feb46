"""Which clients passed which tests until when: the cache of reference section 7, on LMDB with msgpack values.

The loop's thread calls `record`, `keep`, `lookup`, `store`, `end_batch`, `configure` and `close`. A thread of the
cache's own calls `turn` once a second: it alone writes, cleans up, drops records of a full file, and replaces the file.
What it has to say goes through a queue to the loop's thread.

The writer checks the file once a second. Whatever is wrong with it or with the environment, both are closed and opened
again through `cachefile.open_file`, which moves aside what is damaged; attempts follow each other after 1, 2, 4 and
then every 5 s, and at once when something else is at the path. Meanwhile passes are kept in memory, up to a bound.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import lmdb
import msgpack  # type: ignore[import-untyped]
import msgspec

from fastscreen import core
from fastscreen.cache import keys, lmdb_file, use_mark
from fastscreen.cache.file_check import DamagedError, Inode, LockError, OpenFile, ReplacedError, identity
from fastscreen.cache.size_limit import MAX_SIZE, Room
from fastscreen.process.conditions import SIZE as CONDITIONS_SIZE
from fastscreen.process.conditions import Conditions, Kind

Stamps = tuple[int, ...]

TESTS = len(core.TESTS)
POSTSCREEN_TESTS = sum(not test.own for test in core.TESTS)
"""postscreen's, which come first: every record has their stamps."""
NEW = 0
DISABLED = 1

_CLEANED_KEY = b"_LAST_CACHE_CLEANUP_COMPLETED_"
_STAMP_MAX = 2**63 - 1
_ALL_DISABLED = (DISABLED,) * TESTS
_DELETED = b"\xc0"  # in place of a record that is to be deleted from the file

_TURN_SECONDS = 1.0
_RETRY_TURNS = 5  # at most, between attempts with a file or disk that does not work; the first ones are sooner
_LOCK_TURNS = 3  # until a lost lock file is made again: by then no other worker writes under the old one
_START_LOCK_SECONDS = 3.0  # at the start clients wait; later only the writer's thread does
_FULL_TURNS = 600  # without a dropped record, and the cache counts as large enough again
_ROOM_SECONDS = 0.5  # of a turn, for dropping records
_FULL_CHUNKS = 64  # of records that are dropped for one write to a full file
_MIN_PUT = 64  # records in a transaction that a full file must take
_UNWRITTEN_MAX = 100_000  # stamps kept while the disk takes none
# Cleanup: the thread gives the interpreter back after a slice, so that the loop is never held longer.
_SLICE = 128  # records
_SLICE_PAUSE = 0.002  # s
_DROP_BATCH = 4096  # records a write transaction, which makes other workers' writers wait

_Stamp = Annotated[int, msgspec.Meta(ge=0, le=_STAMP_MAX)]

_unpackb = msgpack.unpackb
_packb = msgpack.packb
# What we write ourselves is decoded and checked in one call, in less than half of msgpack's time.
_decode = msgspec.msgpack.Decoder(tuple[_Stamp, ...]).decode
_encode = msgspec.msgpack.Encoder().encode  # of the loop's thread: an encoder is no thread's but one's


def pack_stamps(stamps: Stamps) -> bytes:
    """Encode stamps (s since 1970; 0 NEW, 1 DISABLED) as a msgpack array. For the loop's thread.

    Tests of our own that are disabled are not written at the end of a record: it grows only where they are in use.
    """
    count = len(stamps)
    while count > POSTSCREEN_TESTS and stamps[count - 1] == DISABLED:
        count -= 1
    return _encode(stamps[:count])


def parse_stamps(value: bytes) -> Stamps:
    """Decode a record, a stamp for each test. Missing and malformed fields read as 1, extra ones are ignored (reference
    7.1): so an older version reads a record of a newer one, and a newer one that of an older. Never raises.
    """
    try:
        stamps = _decode(value)
    except msgspec.DecodeError:
        return _parse_odd(value)  # other things than stamps, or not msgpack
    return stamps if len(stamps) == TESTS else (*stamps[:TESTS], *_ALL_DISABLED[len(stamps) :])


def _parse_odd(value: bytes) -> Stamps:
    try:
        fields = _unpackb(value)
    except (ValueError, TypeError, msgpack.UnpackException):
        return _ALL_DISABLED
    if not isinstance(fields, list):
        return _ALL_DISABLED
    sound = [field if type(field) is int and 0 <= field <= _STAMP_MAX else DISABLED for field in fields[:TESTS]]
    return (*sound, *_ALL_DISABLED[len(sound) :])


def merged(one: Stamps, other: Stamps) -> Stamps:
    """The later stamp of each test; a real one is later than DISABLED, and that later than NEW."""
    return tuple(map(max, one, other))


class Cache:
    """The cache of one process. Construct and `open` it after fork.

    `warn` and `log` get one line of text each and are called on the loop's thread only: the writer thread queues lines
    and calls `wake(callback)`, which has to run `callback` there (`loop.call_soon_threadsafe`).
    `enabled` says of each test whether it is on (reference 2.4), which decides what cleanup keeps;
    `cleanup_interval` (0: none) and `retention` are in s; `clock` gives s since 1970; `max_size` is in bytes, and
    `keep_free` in percent of the file system (0: no such limit). `mark` is of `cachemark.SIZE` bytes; `look_over` is
    for `cachefile.open_file`. Only the `first` of several processes says that the file cannot be used (the others see
    the same), cleans up, and drops records before the file is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warn: Callable[[str], object],
        log: Callable[[str], object],
        wake: Callable[[Callable[[], None]], object],
        enabled: tuple[bool, ...] = (True,),
        cleanup_interval: int = 12 * 3600,
        retention: int = 7 * 86400,
        clock: Callable[[], float] = time.time,
        max_size: int = MAX_SIZE,
        keep_free: int = 0,
        mark: memoryview | None = None,
        look_over: bool = True,
        first: bool = True,
        conditions: Conditions | None = None,
        disk: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self.path = Path(path)
        self._warn = warn
        self._log = log
        self._wake = wake
        self._clock = clock
        self._mark = mark if mark is not None else memoryview(bytearray(use_mark.SIZE))
        self._look_over = look_over
        self._first = first
        self._conditions = conditions if conditions is not None else Conditions(memoryview(bytearray(CONDITIONS_SIZE)))
        self._room = Room(self.path, max_size, keep_free, disk)
        self._map_size = max_size
        self.configure(enabled, cleanup_interval, retention)

        self._file: OpenFile | None = None
        self._environment: Any = None  # None: the surrogate of reference 7.6
        self._gathers = False  # passes; from the first time that the file could be opened
        self._get: Callable[[bytes], bytes | None] | None = None  # of the batch's read transaction
        self._transaction: Any = None
        self._reading = threading.Lock()  # held while a batch reads, and while the file is replaced or grown

        self._gathering = threading.Lock()  # held for one dict operation
        self._gathered: dict[bytes, bytes] = {}
        # A batch that began before the commit cannot see it: what was written stays here until the next turn.
        self._written: dict[bytes, bytes] = {}
        self._written_at = 0.0  # s, monotonic

        self._lines: deque[tuple[Callable[[str], object], str]] = deque(maxlen=1000)
        self._trouble: str | None = None
        self._damage: tuple[Inode, str] | None = None  # known of the file, or found by the loop's thread
        self._failure: str | None = None  # found by the loop's thread, and not the file's content
        self._resized = False
        self._cleaning = False
        self._attempts = 0  # that failed, one after the other
        self._retry_in = 0  # turns
        self._wait_for_lock = 0  # turns
        self._seen: tuple[object, ...] = ()  # at the path, when the last attempt failed
        self._full_for = 0  # turns for which the file counts as full
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(
        self,
        enabled: tuple[bool, ...],
        cleanup_interval: int,
        retention: int,
        max_size: int | None = None,
        keep_free: int | None = None,
    ) -> None:
        """Take over the settings of a reload; None: as it was."""
        self._policy = (tuple(index for index, on in enumerate(enabled) if on), cleanup_interval, retention)
        if max_size is not None:
            self._room.max_size = max_size
        if keep_free is not None:
            self._room.keep_free = keep_free

    # ---- the loop's thread

    def open(self) -> None:
        """Open the file. Never fails: without a usable file every client is new, and it is tried again later."""
        self._mark[use_mark.WRITER] = 1
        self._open(_START_LOCK_SECONDS)
        self._mark[use_mark.WRITER] = 0
        self._tell()

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="cache writer", daemon=True)
        self._thread.start()

    def record(self, key: bytes) -> bytes | None:
        """Return a client's record, or None. The first look-up of a batch opens its read transaction."""
        value = self._gathered.get(key) or self._written.get(key)
        if value is None:
            get = self._get
            if get is None and (self._environment is None or (get := self._begin_batch()) is None):
                return None
            mark = self._mark
            mark[0] = 1
            try:
                value = get(key)
                mark[0] = 0  # cachemark.LOOP
            except lmdb.Error as error:
                self._note(error)
                return None
        elif value is _DELETED:
            return None
        return value

    def lookup(self, key: bytes) -> Stamps | None:
        """Return a client's stamps, or None."""
        value = self.record(key)
        return parse_stamps(value) if value is not None else None

    def end_batch(self) -> None:
        """End the read transaction, if a look-up opened one. The core calls this after each batch of events."""
        if self._get is not None:
            self._get = None
            transaction, self._transaction = self._transaction, None
            try:
                transaction.abort()
            finally:
                self._reading.release()  # or the next batch would wait for it for ever

    def keep(self, key: bytes, record: bytes) -> None:
        """Remember a client's record: look-ups see it at once, the file within a second."""
        if not self._gathers or (len(self._gathered) >= _UNWRITTEN_MAX and key not in self._gathered):
            return
        with self._gathering:
            self._gathered[key] = record

    def store(self, key: bytes, stamps: Stamps) -> None:
        """Remember a client's stamps."""
        self.keep(key, pack_stamps(stamps))

    def pending(self, key: bytes) -> Stamps | None:
        """Stamps that are perhaps not in the file yet."""
        value = self._gathered.get(key) or self._written.get(key)
        return None if value is None or value is _DELETED else parse_stamps(value)

    def forget(self, first: bytes, last: bytes) -> int:
        """Another process deletes what is of the addresses `first` to `last`: do so with what is not written yet.

        Return how many. They are deleted from the file with the next turn: the thread may be writing them just now.
        """
        doomed = [key for key in (*self._gathered, *self._written) if keys.within(key, first, last)]
        with self._gathering:
            self._gathered.update(dict.fromkeys(doomed, _DELETED))
        return len(doomed)

    def replace(self, records: Iterable[tuple[bytes, Stamps]]) -> int:
        """Another process has stored these: whatever is not written yet must not undo that. Return how many."""
        newer = {key: pack_stamps(stamps) for key, stamps in records if key in self._gathered or key in self._written}
        with self._gathering:
            self._gathered.update(newer)
        return len(newer)

    def close(self) -> None:
        """Write what is gathered and close the file."""
        self.end_batch()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        else:
            self._last_turn()
        self._close()
        self._tell()

    def _begin_batch(self) -> Callable[[bytes], bytes | None] | None:
        self._reading.acquire()
        try:
            if self._environment is not None:
                self._mark[0] = 1
                self._transaction = self._environment.begin()
                self._mark[0] = 0
                self._get = self._transaction.get
                return self._get
        except lmdb.MapResizedError:
            self._resized = True  # by another worker; the map may change only while the writer has no transaction
        except lmdb.Error as error:
            self._note(error)
        self._mark[0] = 0
        self._reading.release()
        return None

    def _note(self, error: lmdb.Error) -> None:
        """Leave what went wrong with a look-up to the writer's thread."""
        if lmdb_file.is_damage(error) and self._file is not None:
            self._damage = (self._file.inode, lmdb_file.reason(error))
        else:
            self._failure = lmdb_file.reason(error)

    def _tell(self) -> None:
        while self._lines:
            say, text = self._lines.popleft()
            say(text)

    # ---- the writer's thread

    def _say(self, say: Callable[[str], object], text: str) -> None:
        self._lines.append((say, text))

    def _flush_lines(self) -> None:
        if self._lines:
            with contextlib.suppress(RuntimeError):  # the loop is closed: close() tells
                self._wake(self._tell)

    def _run(self) -> None:
        while not self._stop.wait(_TURN_SECONDS):
            self._mark[use_mark.WRITER] = 1
            try:
                self.turn()
            except Exception as error:
                self._give_up(f"{type(error).__name__}: {error}")
            self._mark[use_mark.WRITER] = 0
            self._flush_lines()
        self._last_turn()

    def _last_turn(self) -> None:
        """Write what is gathered; a file that became unsound since the last turn is replaced first."""
        self._mark[use_mark.WRITER] = 1
        try:
            self._retry_in = self._wait_for_lock = 0
            if self._file is not None or self._gathered:
                self._mend(_START_LOCK_SECONDS)
            if self._environment is not None:
                self._write()
        except lmdb.Error as error:
            self._fail(lmdb_file.reason(error))
        self._mark[use_mark.WRITER] = 0

    def turn(self) -> None:
        """Do what is due: check the file, open it again, write, make room, clean up. The writer thread calls this each
        second."""
        self._mend()
        if self._environment is None:
            return
        if self._retry_in:  # the disk takes nothing
            self._retry_in -= 1
            return
        try:
            self._write()
            self._make_room()
            if self._cleanup_due():
                self._clean_up()
        except lmdb.MapFullError:
            self._fail(f"holds {self._map_size} bytes and may not grow: nothing new is stored")
        except lmdb.Error as error:
            if lmdb_file.is_damage(error):
                self._note(error)
            elif lmdb_file.is_disk(error):
                self._fail(lmdb_file.reason(error))  # what is there can still be read
            else:
                self._give_up(lmdb_file.reason(error))
        else:
            self._recovered()

    def _mend(self, lock_seconds: float = lmdb_file.LOCK_SECONDS) -> None:
        """Check the file; close it when it, its lock or the environment is not sound, and open what is to be used."""
        file = self._file
        if file is not None:
            failure, self._failure = self._failure, None
            try:
                file.check()
            except ReplacedError:
                self._close(forget=True)
            except LockError as error:
                self._wait_for_lock = _LOCK_TURNS
                self._close()
                self._fail(f"{error}; it is opened again")
            except DamagedError as error:
                self._damage = (file.inode, str(error))
            except PermissionError:
                pass  # the folder cannot be searched; what is open goes on
            except OSError as error:
                failure = failure or error.strerror
            if self._damage is not None:
                self._close()
            elif failure is not None:
                self._give_up(failure)
        if self._file is not None:
            self._fit()
        elif self._wait_for_lock:
            self._wait_for_lock -= 1
        elif self._retry_in and identity(self.path) == self._seen:
            self._retry_in -= 1
        else:
            self._open(lock_seconds)

    def _fit(self) -> None:
        """Make the map as large as the file may become now, or follow another process that made the file larger."""
        assert self._file is not None
        before = self._room.is_short
        self._room.look(self._file.size)
        if before != self._room.is_short:
            self._say_short()
        if self._resized or self._map_size != self._room.limit:
            try:
                self._resize()
            except lmdb.Error as error:
                self._give_up(lmdb_file.reason(error))

    def _say_short(self) -> None:
        text = f"less than {self._room.keep_free} % of the file system of {self.path} is free"
        if self._room.is_short:
            text += ": the cache does not grow, and drops the clients whose pass ends first"
            if self._conditions.begin(Kind.DISK, text) and self._first:
                self._say(self._warn, text)
        elif self._conditions.end(Kind.DISK) and self._first:
            self._say(self._log, f"cache lmdb:{self.path}: there is room on the file system again")

    def _open(self, lock_seconds: float) -> None:
        """Open the file, or become the surrogate."""
        damaged, self._damage = self._damage, None
        before = self._room.is_short
        self._room.look(self._size_at_path())
        if before != self._room.is_short:
            self._say_short()
        try:
            file = lmdb_file.open_file(
                self.path,
                self._room.limit,
                self._clock,
                lambda text: self._say(self._warn, text),
                damaged=damaged,
                look_over=self._look_over,
                lock_seconds=lock_seconds,
                opening=lambda inode: use_mark.name_file(self._mark, inode),
            )
        except (lmdb_file.UnusableError, OSError) as error:
            meanwhile = "passes are kept in memory" if self._gathers else "every client is new"
            self._fail(f"cannot be opened: {error}; {meanwhile}")
            return
        self._look_over = True
        self._map_size = self._room.limit
        self._resized = False
        self._retry_in = 0
        with self._reading:
            self._file, self._environment = file, file.environment
        self._gathers = True

    def _size_at_path(self) -> int:
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def _close(self, *, forget: bool = False) -> None:
        """forget: somebody took the file away, and what was in it is not wanted any more."""
        with self._reading:
            file, self._file, self._environment = self._file, None, None
            if file is not None:
                file.close()
        with self._gathering:
            if forget:
                self._written = {}
            elif len(self._written) + len(self._gathered) <= _UNWRITTEN_MAX:
                self._gathered = self._written | self._gathered  # perhaps not in the file that comes next

    def _resize(self) -> None:
        """Set the map's size. No transaction is open meanwhile. lmdb.Error: the environment can do nothing more."""
        assert self._file is not None
        try:
            self._file.check()  # from damaged meta pages LMDB would make a map that does not fit
        except (DamagedError, LockError, ReplacedError, OSError) as error:
            raise lmdb.Error(str(error)) from error
        with self._reading:
            self._environment.set_mapsize(self._room.limit)
            self._map_size = self._room.limit
            self._resized = False

    def _give_up(self, text: str) -> None:
        """Say what is wrong, and close a file that cannot go on; it is opened again after a pause."""
        self._close()
        self._fail(text)

    def _fail(self, text: str) -> None:
        """Say what is wrong, once, and wait before the next attempt."""
        self._retry_in = min(1 << self._attempts, _RETRY_TURNS)
        self._attempts = min(self._attempts + 1, 10)
        self._seen = identity(self.path)
        self._conditions.begin(Kind.CACHE, f"cache lmdb:{self.path}: {text}")
        if text != self._trouble:
            self._trouble = text
            if self._first:
                self._say(self._warn, f"cache lmdb:{self.path}: {text}")

    def _recovered(self) -> None:
        self._attempts = 0
        if self._trouble is not None:
            self._trouble = None
            self._full_for = 0
            self._conditions.end(Kind.CACHE)
            if self._first:
                self._say(self._log, f"cache lmdb:{self.path}: works again")

    def _write(self) -> None:
        self._written_at = time.monotonic()
        with self._gathering:
            gathered = self._gathered
            self._written = gathered  # before the other is emptied: a look-up asks in the opposite order
            self._gathered = {}
        if not gathered:
            return
        try:
            self._put(gathered)
        except BaseException:
            with self._gathering:
                self._gathered = gathered | self._gathered
            raise

    def _put(self, records: dict[bytes, bytes]) -> None:
        """Write them in one transaction; to a full file, after making room, in several. MapFullError: there is none."""
        items = list(records.items())
        size = len(items)
        chunks = _FULL_CHUNKS
        while items:
            try:
                self._put_some(items[:size])
                del items[:size]
            except lmdb.MapFullError:
                if chunks == _FULL_CHUNKS:
                    self._environment.reader_check()  # a dead process would keep pages from being used again
                if size > _MIN_PUT:
                    size = max(_MIN_PUT, size // 4)
                if chunks == 0 or not self._drop_chunk(share=4):
                    raise
                chunks -= 1

    def _put_some(self, items: list[tuple[bytes, bytes]]) -> None:
        deleted = [key for key, value in items if value is _DELETED]
        kept = [item for item in items if item[1] is not _DELETED] if deleted else items
        with self._begin_write() as transaction, transaction.cursor() as cursor:
            cursor.putmulti(kept)
            for key in deleted:
                transaction.delete(key)

    def _begin_write(self) -> Any:
        try:
            return self._environment.begin(write=True)
        except lmdb.MapResizedError:
            self._resize()
            return self._environment.begin(write=True)

    # ---- a full file, in the writer's thread

    def _make_room(self) -> None:
        """Drop records before the file is full, for part of this turn. One worker does it for all."""
        if self._full_for:
            self._full_for -= 1
            if not self._full_for and self._trouble is None:
                self._conditions.end(Kind.CACHE)
        deadline = time.monotonic() + _ROOM_SECONDS
        while self._first and self._room.is_wanted(self._environment) and time.monotonic() < deadline:
            if not self._drop_chunk():
                return

    def _drop_chunk(self, share: int = 8) -> int:
        """Of the next records in the file, drop the expired ones and those that expire first. Return how many."""
        enabled = self._policy[0]
        now = self._clock()
        chunk = self._room.next_chunk(self._environment, self._pause, _SLICE)
        ends = [(key, _end_of(value, enabled)) for key, value in chunk]
        victims = self._room.choose(ends, now, share=share)
        dropped = self._delete(victims)
        self._room.dropped(dropped)
        if dropped:
            self._full_for = _FULL_TURNS
            text = f"cache lmdb:{self.path}: nearly full: clients whose pass ends first go; raise cache.max_size"
            if not self._room.is_short and self._conditions.begin(Kind.CACHE, text) and self._first:
                self._say(self._warn, text)
        return dropped

    def _pause(self) -> bool:
        """Give the interpreter back between slices. True: all is to end."""
        return self._thread is not None and self._stop.wait(_SLICE_PAUSE)

    def _delete(self, keys: list[bytes]) -> int:
        """Delete them in as few transactions as a full file has pages for. Return how many were there."""
        deleted = at = 0
        size = max(1, len(keys))
        while at < len(keys):
            try:
                with self._begin_write() as transaction:
                    some = sum(transaction.delete(key) for key in keys[at : at + size] if key not in self._gathered)
                deleted += some
                at += size
                self._pause()
            except lmdb.MapFullError:
                if size == 1:
                    return deleted
                size = max(1, size // 8)
        return deleted

    # ---- cleanup (reference 7.4), in the writer's thread

    def _cleanup_due(self) -> bool:
        interval = self._policy[1]
        # A completion in the future: the clock was put back.
        return interval > 0 and not self._last_cleanup() <= self._clock() < self._last_cleanup() + interval

    def _last_cleanup(self) -> int:
        """When a cleanup was last completed, in s since 1970."""
        with self._environment.begin() as transaction:
            value = transaction.get(_CLEANED_KEY)
        return parse_stamps(value)[0] if value is not None else 0

    def _clean_up(self) -> None:
        """Drop each record of which an enabled test ended longer ago than the retention time.

        Stamps 0 and 1 are long ago. A record that changed since it was read is kept.
        """
        enabled, _, retention = self._policy
        oldest = int(self._clock()) - retention
        retained = dropped = 0
        place: bytes | None = b""
        self._cleaning = True
        try:
            while place is not None:
                victims: list[bytes] = []
                while place is not None and len(victims) < _DROP_BATCH:
                    place, kept = self._scan(place, enabled, oldest, victims)
                    retained += kept
                    if self._thread is not None and self._stop.wait(_SLICE_PAUSE):
                        return
                    if time.monotonic() >= self._written_at + _TURN_SECONDS:
                        self._write()
                deleted = self._drop(victims, enabled, oldest)
                dropped += deleted
                retained += len(victims) - deleted
            with self._begin_write() as transaction:
                transaction.put(_CLEANED_KEY, _packb([int(self._clock())]))
            self._cleaning = False
        finally:
            kind = "partial" if self._cleaning else "full"
            self._cleaning = False
            text = f"cache lmdb:{self.path} {kind} cleanup: retained={retained} dropped={dropped} entries"
            self._say(self._log, text)

    def _scan(
        self, place: bytes, enabled: tuple[int, ...], oldest: int, victims: list[bytes]
    ) -> tuple[bytes | None, int]:
        """Look at one slice from `place` on; return where the next one begins, and how many records stay."""
        kept = 0
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(place) if place else cursor.first()
            for _ in range(_SLICE):
                if not found:
                    return None, kept
                key, value = cursor.item()
                if len(key) <= lmdb_file.RECORD_KEY_MAX:
                    if _is_kept(value, enabled, oldest):
                        kept += 1
                    else:
                        victims.append(key)
                found = cursor.next()
            return (cursor.key() if found else None), kept

    def _drop(self, victims: list[bytes], enabled: tuple[int, ...], oldest: int) -> int:
        """Delete those that are still to be dropped, in one transaction; return how many."""
        while victims:
            dropped = 0
            try:
                with self._begin_write() as transaction:
                    for number, key in enumerate(victims, 1):
                        value = transaction.get(key)
                        if value is not None and not _is_kept(value, enabled, oldest) and key not in self._gathered:
                            transaction.delete(key)
                            dropped += 1
                        if number % _SLICE == 0 and self._thread is not None:
                            time.sleep(_SLICE_PAUSE)
                return dropped
            except lmdb.MapFullError:
                return self._delete(victims)
        return 0


def _end_of(value: bytes, enabled: tuple[int, ...]) -> int:
    """When a record's first pass ends, in s since 1970; a test that was never passed is the earliest."""
    stamps = parse_stamps(value)
    return min((stamps[index] for index in enabled), default=_STAMP_MAX)


def _is_kept(value: bytes, enabled: tuple[int, ...], oldest: int) -> bool:
    stamps = parse_stamps(value)
    return all(oldest <= stamps[index] for index in enabled)
