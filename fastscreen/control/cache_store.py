"""The cache file as the control server reads and changes it: in a separate thread, each time within a time limit."""

from __future__ import annotations

import ipaddress
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from fastscreen.cache import keys, lmdb_file
from fastscreen.cache.file_check import DamagedError, LockError, OpenFile, ReplacedError
from fastscreen.cache.size_limit import MAX_SIZE
from fastscreen.cache.stamps import Stamps, pack_stamps, parse_stamps
from fastscreen.control.messages import CacheStats, Expiring

LIST_SECONDS = 0.5
DELETE_SECONDS = 5.0
EXPIRING_SECONDS = 10.0
_SLICE = 1000  # records a transaction: an open one keeps the file from using its free pages again
_SAMPLE = 200  # places where a run of records is looked at
_RUN = 50
_WITHIN = (0, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400)  # s
_HOUSEKEEPING = (lmdb_file.FORMAT_KEY, b"_LAST_CACHE_CLEANUP_COMPLETED_")

Entry = tuple[bytes, Stamps]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Result = TypeVar("Result")


class StoreError(Exception):
    """The file cannot be used; one line."""


class Store:
    """All methods are called in one thread, and raise StoreError. max_size: of the file, in bytes; may be changed."""

    def __init__(self, path: Path, max_size: int = MAX_SIZE) -> None:
        self.path = path
        self.max_size = max_size
        self._map_size = max_size  # that the file was opened with
        self._file: OpenFile | None = None
        self._known: tuple[tuple[int, ...], float, list[Expiring]] | None = None  # tests, when, what

    def get(self, key: bytes) -> Stamps | None:
        def read(environment: Any) -> Stamps | None:
            with environment.begin() as transaction:
                value = transaction.get(key)
            return None if value is None else parse_stamps(value)

        return self._use(read)

    def entries(self, network: Network | None, after: bytes, limit: int) -> tuple[list[Entry], bool]:
        """Records behind the key `after`, at most `limit`, and whether there may be more."""
        deadline = time.monotonic() + LIST_SECONDS

        def read(environment: Any) -> tuple[list[Entry], bool]:
            found: list[Entry] = []
            place: bytes | None = after + b"\0" if after else b""
            while place is not None and len(found) <= limit and time.monotonic() < deadline:
                some, place = _slice(environment, place, network)
                found += some
            return found[:limit], len(found) > limit or place is not None

        return self._use(read)

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool] | None = None) -> tuple[int, bool]:
        """Delete a network's records, but for those that stay; return how many, and whether there may be more."""
        deadline = time.monotonic() + DELETE_SECONDS

        def change(environment: Any) -> tuple[int, bool]:
            deleted = 0
            place: bytes | None = b""
            while place is not None and time.monotonic() < deadline:
                some, place = _slice(environment, place, network)
                if is_kept is not None:
                    some = [(key, stamps) for key, stamps in some if not is_kept(stamps)]
                with environment.begin(write=True) as transaction:
                    deleted += sum(transaction.delete(key) for key, _ in some)
            return deleted, place is not None

        return self._use(change)

    def put(self, entries: Iterable[Entry]) -> None:
        records = [(key, pack_stamps(stamps)) for key, stamps in entries]

        def change(environment: Any) -> None:
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(records)

        self._use(change)

    def stats(self, enabled: tuple[int, ...], now: float) -> CacheStats:
        """`cache.stats` but for hits and misses. enabled: the tests that are on, by index."""

        def read(environment: Any) -> CacheStats:
            with environment.begin() as transaction:
                entries = environment.stat()["entries"]
                entries -= sum(transaction.get(key) is not None for key in _HOUSEKEEPING)
            return CacheStats(
                path=str(self.path),
                entries=entries,
                size=self.path.stat().st_size,
                map_size=environment.info()["map_size"],
                max_size=self.max_size,
                expiring=self._expiring(environment, entries, enabled, now),
            )

        return self._use(read)

    def _expiring(self, environment: Any, entries: int, enabled: tuple[int, ...], now: float) -> list[Expiring]:
        """Count again only after EXPIRING_SECONDS: this reads thousands of records, and a viewer asks every second."""
        known = self._known
        small = entries <= _RUN  # cheap, and users who try it out see a change at once
        if known is None or known[0] != enabled or small or not known[1] <= now < known[1] + EXPIRING_SECONDS:
            known = (enabled, now, _expiring(environment, entries, enabled, now) if enabled else [])
            self._known = known
        return known[2]

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _use(self, work: Callable[[Any], Result]) -> Result:
        """Do something with the file; once more when another process has made it larger meanwhile."""
        try:
            try:
                return work(self._open().environment)
            except lmdb.MapResizedError:
                self.close()  # and open it in its new size
                return work(self._open().environment)
        except FileNotFoundError:
            raise StoreError(f"cache: {self.path}: the file does not exist yet") from None
        except lmdb.MapFullError:
            raise StoreError(f"cache: {self.path}: full; raise cache.max_size") from None
        except lmdb.Error as error:
            self.close()
            raise StoreError(f"cache: {self.path}: {lmdb_file.reason(error)}") from None
        except (lmdb_file.UnusableError, OSError) as error:
            raise StoreError(f"cache: {self.path}: {getattr(error, 'strerror', None) or error}") from None

    def _open(self) -> OpenFile:
        """The file as it is now: never one that was replaced, and never a map of one that is damaged."""
        if self._map_size != self.max_size:
            self.close()
        if self._file is not None:
            try:
                self._file.check()
                return self._file
            except (ReplacedError, LockError, DamagedError):
                self.close()
        self._map_size = self.max_size
        self._file = lmdb_file.open_existing(self.path, self._map_size)
        return self._file


def _slice(environment: Any, place: bytes, network: Network | None) -> tuple[list[Entry], bytes | None]:
    """The records of one slice from `place` on, and where the next one begins."""
    first = network.network_address.packed if network is not None else b""
    last = network.broadcast_address.packed if network is not None else b""
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(max(place, first) or b"\0"):
            return [], None
        found: list[Entry] = []
        for key, value in _records(cursor, _SLICE):
            if network is not None and key[: len(last)] > last:
                return found, None
            # Keys of all lengths are in one order: a longer one may lie between two of ours.
            if keys.is_record(key) and (network is None or keys.within(key, first, last)):
                found.append((key, parse_stamps(value)))
        return found, cursor.key() or None


def _records(cursor: Any, most: int) -> Iterator[tuple[bytes, bytes]]:
    """So many records from where the cursor is; it is left behind the last one."""
    for _ in range(most):
        key, value = cursor.item()
        if not key:
            return
        yield key, value
        cursor.next()


def _expiring(environment: Any, entries: int, enabled: tuple[int, ...], now: float) -> list[Expiring]:
    """How many records expire soon, by their first test: counted, or from a sample when there are many."""
    ends: Counter[int] = Counter()
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if entries <= _SAMPLE * _RUN:
            starts, run = [b"\0"], _SAMPLE * _RUN + len(_HOUSEKEEPING)
        else:
            starts, run = [random.randbytes(4) for _ in range(_SAMPLE)], _RUN
        for start in starts:
            if not cursor.set_range(start):
                cursor.first()
            for key, value in _records(cursor, run):
                if keys.is_record(key):
                    left = min(parse_stamps(value)[test] for test in enabled) - now
                    ends[next((at for at, within in enumerate(_WITHIN) if left <= within), len(_WITHIN))] += 1
    share = entries / max(1, ends.total())
    return [
        Expiring(float(within), round(share * sum(ends[below] for below in range(at + 1))))
        for at, within in enumerate(_WITHIN)
    ]
