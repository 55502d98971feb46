"""Writing the memory's records: what sessions add, and what goes when there are too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from fastscreen.cache.lmdb_file import MEMORY
from fastscreen.cache.size_limit import in_use
from fastscreen.core import (
    OffenseRules,
    offense_add,
    offense_add_as,
    offense_as,
    offense_keys,
    offense_merge,
    offense_summary,
    offense_tidy,
)
from fastscreen.offenses.networks import NUMBER_SIZES, network_of
from fastscreen.offenses.packets import Record

KINDS = b"46wa"
"""The first byte of a record's key (ext/offense_record.pyx)."""
DAY_KEY = b"_LAST_DAY_"
CHUNK = 4096  # records that are compared with each other
_SHARE = 8  # one record in so many of a chunk is dropped
_LOW = 15 / 16  # of the limit: enough was dropped
_HIGH = 0.85  # of the map

Conduct = tuple[int, int]
"""What a client did in the sessions of a turn: the weight of its worst offense in 1/256, and how good it was at best
(OffenseGood)."""


class Sums(Struct):
    """What is added to the record of an AS."""

    bad: float = 0.0
    good: float = 0.0


class Changed(Struct):
    """Keys of records that have changed, apart from those of AS."""

    bad: list[bytes] = []
    """For an offense."""
    others: list[bytes] = []


def learn(transaction: Any, found: Mapping[bytes, Conduct], today: int, rules: OffenseRules) -> Changed:
    """Add the conduct of clients, by their addresses in 4 or 16 bytes. today: days since 1970."""
    systems: dict[int, Sums] = {}
    changed = Changed()
    get, put, table = transaction.get, transaction.put, rules.as_table
    for client, (bad, good) in found.items():
        more_bad = more_good = 0.0
        for key, size, number in offense_keys(client):  # the last one is of the network in which an AS counts clients
            before = get(key)
            value, more_bad, more_good = offense_add(before, size, number, bad, good, today, rules)
            if value != before:
                put(key, value)
                (changed.bad if bad else changed.others).append(key)
        if table is not None and (more_bad or more_good) and (system := table.lookup(client)):
            sums = systems.setdefault(system, Sums())
            sums.bad += more_bad
            sums.good += more_good
    _add_to_systems(transaction, systems, today, rules)
    return changed


def merge(transaction: Any, found: Iterable[Record], today: int, rules: OffenseRules) -> int:
    """Add what other hosts know of networks. Return how many records have changed."""
    systems: dict[int, Sums] = {}
    changed = 0
    for key, other in found:
        before = transaction.get(key)
        merged = offense_merge(before, other, NUMBER_SIZES[key[:1]], today, rules)
        if merged is None or merged[0] is None or merged[0] == before:
            continue
        value, more_bad, more_good = merged
        transaction.put(key, value)
        changed += 1
        if rules.as_table is None or key[:1] == b"6" or not (more_bad or more_good):  # as in `learn`
            continue
        network = network_of(key)
        if network is not None and (system := rules.as_table.lookup(network.network_address.packed)):
            sums = systems.setdefault(system, Sums())
            sums.bad += more_bad
            sums.good += more_good
    _add_to_systems(transaction, systems, today, rules)
    return changed


def _add_to_systems(transaction: Any, systems: Mapping[int, Sums], today: int, rules: OffenseRules) -> None:
    for system, sums in systems.items():
        key = offense_as(system)
        transaction.put(key, offense_add_as(transaction.get(key), sums.bad, sums.good, today, rules))


def last_day(environment: Any) -> int | None:
    """When something was written last, in days since 1970."""
    with environment.begin() as transaction:
        value = transaction.get(DAY_KEY)
    return int.from_bytes(value) if value is not None else None


def entry_count(environment: Any) -> int:
    """The number of records."""
    with environment.begin() as transaction:
        own = sum(transaction.get(key) is not None for key in (DAY_KEY, MEMORY.key))
        return int(transaction.stat()["entries"]) - own


class Rounds:
    """Goes around the file, a chunk of records at a time. For the writer's thread."""

    def __init__(self) -> None:
        self._place = b""
        self._tidy_place = b""
        self._dropping = False

    def is_full(self, environment: Any, max_entries: int, map_size: int) -> bool:
        """Whether records must go. Once begun, this goes on until there is some room.

        Records are dropped before the last page of the map is used, because changing a record takes free pages.
        """
        share = _LOW if self._dropping else 1.0
        used = in_use(environment)
        self._dropping = entry_count(environment) > share * max_entries or used > share * _HIGH * map_size
        return self._dropping

    def drop(self, environment: Any, begin_write: Callable[[], Any], today: int, rules: OffenseRules) -> int:
        """Drop the lightest records of the next chunk; of equals the oldest. Return how many.

        A flood of new networks costs each other part of the file no more than an eighth of its lightest records.
        """
        records, self._place = chunk(environment, self._place, CHUNK)
        weights = sorted((*_weight(value, today, rules), key) for key, value in records)
        doomed = [key for _, _, key in weights[: -(-len(weights) // _SHARE)]]
        with begin_write() as transaction:
            for key in doomed:
                transaction.delete(key)
        return len(doomed)

    def tidy(self, environment: Any, begin_write: Callable[[], Any], today: int, rules: OffenseRules, most: int) -> int:
        """Delete what has decayed, and correct days in the future, in the next records; return how many changed."""
        records, self._tidy_place = chunk(environment, self._tidy_place, most)
        changed = [(key, tidied) for key, value in records if (tidied := offense_tidy(value, today, rules)) != value]
        if changed:
            with begin_write() as transaction:
                for key, value in changed:
                    if value is None:
                        transaction.delete(key)
                    else:
                        transaction.put(key, value)
        return len(changed)


def _weight(value: bytes, today: int, rules: OffenseRules) -> tuple[float, int]:
    """The weight of a record's heaviest member, and its last day. What is not a record goes first."""
    summary = offense_summary(value, today, rules)
    return (-1.0, 0) if summary is None else (summary[2], summary[3])


def chunk(environment: Any, place: bytes, most: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Records from a key on, and the key to go on with; b"": at the begin again."""
    found: list[tuple[bytes, bytes]] = []
    with environment.begin() as transaction, transaction.cursor() as cursor:
        there = cursor.set_range(place) if place else cursor.first()
        while there and len(found) < most:
            key, value = cursor.item()
            if key[0] in KINDS:
                found.append((key, value))
            there = cursor.next()
        return found, cursor.key() if there else b""


def records(transaction: Any, first: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All records from a key on."""
    with transaction.cursor() as cursor:
        there = cursor.set_range(first) if first else cursor.first()
        while there:
            key, value = cursor.item()
            if key[0] in KINDS:
                yield key, value
            there = cursor.next()
