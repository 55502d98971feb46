"""The worst records of the memory of offenses. A search reads a part of the file at a time, so that neither a million
networks nor a slow disk delays anything else: each request goes on with it for a moment, and gets what has been found.
"""

from __future__ import annotations

import heapq
import ipaddress
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from msgspec import Struct

from fastscreen.core import OffenseRules, offense_read, offense_summary

SECONDS = 0.2  # per request
KEPT_SECONDS = 10.0  # until a finished search begins again
KEPT_TIMES = 20  # the same, in times that it took
MAX_WORST = 1000
_SLICE = 1000  # records per transaction: an open one keeps the file from using its free pages again

Kind = Literal["network", "as"]
Sort = Literal["worst", "share", "recent"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Rank = tuple[float, float, float]
Record = tuple[bytes, bytes]
Range = tuple[bytes, bytes]

_ALL: dict[Kind, tuple[Range, ...]] = {"network": ((b"4", b"7"), (b"w", b"x")), "as": ((b"a", b"b"),)}
"""Where the records of each kind are: from a key on, and before another one (ext/offense_record.pyx)."""


class Wanted(Struct, frozen=True):
    """What is looked for. within: networks in this one, or in the AS of this number; None: all."""

    kind: Kind = "network"
    sort: Sort = "worst"
    within: Network | int | None = None


class Search:
    """Goes through the file again and again. Records without a bad member are not found."""

    def __init__(self, wanted: Wanted, rules: OffenseRules, today: int) -> None:
        self.wanted = wanted
        self.rules = rules
        self.keys: list[bytes] = []
        """The worst first: of the last time, or of this one as far as it has come."""
        self.found = 0
        """How many there are, of which `keys` has the worst."""
        self.is_complete = False
        self._begin(today)

    def _begin(self, today: int) -> None:
        self._today = today
        self._heap: list[tuple[Rank, bytes]] = []
        self._found = 0
        self._spent = 0.0
        self._ranges = list(_ranges(self.wanted))
        self._is_over = False
        self._again_at = 0.0

    def go_on(self, environment: Any, today: int, seconds: float = SECONDS, now: float | None = None) -> None:
        """Read on for so long. now: monotonic."""
        now = time.monotonic() if now is None else now
        if self._is_over:
            if now < self._again_at:
                return
            self._begin(today)
        self._read(environment, seconds)
        if self._is_over or not self.is_complete:
            self.keys = [key for _, key in sorted(self._heap, reverse=True)]
            self.found = self._found
        if self._is_over:
            self.is_complete = True
            self._again_at = now + max(KEPT_SECONDS, KEPT_TIMES * self._spent)

    def _read(self, environment: Any, seconds: float) -> None:
        began = time.monotonic()
        while self._ranges:
            first, end = self._ranges[0]
            records = _records(environment, first, end, _SLICE)
            for key, value in records:
                self._look_at(key, value)
            if len(records) < _SLICE:
                del self._ranges[0]
            else:
                self._ranges[0] = (records[-1][0] + b"\0", end)
            if time.monotonic() - began >= seconds:
                break
        self._spent += time.monotonic() - began
        self._is_over = not self._ranges

    def _look_at(self, key: bytes, value: bytes) -> None:
        summary = offense_summary(value, self._today, self.rules)
        if summary is None or not summary[0] or not self._is_within(key):
            return
        bad, known, weight, day = summary
        self._found += 1
        heap = self._heap
        match self.wanted.sort:
            case "worst":
                rank: Rank = (is_bad(self.rules, key, bad, known), bad, bad / max(1, known))
            case "share":
                rank = (bad >= least(self.rules, key), bad / max(1, known), bad)
            case _:
                if len(heap) == MAX_WORST and day < heap[0][0][0]:
                    return
                rank = (max(each[3] for each in offense_read(value, self._today, self.rules) or ()), bad, weight)
        if len(heap) < MAX_WORST:
            heapq.heappush(heap, (rank, key))
        elif (rank, key) > heap[0]:
            heapq.heapreplace(heap, (rank, key))

    def _is_within(self, key: bytes) -> bool:
        within, table = self.wanted.within, self.rules.as_table
        if not isinstance(within, int):
            return True
        return table is not None and table.lookup(client_of(key)) == within


class Searches:
    """The searches of the last requests. For one thread."""

    MOST = 4

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._searches: dict[Wanted, Search] = {}
        self._monotonic = monotonic

    def search(self, environment: Any, wanted: Wanted, rules: OffenseRules, today: int) -> Search:
        """Go on with a search, or begin it."""
        found = self._searches.pop(wanted, None)
        if found is None or found.rules is not rules:
            found = Search(wanted, rules, today)
        self._searches[wanted] = found
        if len(self._searches) > self.MOST:
            del self._searches[next(iter(self._searches))]
        found.go_on(environment, today, now=self._monotonic())
        return found


def is_bad(rules: OffenseRules, key: bytes, bad: int, known: int) -> bool:
    """Whether a scorer would say so, with all members taken for neighbors."""
    share = rules.as_share if key[:1] == b"a" else 50
    return bad >= least(rules, key) and 100 * bad >= share * known


def least(rules: OffenseRules, key: bytes) -> int:
    """How many members must be bad."""
    return rules.seen_min * (10 if key[:1] == b"a" else 1)


def client_of(key: bytes) -> bytes:
    """The first address of a network, in 4 or 16 bytes."""
    return key[1:].ljust(4 if key[:1] == b"4" else 16, b"\0")


def _ranges(wanted: Wanted) -> Iterator[Range]:
    within = wanted.within
    if wanted.kind == "as" or within is None or isinstance(within, int):
        yield from _ALL[wanted.kind]
        return
    first, last = within.network_address.packed, within.broadcast_address.packed
    for kind, size in ((b"4", 3),) if within.version == 4 else ((b"6", 8), (b"w", 6)):
        yield kind + first[:size], kind + last[:size] + b"\0"


def _records(environment: Any, first: bytes, end: bytes, most: int) -> list[Record]:
    """Records from one key on and before another."""
    found: list[Record] = []
    with environment.begin() as transaction, transaction.cursor() as cursor:
        there = cursor.set_range(first)
        while there and len(found) < most:
            item = cursor.item()
            if item[0] >= end:
                break
            found.append(item)
            there = cursor.next()
    return found
