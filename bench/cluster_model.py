"""A model of hosts that share passes: what happens at each visit of a client, with and without a cluster.

Clients do not influence each other, so each is followed alone, and only its visits are in memory. The model has the
core's rules: a test is due when its pass has expired, only due tests are repeated, and a pass is known `wait` seconds
after the visit. The server is always up, and its answers and stores take no time.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastscreen.config.keys import KEYS
from fastscreen.core import TESTS

HOUR = 3600
DAY = 86400
HOSTS_MAX = 1000
FIRST_MX = 0.9  # share of the visits to the most preferred of the hosts that are left, with --mx ordered
VISIT_SECONDS = 10  # a client comes no more often than this on average, over the whole time
LEAST_SAMPLE = 4  # clients of each class

_NEVER = -math.inf
_END = -1  # the host of no visit: the end of the time

_UNITS = {"s": 1, "m": 60, "h": HOUR, "d": DAY}
_LIFETIME_KEYS = {"pregreet": "greet.ttl", "dnsbl": "dnsbl.max_ttl", "score": "score.ttl"}


def default_seconds(key: str) -> int:
    """The default of a configuration key that is a time."""
    (text,) = (entry.default.strip('"') for entry in KEYS if entry.key == key)
    return int(text[:-1]) * _UNITS[text[-1]]


@dataclass(frozen=True)
class Rules:
    """The tests that all hosts enable, by their keys in the core's table, and what they cost a client.

    lifetimes: s, of a pass of each of them. wait: s, until the tests of the greet wait have passed. retry: s, until a
    client comes back that had to because of a deep test.
    """

    tests: tuple[str, ...] = ("pregreet", "dnsbl")
    lifetimes: tuple[float, ...] = field(init=False)
    deep: frozenset[int] = field(init=False)
    wait: float = field(default_factory=lambda: default_seconds("greet.wait"))
    retry: float = 300

    def __post_init__(self) -> None:
        stages = {test.key: test.stage for test in TESTS}
        lifetimes = [default_seconds(_LIFETIME_KEYS.get(test, f"deep.{test}_ttl")) for test in self.tests]
        object.__setattr__(self, "lifetimes", tuple(lifetimes))
        deep = frozenset(number for number, test in enumerate(self.tests) if stages[test] == "dialogue")
        object.__setattr__(self, "deep", deep)

    def delay(self, due: Sequence[int]) -> float:
        """How much later a client is served because of these tests (s)."""
        return self.wait + (self.retry if self.deep.intersection(due) else 0)


@dataclass
class Counts:
    """What happened from `since` to `until` (s). Numbers of clients that pass; those of hosts are one for each host.

    tested_alone: visits that are tested without a cluster; known_elsewhere: of those, visits for which the passes of
    all hosts together would have been enough. looked_up, hits, tested, stores: with a cluster.
    """

    hosts: int
    since: float
    until: float
    visits: list[float] = field(default_factory=list)
    tested_alone: float = 0
    known_elsewhere: float = 0
    delay_alone: float = 0
    looked_up: list[float] = field(default_factory=list)
    hits: float = 0
    tested: float = 0
    delay: float = 0
    stores: float = 0
    changes: list[float] = field(default_factory=list)
    """Of the number of passes in the server, at each full hour."""

    def __post_init__(self) -> None:
        self.visits = [0.0] * self.hosts
        self.looked_up = [0.0] * self.hosts
        self.changes = [0.0] * (math.ceil(self.until / HOUR) + 1)

    def add(self, other: Counts, weight: float) -> None:
        """Count each client of `other` as so many."""
        for name in ("tested_alone", "known_elsewhere", "delay_alone", "hits", "tested", "delay", "stores"):
            setattr(self, name, getattr(self, name) + weight * getattr(other, name))
        for mine, theirs in (
            (self.visits, other.visits),
            (self.looked_up, other.looked_up),
            (self.changes, other.changes),
        ):
            for number, value in enumerate(theirs):
                mine[number] += weight * value

    def stored(self, since: float, until: float) -> None:
        """A pass is in the server for this time."""
        last = len(self.changes) - 1
        self.changes[min(math.ceil(since / HOUR), last)] += 1
        self.changes[min(math.ceil(until / HOUR), last)] -= 1

    def most_stored(self) -> float:
        """The greatest number of passes in the server at a full hour."""
        number = most = 0.0
        for hour, change in enumerate(self.changes[:-1]):
            number += change
            if hour * HOUR >= self.since:
                most = max(most, number)
        return most


def follow(visits: Sequence[tuple[float, int]], rules: Rules, counts: Counts) -> None:
    """Add what happens to one client that passes all tests. visits: times (s) and hosts, in order."""
    lifetimes, since, wait = rules.lifetimes, counts.since, rules.wait
    everything = range(len(lifetimes))
    nothing = [_NEVER] * len(lifetimes)
    # Until when each host lets the client pass, and the stamps that say so: without a cluster, and with one.
    alone_until, local_until = [_NEVER] * counts.hosts, [_NEVER] * counts.hosts
    alone: dict[int, list[float]] = {}
    local: dict[int, list[float]] = {}
    best, server = nothing.copy(), nothing
    # Visits under test: when they will have passed, the host, the tests that are due.
    alone_tested: deque[tuple[float, int, list[int]]] = deque()
    tested: deque[tuple[float, int, list[int]]] = deque()
    stored_since = stored_until = _NEVER

    for time, host in (*visits, (counts.until, _END)):
        while alone_tested and alone_tested[0][0] <= time:
            at, where, due = alone_tested.popleft()
            stamps = alone[where]
            for test in due:
                stamps[test] = at + lifetimes[test]
                best[test] = max(best[test], stamps[test])
            alone_until[where] = min(stamps)
        while tested and tested[0][0] <= time:
            at, where, due = tested.popleft()
            stamps = local[where]
            for test in due:
                stamps[test] = at + lifetimes[test]
            local_until[where] = min(stamps)
            expiry = max(stamps)
            if at >= since:
                counts.stores += 1
            if expiry >= max(server):
                server = stamps.copy()
            if at >= stored_until:
                if stored_until > _NEVER:
                    counts.stored(stored_since, stored_until)
                stored_since = at
            stored_until = max(stored_until, expiry)
        if host == _END:
            break
        counted = time >= since
        if counted:
            counts.visits[host] += 1
        if alone_until[host] <= time:
            stamps = alone.setdefault(host, nothing.copy())
            due = [test for test in everything if stamps[test] <= time]
            alone_tested.append((time + wait, host, due))
            if counted:
                counts.tested_alone += 1
                counts.delay_alone += rules.delay(due)
                counts.known_elsewhere += all(best[test] > time for test in due)
        if local_until[host] <= time:
            stamps = list(map(max, local.get(host, nothing), server))
            local[host] = stamps
            due = [test for test in everything if stamps[test] <= time]
            if counted:
                counts.looked_up[host] += 1
            if not due:
                local_until[host] = min(stamps)
                counts.hits += counted
                continue
            tested.append((time + wait, host, due))
            if counted:
                counts.tested += 1
                counts.delay += rules.delay(due)
    if stored_until > _NEVER:
        counts.stored(stored_since, stored_until)


def host_of(chance: float, hosts: int, *, ordered: bool) -> int:
    """The host of a visit, from a random number of [0, 1). ordered: each host has its own preference."""
    if not ordered:
        return int(chance * hosts)
    return min(hosts - 1, int(math.log(1 - chance) / math.log(1 - FIRST_MX)))


# ---- generated clients


@dataclass(frozen=True)
class Crowd:
    """Clients whose number of visits has a heavy tail: those that come n times or more are n ** -tail of all.

    seconds: over which the visits are spread evenly. sample: about so many visits of each class of clients are
    simulated; 0: all. A class is the clients that come between 2 ** k and 2 ** (k + 1) - 1 times.
    """

    clients: int
    seconds: float
    seed: int = 1
    tail: float = 1.2
    sample: int = 20_000

    def visits_of(self, rank: int) -> int:
        """How often a client comes. rank: 1 is the most frequent client."""
        often = int((self.clients / rank) ** (1 / self.tail))
        return max(1, min(often, int(self.seconds / VISIT_SECONDS)))

    def classes(self) -> Iterator[tuple[int, range]]:
        """The classes and the ranks of their clients, the rarest clients first."""
        last, number = self.clients, 0
        while last:
            first = int(self.clients * 2.0 ** (-(number + 1) * self.tail))
            if 2 ** (number + 1) * VISIT_SECONDS > self.seconds:
                first = 0
            yield number, range(first + 1, last + 1)
            last, number = first, number + 1

    def chosen(self, number: int, ranks: range) -> int:
        """How many clients of a class are simulated."""
        if not self.sample:
            return len(ranks)
        return min(len(ranks), max(LEAST_SAMPLE, self.sample >> number))

    def simulated(self) -> int:
        """Of all clients."""
        return sum(self.chosen(number, ranks) for number, ranks in self.classes())

    def run(self, hosts: Sequence[int], rules: Rules, since: float, *, ordered: bool = False) -> list[Counts]:
        """Simulate clusters of these numbers of hosts, all with the same visits."""
        total = [Counts(number, since, self.seconds) for number in hosts]
        for number, ranks in self.classes():
            chance = random.Random(f"{self.seed} {self.clients} {number} {self.sample}").random
            chosen = self.chosen(number, ranks)
            part = [Counts(number, since, self.seconds) for number in hosts]
            for place in range(chosen):
                # one from the middle of each of `chosen` equal parts
                rank = ranks[(2 * place + 1) * len(ranks) // (2 * chosen)]
                times = [chance() * self.seconds for _ in range(self.visits_of(rank))]
                times.sort()
                where = [(time, chance()) for time in times]
                for counts in part:
                    count = counts.hosts
                    follow([(time, host_of(at, count, ordered=ordered)) for time, at in where], rules, counts)
            for counts, some in zip(total, part, strict=True):
                counts.add(some, len(ranks) / chosen)
        return total
