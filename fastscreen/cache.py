"""Which clients passed which tests until when: the cache of reference section 7, on LMDB with msgpack values.

The loop's thread calls `record`, `keep`, `lookup`, `store`, `end_batch`, `configure` and `close`. A thread of the
cache's own calls `turn` once a second: it alone writes, grows, cleans up, and replaces the file. What it has to say
goes through a queue to the loop's thread.
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

from fastscreen import cachefile, cachekey

Stamps = tuple[int, ...]

TESTS = 5
NEW = 0
DISABLED = 1

_CLEANED_KEY = b"_LAST_CACHE_CLEANUP_COMPLETED_"
_STAMP_MAX = 2**63 - 1
_ALL_DISABLED = (DISABLED,) * TESTS
_DELETED = b"\xc0"  # in place of a record that is to be deleted from the file

_TURN_SECONDS = 1.0
_RETRY_TURNS = 30  # between attempts with a file or disk that does not work
_UNWRITTEN_MAX = 100_000  # stamps kept while the disk takes none
# Cleanup: the thread gives the interpreter back after a slice, so that the loop is never held longer.
_SLICE = 128  # records
_SLICE_PAUSE = 0.002  # s
_DROP_BATCH = 4096  # records a write transaction, which makes other workers' writers wait
_FULL_CLEANUP_SECONDS = 3600  # a full map that was cleaned up more recently grows at once

_Stamp = Annotated[int, msgspec.Meta(ge=0, le=_STAMP_MAX)]

_unpackb = msgpack.unpackb
_packb = msgpack.packb
# What we write ourselves is decoded and checked in one call, in less than half of msgpack's time.
_decode = msgspec.msgpack.Decoder(tuple[_Stamp, _Stamp, _Stamp, _Stamp, _Stamp]).decode
_encode = msgspec.msgpack.Encoder().encode  # of the loop's thread: an encoder is no thread's but one's


def pack_stamps(stamps: Stamps) -> bytes:
    """Encode five stamps (s since 1970; 0 NEW, 1 DISABLED) as a msgpack array. For the loop's thread."""
    return _encode(stamps)


def parse_stamps(value: bytes) -> Stamps:
    """Decode a record. Missing and malformed fields read as 1, extra ones are ignored (reference 7.1). Never raises."""
    try:
        return _decode(value)
    except msgspec.DecodeError:
        # Not five stamps, or no msgpack at all.
        return _parse_odd(value)


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
    `enabled` says of each of the five tests whether it is on (reference 2.4), which decides what cleanup keeps;
    `cleanup_interval` (0: none) and `retention` are in s; `clock` gives s since 1970; `map_size` and `map_limit` are
    how many bytes the file may hold at first and at most. `mark` are two bytes: the first is 1 while the loop's
    thread reads the file, the second while the other one is at work; `look_over` is for `cachefile.open_file`. Only the
    `first` of several processes says that the file cannot be used: the others see the same.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warn: Callable[[str], object],
        log: Callable[[str], object],
        wake: Callable[[Callable[[], None]], object],
        enabled: tuple[bool, ...] = (True, False, False, False, False),
        cleanup_interval: int = 12 * 3600,
        retention: int = 7 * 86400,
        clock: Callable[[], float] = time.time,
        map_size: int = 1 << 30,
        map_limit: int = 1 << 34,
        mark: memoryview | None = None,
        look_over: bool = True,
        first: bool = True,
    ) -> None:
        self.path = Path(path)
        self._warn = warn
        self._log = log
        self._wake = wake
        self._clock = clock
        self._map_size = map_size
        self._map_limit = map_limit
        self._mark = mark if mark is not None else memoryview(bytearray(cachefile.MARK_SIZE))
        self._look_over = look_over
        self._first = first
        self.configure(enabled, cleanup_interval, retention)

        self._environment: Any = None  # None: the surrogate of reference 7.6
        self._inode: tuple[int, int] | None = None
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
        self._damage: str | None = None  # found by the loop's thread in the file
        self._failure: str | None = None  # found by the loop's thread, and not the file's content
        self._resized = False
        self._cleaning = False
        self._retry_in = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, enabled: tuple[bool, ...], cleanup_interval: int, retention: int) -> None:
        """Take over the settings of a reload."""
        self._policy = (tuple(index for index in range(TESTS) if enabled[index]), cleanup_interval, retention)

    # ---- the loop's thread

    def open(self) -> None:
        """Open the file. Never fails: without a usable file every client is new, and it is tried again later."""
        self._mark[1] = 1
        self._open()
        self._mark[1] = 0
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
                mark[0] = 0
            except lmdb.Error as error:
                self._note(error)
                return None
        elif value is _DELETED:
            return None
        return value

    def lookup(self, key: bytes) -> Stamps | None:
        """Return a client's five stamps, or None."""
        value = self.record(key)
        return parse_stamps(value) if value is not None else None

    def end_batch(self) -> None:
        """End the read transaction, if a look-up opened one. The core calls this after each batch of events."""
        if self._get is not None:
            self._get = None
            self._transaction.abort()
            self._transaction = None
            self._reading.release()

    def keep(self, key: bytes, record: bytes) -> None:
        """Remember a client's record: look-ups see it at once, the file within a second."""
        if self._environment is None or len(self._gathered) >= _UNWRITTEN_MAX:
            return
        with self._gathering:
            self._gathered[key] = record

    def store(self, key: bytes, stamps: Stamps) -> None:
        """Remember a client's five stamps."""
        self.keep(key, pack_stamps(stamps))

    def pending(self, key: bytes) -> Stamps | None:
        """Stamps that are perhaps not in the file yet."""
        value = self._gathered.get(key) or self._written.get(key)
        return None if value is None or value is _DELETED else parse_stamps(value)

    def forget(self, first: bytes, last: bytes) -> int:
        """Another process deletes what is of the addresses `first` to `last`: do so with what is not written yet.

        Return how many. They are deleted from the file with the next turn: the thread may be writing them just now.
        """
        doomed = [key for key in (*self._gathered, *self._written) if cachekey.within(key, first, last)]
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
        if cachefile.is_damage(error):
            self._damage = cachefile.reason(error)
        else:
            self._failure = cachefile.reason(error)

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
            self._mark[1] = 1
            try:
                self.turn()
            except Exception as error:
                self._fail(f"{type(error).__name__}: {error}")
            self._mark[1] = 0
            self._flush_lines()
        self._last_turn()

    def _last_turn(self) -> None:
        if self._environment is not None:
            self._mark[1] = 1
            try:
                self._write()
            except lmdb.Error as error:
                self._fail(cachefile.reason(error))
            self._mark[1] = 0

    def turn(self) -> None:
        """Do what is due: open, write, clean up. The writer thread calls this each second."""
        if self._retry_in:
            self._retry_in -= 1
            return
        try:
            self._mend()
            if self._environment is None:
                return
            self._write()
            if self._cleanup_due():
                self._clean_up()
        except lmdb.MapFullError:
            self._fail(f"holds {self._map_size} bytes and may not grow: nothing new is stored")
        except lmdb.Error as error:
            # A full disk can still be read; after a panic the environment can do nothing more.
            if cachefile.is_damage(error) or isinstance(error, lmdb.PanicError):
                self._note(error)
            else:
                self._fail(cachefile.reason(error))

    def _mend(self) -> None:
        """Take over another worker's larger map; replace a file that is damaged, failing, or gone from its path."""
        if self._environment is None:
            self._open()
            return
        if self._resized:
            self._resize(0)
        damage, self._damage = self._damage, None
        failure, self._failure = self._failure, None
        if damage is not None:
            self._close()
            self._open(damage)
        elif failure is not None:
            self._close()
            self._fail(failure)
        elif self._is_replaced():
            self._close()
            self._open()

    def _is_replaced(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._inode

    def _open(self, damage: str | None = None) -> None:
        """Open the file, or become the surrogate. `damage` is what is known to be wrong with the file at the path."""
        try:
            with contextlib.suppress(OSError):  # opening it may already kill this process
                found = self.path.stat()
                cachefile.note_file(self._mark, (found.st_dev, found.st_ino))
            environment = cachefile.open_file(
                self.path,
                self._map_size,
                self._clock,
                lambda text: self._say(self._warn, text),
                damage,
                self._look_over,
            )
            self._look_over = True
            found = self.path.stat()
        except (cachefile.UnusableError, OSError) as error:
            self._fail(f"cannot be opened: {error}; every client is new")
            return
        self._inode = (found.st_dev, found.st_ino)
        cachefile.note_file(self._mark, self._inode)
        self._map_size = max(self._map_size, environment.info()["map_size"])
        with self._reading:
            self._environment = environment
        self._recovered()

    def _close(self) -> None:
        with self._reading:
            environment, self._environment = self._environment, None
            if environment is not None:
                environment.close()

    def _resize(self, size: int) -> None:
        """Change the map's size; 0 takes over what another process made it. No transaction is open meanwhile."""
        with self._reading:
            self._environment.set_mapsize(size)
            self._map_size = self._environment.info()["map_size"]
            self._resized = False

    def _fail(self, text: str) -> None:
        """Say what is wrong, once, and wait before the next attempt."""
        self._retry_in = _RETRY_TURNS
        if text != self._trouble:
            self._trouble = text
            if self._first:
                self._say(self._warn, f"cache lmdb:{self.path}: {text}")

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._trouble = None
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
        self._recovered()

    def _put(self, records: dict[bytes, bytes]) -> None:
        cleaned = self._cleaning
        deleted = [key for key, value in records.items() if value is _DELETED]
        kept = [item for item in records.items() if item[1] is not _DELETED] if deleted else records.items()
        while True:
            try:
                with self._begin_write() as transaction, transaction.cursor() as cursor:
                    cursor.putmulti(kept)
                    for key in deleted:
                        transaction.delete(key)
                return
            except lmdb.MapFullError:
                if cleaned or self._last_cleanup() > self._clock() - _FULL_CLEANUP_SECONDS:
                    self._grow()
                else:
                    cleaned = True
                    self._clean_up()

    def _grow(self) -> None:
        """Called while `MapFullError` is handled, and raises it again when the file may not grow."""
        if self._map_size >= self._map_limit:
            raise
        self._resize(min(2 * self._map_size, self._map_limit))

    def _begin_write(self) -> Any:
        try:
            return self._environment.begin(write=True)
        except lmdb.MapResizedError:
            self._resize(0)
            return self._environment.begin(write=True)

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
                if len(key) <= cachefile.RECORD_KEY_MAX:
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
                self._grow()
        return 0


def _is_kept(value: bytes, enabled: tuple[int, ...], oldest: int) -> bool:
    stamps = parse_stamps(value)
    return all(oldest <= stamps[index] for index in enabled)
