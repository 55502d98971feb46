"""The thread that writes the memory, in the recorder's process: once per second what the sessions of that second add.

It opens the file and looks after it as the cache's writer does (`fastscreen/cache/writer.py`): a damaged or foreign one
is moved aside, one that cannot be used now is tried again. Meanwhile what clients did is kept, up to a limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lmdb

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.file_check import DamagedError, Inode, LockError, OpenFile, ReplacedError
from fastscreen.config import Config
from fastscreen.core import OffenseRules, offenses_in
from fastscreen.escaping import unexpected
from fastscreen.offenses import store
from fastscreen.offenses.clock import DAY, ClockGuard
from fastscreen.offenses.outbox import Outbox
from fastscreen.offenses.packets import Record
from fastscreen.offenses.size import map_size
from fastscreen.offenses.state import OffenseStats
from fastscreen.offenses.store import Conduct, Rounds
from fastscreen.process.conditions import Conditions, Kind

TURN_SECONDS = 1.0
RETRY_TURNS = 5  # at most, between attempts with a file that cannot be used; the first ones are sooner
LOCK_TURNS = 3  # until a lost lock file is made again
MAX_PENDING = 200_000  # clients that are kept while the file cannot be used
SLICE = 2000  # clients per transaction: others read and delete in between
DROP_SECONDS = 0.2  # per turn
TIDY = 200  # records per turn
RESEND = 1000  # records per turn that are looked at to be shared again
MERGE_SECONDS = 0.25  # between two times at which records of other hosts are merged: clients wait for their greeting
MAX_MERGING = 4 << 20  # bytes of such records that are kept
_LARGEST_DAY = 0xFFFF

Row = tuple[int, bytes, bytes, int, int]
"""As HistoryReader returns them."""
Unknown = tuple[bytes, int, int, bool]
"""A session whose outcome is not known, as `offenses_in` has it."""


class OffenseWriter:
    """The memory's writer. `add` and `configure` are for the recorder's loop, `turn` for the thread.

    info, warn: log one line; called in the thread. share: has other hosts learn of records, called in the thread; None:
    there are no others. mark: of `use_mark.SIZE` bytes. clock: s since 1970; timer: s, monotonic.
    """

    def __init__(
        self,
        config: Config,
        rules: OffenseRules,
        conditions: Conditions,
        *,
        info: Callable[[str], object],
        warn: Callable[[str], object],
        share: Callable[[list[Record]], object] | None = None,
        mark: memoryview | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(config.score.memory)
        self._conditions = conditions
        self._info = info
        self._warn = warn
        self._share = share
        self._mark = mark if mark is not None else memoryview(bytearray(use_mark.SIZE))
        self._clock = clock
        self._timer = timer
        self._guard: ClockGuard | None = None
        self._pending: dict[bytes, Conduct] = {}
        self._pending_since = 0.0
        self._merging: dict[bytes, bytes] = {}
        self._merging_bytes = 0
        self._lock = threading.Lock()  # of _pending and _merging
        self._outbox = Outbox()
        self._resend_from: tuple[bytes, int] | None = None  # a key, and a day
        self._file: OpenFile | None = None
        self._damage: tuple[Inode, str] | None = None
        self._map_size = 0
        self._trouble = ""
        self._attempts = 0
        self._retry_in = 0
        self._rounds = Rounds()
        self._entries = self._bad = self._good = self._dropped = self._lost = self._merged = 0
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.unknown: Callable[[list[Unknown]], object] | None = None
        """Takes the sessions whose outcome is not known, and `note`s it later. None: they count as they are."""
        self.configure(config, rules)

    # ---- the loop's thread

    def configure(self, config: Config, rules: OffenseRules) -> None:
        """Follow a new configuration. Another half-life applies to what is stored, from now on."""
        self._weights = {key: weight for key, weight in config.weights.items() if weight}
        self._threshold = config.dnsbl.threshold
        self._max_entries = config.score.memory_max_entries
        self._rules = rules
        self._shares = "offenses" in config.cluster.share

    def add(self, rows: Sequence[Row]) -> None:
        """Sessions have ended."""
        unknown: list[Unknown] | None = [] if self.unknown is not None else None
        self.note(offenses_in(rows, self._threshold, self._weights, unknown))
        if unknown and self.unknown is not None:
            self.unknown(unknown)

    def note(self, found: dict[bytes, Conduct]) -> None:
        """Add what clients did, by their addresses in 4 or 16 bytes."""
        with self._lock:
            if not self._pending:
                self._pending = found
                self._pending_since = self._timer()
                return
            for client, (bad, good) in found.items():
                before = self._pending.get(client)
                if before is not None:
                    self._pending[client] = (max(bad, before[0]), max(good, before[1]))
                elif len(self._pending) < MAX_PENDING:
                    self._pending[client] = (bad, good)
                else:
                    self._lost += 1

    def merge(self, records: Sequence[Record]) -> None:
        """Add what other hosts know, soon. What there is no room for comes again when a client is looked up."""
        with self._lock:
            for key, value in records:
                if self._merging_bytes < MAX_MERGING:
                    self._merging_bytes += len(value) - len(self._merging.get(key, b""))
                    self._merging[key] = value
        self._wake.set()

    def resend(self, since: int) -> None:
        """Share what has changed since a day (days since 1970) again: other hosts may lack it."""
        self._resend_from = b"", since

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="offenses", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is pending, and close the file."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._retry_in = 0
        self.turn()
        self._close()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stats(self) -> OffenseStats:
        """How it is doing."""
        file = self._file
        try:
            size = self._path.stat().st_size if file is not None else 0
        except OSError:
            size = 0
        table = self._rules.as_table
        with self._lock:
            waiting, since = len(self._pending), self._pending_since
        return OffenseStats(
            problem=self._trouble,
            entries=self._entries,
            bytes=size,
            bad=self._bad,
            good=self._good,
            dropped=self._dropped,
            lost=self._lost,
            waiting=waiting,
            lag=max(0.0, self._timer() - since) if waiting else 0.0,
            merged=self._merged,
            unshared=self._outbox.dropped,
            systems=len(table) if table is not None else 0,
        )

    # ---- the thread

    def _run(self) -> None:
        due = self._timer() + TURN_SECONDS
        while True:
            if self._wake.wait(max(0.0, due - self._timer())):
                self._stop.wait(MERGE_SECONDS)
                self._wake.clear()
            if self._stop.is_set():
                return
            is_due = self._timer() >= due
            if is_due:
                due = self._timer() + TURN_SECONDS
            self.turn(only_merge=not is_due)

    def turn(self, *, only_merge: bool = False) -> None:
        """Do what is due. Never raises. only_merge: the rest is not due yet."""
        self._mark[use_mark.WRITER] = 1
        try:
            self._turn(only_merge)
        except lmdb.MapFullError:
            self._fail(f"holds {self._map_size} bytes and is full; raise score.memory_max_entries")
        except lmdb.Error as error:
            if lmdb_file.is_damage(error) and self._file is not None:
                self._damage = (self._file.inode, lmdb_file.reason(error))
            self._close()
            self._fail(lmdb_file.reason(error))
        except Exception as error:
            self._close()
            self._fail(unexpected(error))
        self._mark[use_mark.WRITER] = 0

    def _turn(self, only_merge: bool) -> None:
        if (only_merge and self._retry_in) or not self._is_usable():
            return
        assert self._file is not None
        environment = self._file.environment
        self._merge(environment)
        if only_merge:
            return
        self._write(environment)
        self._make_room(environment)
        if self._guard is not None and self._guard.is_believed:
            self._rounds.tidy(environment, self._begin_write, self._today, self._rules, TIDY)
        self._entries = store.entry_count(environment)
        self._share_changes(environment)
        self._recovered()

    @property
    def _today(self) -> int:
        return min(max(0, int(self._clock()) // DAY), _LARGEST_DAY)

    # ---- the file

    def _is_usable(self) -> bool:
        """Check the file; open the one that is to be used."""
        if self._file is not None:
            try:
                self._file.check()
            except ReplacedError:
                self._close()
            except LockError as error:
                self._close()
                self._fail(f"{error}; it is opened again", turns=LOCK_TURNS)
            except DamagedError as error:
                self._damage = (self._file.inode, str(error))
                self._close()
            except OSError:
                pass  # the folder cannot be searched; the open file stays in use
        if self._file is not None and self._map_size != map_size(self._max_entries):
            self._close()
        if self._retry_in:
            self._retry_in -= 1
            return False
        if self._file is None:
            self._open()
        return self._file is not None

    def _open(self) -> None:
        damaged, self._damage = self._damage, None
        self._map_size = map_size(self._max_entries)
        try:
            self._file = lmdb_file.open_file(
                self._path,
                self._map_size,
                self._clock,
                self._warn,
                damaged=damaged,
                opening=lambda inode: use_mark.name_file(self._mark, inode),
                kind=lmdb_file.MEMORY,
            )
        except (lmdb_file.UnusableError, OSError) as error:
            self._fail(f"cannot be opened: {error}; nothing new is learned; retried automatically")
            return
        if self._guard is None:
            self._guard = ClockGuard(self._clock, self._timer, store.last_day(self._file.environment))

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _fail(self, text: str, *, turns: int = 0) -> None:
        self._retry_in = turns or min(1 << self._attempts, RETRY_TURNS)
        self._attempts = min(self._attempts + 1, 10)
        text = f"score.memory lmdb:{self._path}: {text}"
        self._conditions.begin(Kind.OFFENSES, text)
        if text != self._trouble:
            self._trouble = text
            self._warn(text)

    def _recovered(self) -> None:
        self._attempts = 0
        if self._trouble:
            self._trouble = ""
            self._conditions.end(Kind.OFFENSES)
            self._info(f"score.memory lmdb:{self._path}: works again")

    # ---- writing

    def _begin_write(self) -> Any:
        assert self._file is not None
        return self._file.environment.begin(write=True)

    def _write(self, environment: Any) -> None:
        with self._lock:
            found, self._pending = self._pending, {}
            since = self._pending_since
        items = list(found.items())
        chunks = 64
        try:
            while items:
                try:
                    with self._begin_write() as transaction:
                        changed = store.learn(transaction, dict(items[:SLICE]), self._today, self._rules)
                        self._put_day(transaction)
                except lmdb.MapFullError:
                    chunks -= 1
                    if chunks == 0:
                        raise
                    self._drop(environment)
                    continue
                self._bad += sum(1 for _, (bad, _) in items[:SLICE] if bad)
                self._good += sum(1 for _, (_, good) in items[:SLICE] if good)
                if self._share is not None and self._shares:
                    self._outbox.put(changed.bad, is_bad=True)
                    self._outbox.put(changed.others, is_bad=False)
                del items[:SLICE]
        except BaseException:
            self.note(dict(items))
            with self._lock:
                self._pending_since = since
            raise

    # ---- other hosts

    def _merge(self, environment: Any) -> None:
        """Add what other hosts know. What cannot be written is lost: it comes again."""
        with self._lock:
            found, self._merging = list(self._merging.items()), {}
            self._merging_bytes = 0
        while found:
            try:
                with self._begin_write() as transaction:
                    self._merged += store.merge(transaction, found[:SLICE], self._today, self._rules)
            except lmdb.MapFullError:
                self._drop(environment)
                return
            del found[:SLICE]

    def _share_changes(self, environment: Any) -> None:
        """Have other hosts learn of records whose turn it is."""
        if self._share is None or not self._shares:
            return
        if self._resend_from is not None and len(self._outbox) < RESEND:
            place, since = self._resend_from
            records, place = store.chunk(environment, place, RESEND)
            self._outbox.put_recent(records, since, self._today, self._rules)
            self._resend_from = (place, since) if place else None
        if len(self._outbox):
            with environment.begin() as transaction:
                found = [(key, value) for key in self._outbox.take() if (value := transaction.get(key)) is not None]
            self._share(found)

    def _put_day(self, transaction: Any) -> None:
        day = self._today.to_bytes(2)
        if self._guard is not None and self._guard.is_believed and transaction.get(store.DAY_KEY) != day:
            transaction.put(store.DAY_KEY, day)

    def _make_room(self, environment: Any) -> None:
        until = self._timer() + DROP_SECONDS
        while self._rounds.is_full(environment, self._max_entries, self._map_size):
            self._drop(environment)
            if self._timer() >= until or self._stop.is_set():
                break

    def _drop(self, environment: Any) -> None:
        self._dropped += self._rounds.drop(environment, self._begin_write, self._today, self._rules)
