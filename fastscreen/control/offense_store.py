"""The memory of offenses as the control server reads and changes it: in the cache's thread, within time limits."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from fastscreen.cache import lmdb_file
from fastscreen.cache.file_check import DamagedError, LockError, OpenFile, ReplacedError
from fastscreen.control.messages import Reputation, ReputationMember
from fastscreen.control.offense_search import Searches, Sort, Wanted, client_of, is_bad
from fastscreen.core import (
    OffenseRules,
    offense_as,
    offense_keys,
    offense_read,
    offense_summary,
    offense_without,
    seen_in,
)
from fastscreen.offenses.clock import DAY
from fastscreen.offenses.networks import Network, network_of, numbers_in
from fastscreen.offenses.size import map_size
from fastscreen.offenses.store import KINDS

LIST_SECONDS = 5.0
DELETE_SECONDS = 5.0
_SLICE = 1000  # records a transaction: an open one keeps the file from using its free pages again

Record = tuple[bytes, bytes]
Result = TypeVar("Result")


class OffenseStoreError(Exception):
    """The file cannot be used; one line."""


class OffenseStore:
    """All methods are called in one thread, and raise OffenseStoreError. rules: may be changed."""

    def __init__(self, path: Path, rules: OffenseRules, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.rules = rules
        self._clock = clock
        self._file: OpenFile | None = None
        self._searches = Searches()

    @property
    def _today(self) -> int:
        return min(max(0, int(self._clock()) // DAY), 0xFFFF)

    # ---- reading

    def evidence(self, address: str) -> list[tuple[str, str]]:
        """What the scorers of the memory find against an address now, with their evidence."""

        def read(environment: Any) -> list[tuple[str, str]]:
            with environment.begin() as transaction:
                return seen_in(_Records(transaction), self.rules, address, self._today)

        return self._use(read)

    def of_address(self, address: str) -> list[Reputation]:
        """What is known of an address, of its networks, and of its AS."""
        client = ipaddress.ip_address(address).packed
        wanted = [key for key, _, _ in offense_keys(client)]
        table = self.rules.as_table
        if table is not None and (system := table.lookup(client)):
            wanted.append(offense_as(system))

        def read(environment: Any) -> list[Reputation]:
            with environment.begin() as transaction:
                records = [(key, value) for key in wanted if (value := transaction.get(key)) is not None]
            found = [each for key, value in records if (each := self._described(key, value)) is not None]
            if records and (own := self._own(address, client, records[0])) is not None:
                found.insert(0, own)
            return found

        return self._use(read)

    def of_network(self, network: Network) -> list[Reputation]:
        """The records of a network, at most a page of them. Each has its members."""
        return self.page(network, b"", 100)[0]

    def of_system(self, number: int) -> list[Reputation]:
        """The record of an AS."""
        key = offense_as(number)

        def read(environment: Any) -> list[Reputation]:
            with environment.begin() as transaction:
                value = transaction.get(key)
            found = self._described(key, value) if value is not None else None
            return [found] if found is not None else []

        return self._use(read)

    def page(self, network: Network | None, after: bytes, limit: int) -> tuple[list[Reputation], bytes]:
        """Records behind the key `after`, with their members; and the key to go on with, b"": that was all."""
        deadline = time.monotonic() + LIST_SECONDS

        def read(environment: Any) -> tuple[list[Reputation], bytes]:
            found: list[Reputation] = []
            place = after
            while len(found) < limit and time.monotonic() < deadline:
                records = _slice(environment, place, min(_SLICE, limit - len(found)), KINDS)
                if not records:
                    return found, b""
                place = records[-1][0]
                for key, value in records:
                    if network is None or _overlaps(key, network):
                        described = self._described(key, value, members=True)
                        found += [described] if described is not None else []
            return found, place

        return self._use(read)

    def worst(self, wanted: Wanted, start: int, limit: int) -> tuple[list[Reputation], int, bool]:
        """A page of the worst records, as they are now; how many there are; and whether the search goes on."""

        def read(environment: Any) -> tuple[list[Reputation], int, bool]:
            search = self._searches.search(environment, wanted, self.rules, self._today)
            page = search.keys[start : start + limit]
            with environment.begin() as transaction:
                records = [(key, value) for key in page if (value := transaction.get(key)) is not None]
            found = [each for key, value in records if (each := self._described(key, value)) is not None]
            found.sort(key=_ORDERS[wanted.sort], reverse=True)  # their numbers have changed since they were found
            return found, search.found, not search.is_complete

        return self._use(read)

    def _own(self, address: str, client: bytes, record: Record) -> Reputation | None:
        """What is known of the address itself."""
        _, _, number = offense_keys(client)[0]
        for member, bad, good, bad_day, good_day, own_bad in offense_read(record[1], self._today, self.rules) or ():
            if member == number:
                return Reputation(
                    subject=address, kind="address", bad=round(bad, 2), good=round(good, 2), is_bad=own_bad,
                    last_bad=_seconds(bad_day), last_good=_seconds(good_day),
                )  # fmt: skip
        return None

    def _described(self, key: bytes, value: bytes, *, members: bool = False) -> Reputation | None:
        """A record. None: it is not one, or nothing of it is left."""
        today, rules = self._today, self.rules
        summary = offense_summary(value, today, rules)
        found = offense_read(value, today, rules)
        if summary is None or not found:
            return None
        bad, known, _, _ = summary
        found.sort(key=lambda each: (not each[5], _place(key, each[0])))
        return Reputation(
            subject=subject_of(key),
            kind="as" if key[:1] == b"a" else "network",
            bad_members=bad,
            known_members=known,
            is_bad=is_bad(rules, key, bad, known),
            system=self._system(key),
            last_bad=_seconds(max(each[3] for each in found)),
            last_good=_seconds(max(each[4] for each in found)),
            members=[
                ReputationMember(_member_of(key, each[0]), round(each[1], 2), round(each[2], 2), each[5],
                                 _seconds(each[3]), _seconds(each[4]))
                for each in found
            ]
            if members and key[:1] != b"a"
            else [],
        )  # fmt: skip

    def _system(self, key: bytes) -> int:
        """The AS of a network's first address. 0: not known."""
        table = self.rules.as_table
        return table.lookup(client_of(key)) if table is not None and key[:1] != b"a" else 0

    # ---- changing

    def delete(self, network: Network) -> tuple[int, bool]:
        """Forget the addresses of a network; return how many records changed, and whether there may be more."""
        deadline = time.monotonic() + DELETE_SECONDS
        first, last = network.network_address.packed, network.broadcast_address.packed

        def change(environment: Any) -> tuple[int, bool]:
            changed = 0
            for kind, size in ((b"4", 3),) if network.version == 4 else ((b"6", 8), (b"w", 6)):
                end = kind + last[:size]
                place = kind + first[:size]
                while place <= end:
                    if time.monotonic() >= deadline:
                        return changed, True
                    with environment.begin(write=True) as transaction:
                        records = list(_records(transaction, place, end, _SLICE))
                        for key, value in records:
                            changed += _forget(transaction, key, value, network)
                    if not records:
                        break
                    place = records[-1][0] + b"\0"
            return changed, False

        return self._use(change)

    def delete_system(self, number: int) -> tuple[int, bool]:
        """Forget the sums of an AS."""
        key = offense_as(number)

        def change(environment: Any) -> tuple[int, bool]:
            with environment.begin(write=True) as transaction:
                return int(transaction.delete(key)), False

        return self._use(change)

    # ---- the file

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _use(self, work: Callable[[Any], Result]) -> Result:
        """Do something with the file; once more when the writer has made it larger meanwhile."""
        try:
            try:
                return work(self._open().environment)
            except lmdb.MapResizedError:
                self.close()
                return work(self._open().environment)
        except FileNotFoundError:
            raise OffenseStoreError(f"score.memory: {self.path}: the file does not exist yet") from None
        except lmdb.Error as error:
            self.close()
            raise OffenseStoreError(f"score.memory: {self.path}: {lmdb_file.reason(error)}") from None
        except (lmdb_file.UnusableError, OSError) as error:
            raise OffenseStoreError(f"score.memory: {self.path}: {getattr(error, 'strerror', None) or error}") from None

    def _open(self) -> OpenFile:
        """The file as it is now: never one that was replaced, and never a map of one that is damaged."""
        if self._file is not None:
            try:
                self._file.check()
                return self._file
            except (ReplacedError, LockError, DamagedError):
                self.close()
        self._file = lmdb_file.open_existing(self.path, map_size(0), lmdb_file.MEMORY)
        return self._file


class OffenseAdmin:
    """The file as the cluster process needs it: other hosts delete networks. `delete` raises OffenseStoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store = OffenseStore(path, OffenseRules())

    def delete(self, network: Network, is_kept: object = None) -> tuple[int, bool]:
        """Forget the addresses of a network, as `OffenseStore.delete`."""
        return self._store.delete(network) if self._path.exists() else (0, False)

    def close(self) -> None:
        self._store.close()


class _Records:
    """A transaction as the core looks into it."""

    def __init__(self, transaction: Any) -> None:
        self._get = transaction.get

    def record(self, key: bytes) -> bytes | None:
        found: bytes | None = self._get(key)
        return found

    def end_batch(self) -> None:
        """The transaction is ended by whoever began it."""


_ORDERS: dict[Sort, Callable[[Reputation], Any]] = {
    "worst": lambda each: (each.is_bad, each.bad_members),
    "share": lambda each: (each.is_bad, each.bad_members / max(1, each.known_members)),
    "recent": lambda each: (each.last_bad, each.bad_members),
}


def subject_of(key: bytes) -> str:
    """What a record is about, in the usual notation."""
    network = network_of(key)
    return str(network) if network is not None else f"AS{int.from_bytes(key[1:5])}"


def _member_of(key: bytes, number: int) -> str:
    """An address or a /64. Of an IPv6 address there is only a hash."""
    match key[:1]:
        case b"4":
            return str(ipaddress.IPv4Address(key[1:4] + bytes([number])))
        case b"w":
            return f"{ipaddress.IPv6Address(key[1:7] + number.to_bytes(2, 'little') + bytes(8))}/64"
        case _:
            return f"#{number:08x}"


def _place(key: bytes, number: int) -> int:
    """Where a member comes in the order of addresses."""
    return int.from_bytes(number.to_bytes(2, "little")) if key[:1] == b"w" else number


def _overlaps(key: bytes, network: Network) -> bool:
    own = network_of(key)
    return own is not None and own.version == network.version and own.overlaps(network)


def _forget(transaction: Any, key: bytes, value: bytes, network: Network) -> int:
    """Forget the members of a record that are in the network. Return whether it has changed."""
    own = network_of(key)
    if own is None or own.version != network.version or not own.overlaps(network):
        return 0
    if own.subnet_of(network):  # type: ignore[arg-type]
        return int(transaction.delete(key))
    numbers = numbers_in(key, network)
    left = offense_without(value, numbers)
    if left == value:
        return 0
    if left is None:
        transaction.delete(key)
    else:
        transaction.put(key, left)
    return 1


def _records(transaction: Any, first: bytes, last: bytes, most: int) -> Iterator[Record]:
    """Records from one key to another."""
    with transaction.cursor() as cursor:
        there = cursor.set_range(first)
        for _ in range(most):
            if not there or cursor.key() > last:
                return
            yield cursor.item()
            there = cursor.next()


def _slice(environment: Any, after: bytes, most: int, kinds: bytes) -> list[Record]:
    """Records of some kinds behind a key."""
    found: list[Record] = []
    with environment.begin() as transaction, transaction.cursor() as cursor:
        there = cursor.set_range(after + b"\0") if after else cursor.first()
        while there and len(found) < most:
            key, value = cursor.item()
            if key[0] in kinds:
                found.append((key, value))
            there = cursor.next()
    return found


def _seconds(day: int) -> float:
    """0.0: never."""
    return float(day * DAY)
