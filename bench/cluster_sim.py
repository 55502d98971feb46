"""How much a cluster saves, and what it costs: hosts that share passes through a Valkey or Redis server, simulated."""

from __future__ import annotations

import argparse
import json
import random
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench import cluster_sizes
from bench.cluster_model import DAY, HOSTS_MAX, Counts, Crowd, Rules, follow, host_of
from bench.programs import BenchError
from fastscreen.core import TESTS, cache_key_of

HOSTS = "2,5,10,20,50"
CLIENTS = "1e6,1e7,1e8"
_PREFIXES = (32, 64)  # cache.prefix_*: IPv6 clients are /64 networks

EPILOG = """\
recorded clients: one JSON object per line, as printed by `fastscreen events --json` or written to a JSON log.
"time" is a number (s since 1970) or RFC 3339 text; the client's address is in "ip", "address" or "client".
In lines with "kind" or "event", only "connect" counts. Other lines are ignored.

example: fastscreen events --json > clients.json; python -m bench.cluster_sim --replay clients.json --hosts 3
"""

HEAD = (
    "clients",
    "hosts",
    "visits per s",
    "tested, no cluster",
    "of these, known elsewhere",
    "tested, cluster",
    "hit ratio",
    "look-ups per s and host",
    "look-ups per s",
    "stores per s",
    "to server, kB/s",
    "from server, kB/s",
    "passes stored",
    "server memory, MB",
    "delay saved, h per day",
)


@dataclass(frozen=True)
class Row:
    """What a cluster of so many hosts does. Rates are per second, shares are of 1."""

    clients: int
    hosts: int
    visits: float
    tested_alone: float
    known_elsewhere: float
    tested: float
    hit_ratio: float
    looked_up_host: float
    looked_up: float
    stores: float
    to_server: float
    from_server: float
    passes: float
    memory: float
    saved: float

    def cells(self) -> list[str]:
        """As in the table."""
        return [
            f"{self.clients:,}",
            str(self.hosts),
            _short(self.visits),
            f"{self.tested_alone:.1%}",
            f"{self.known_elsewhere:.1%}",
            f"{self.tested:.1%}",
            f"{self.hit_ratio:.1%}",
            _short(self.looked_up_host),
            _short(self.looked_up),
            _short(self.stores),
            _short(self.to_server / 1000),
            _short(self.from_server / 1000),
            f"{self.passes:,.0f}",
            _short(self.memory / 1e6),
            _short(self.saved / 3600),
        ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def summary(
    clients: int, counts: Counts, rules: Rules, failing: float, pass_bytes: float, *, ordered: bool = False
) -> Row:
    """The row of what was counted. failing: share of the clients that never pass, and are otherwise like the others.

    ordered: the first host is the busiest one.
    """
    seconds = max(counts.until - counts.since, 1)
    visits = sum(counts.visits)
    looked_up = [
        ((1 - failing) * passing + failing * every) / seconds
        for passing, every in zip(counts.looked_up, counts.visits, strict=True)
    ]
    tested_alone = (1 - failing) * counts.tested_alone + failing * visits
    hit_ratio = _ratio((1 - failing) * counts.hits / seconds, sum(looked_up))
    stores = (1 - failing) * counts.stores / seconds
    traffic = cluster_sizes.traffic(looked_up, hit_ratio, stores, rules)
    passes = (1 - failing) * counts.most_stored()
    return Row(
        clients=clients,
        hosts=counts.hosts,
        visits=visits / seconds,
        tested_alone=_ratio(tested_alone, visits),
        known_elsewhere=_ratio((1 - failing) * counts.known_elsewhere, tested_alone),
        tested=_ratio((1 - failing) * counts.tested + failing * visits, visits),
        hit_ratio=hit_ratio,
        # Those of equal preference differ only by chance, which a sample exaggerates.
        looked_up_host=looked_up[0] if ordered else sum(looked_up) / len(looked_up),
        looked_up=sum(looked_up),
        stores=stores,
        to_server=traffic.to_server,
        from_server=traffic.from_server,
        passes=passes,
        memory=passes * pass_bytes,
        saved=(1 - failing) * (counts.delay_alone - counts.delay) / seconds * DAY,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# ---- recorded clients


def recorded(lines: Iterable[str]) -> dict[bytes, array[float]]:
    """The times of each client's visits, in order, from JSON lines."""
    found: dict[bytes, array[float]] = {}
    for line in lines:
        try:
            visit = json.loads(line)
        except ValueError:
            continue
        if not isinstance(visit, dict) or visit.get("kind", visit.get("event", "connect")) != "connect":
            continue
        address = visit.get("ip") or visit.get("address") or visit.get("client")
        try:
            time, key = _seconds(visit.get("time")), cache_key_of(str(address), _PREFIXES)
        except ValueError:
            continue
        found.setdefault(key, array("d")).append(time)
    return {key: array("d", sorted(times)) for key, times in found.items()}


def _seconds(time: object) -> float:
    if isinstance(time, str):
        return datetime.fromisoformat(time).timestamp()
    if isinstance(time, int | float) and not isinstance(time, bool):
        return float(time)
    raise ValueError


def replay(
    clients: dict[bytes, array[float]], hosts: Sequence[int], rules: Rules, warm_up: float, seed: int, *, ordered: bool
) -> list[Counts]:
    """Follow recorded clients to clusters of these numbers of hosts; all of them pass."""
    first = min(times[0] for times in clients.values())
    until = max(times[-1] for times in clients.values()) - first + rules.wait
    found = [Counts(number, warm_up, until) for number in hosts]
    chance = random.Random(seed).random
    for times in clients.values():
        where = [(time - first, chance()) for time in times]
        for counts in found:
            number = counts.hosts
            follow([(time, host_of(at, number, ordered=ordered)) for time, at in where], rules, counts)
    return found


# ---- the command


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rules = Rules(options.tests)
    failing = options.failing
    if failing is None:
        failing = 0.0 if options.replay else 0.5
    warm_up = options.warm_up
    if warm_up is None:
        warm_up = 0.0 if options.replay else 1.0
    try:
        pass_bytes: float = cluster_sizes.PASS_BYTES
        if options.measure:
            pass_bytes = _measured(rules)
        rows = _rows(options, rules, failing, warm_up * DAY, pass_bytes)
        print(f"| {' | '.join(HEAD)} |")
        print(f"| {' | '.join('---' for _ in HEAD)} |")
        for row in rows:
            print(f"| {' | '.join(row.cells())} |", flush=True)
        if not options.replay:
            _tell_samples(options, warm_up)
    except (BenchError, OSError) as error:
        print(f"cluster_sim: {error}", file=sys.stderr)
        return 1
    return 0


def _measured(rules: Rules) -> float:
    """Print what a pass needs in a real server; return the bytes of memory of an IPv6 client's."""
    for kind, size in (("IPv4", 4), ("IPv6", 17)):
        found = cluster_sizes.measure(rules, size)
        print(
            f"{kind} client: key {len(cluster_sizes.key_of(bytes(size)))} bytes, value "
            f"{len(cluster_sizes.value_of(rules))} bytes, MEMORY USAGE {found.one} bytes; used_memory grows by "
            f"{found.each:.0f} bytes per pass; a look-up takes {found.cpu * 1e6:.0f} µs of the server's CPU"
        )
    print()
    return found.each


def _tell_samples(options: argparse.Namespace, warm_up: float) -> None:
    print()
    for crowd in _crowds(options, warm_up * DAY):
        print(f"{crowd.clients:,} clients: {crowd.simulated():,} of them simulated")


def _crowds(options: argparse.Namespace, warm_up: float) -> list[Crowd]:
    seconds = options.days * DAY + warm_up
    return [Crowd(number, seconds, options.seed, options.tail, options.sample) for number in options.clients]


def _rows(
    options: argparse.Namespace, rules: Rules, failing: float, warm_up: float, pass_bytes: float
) -> Iterator[Row]:
    ordered = options.mx == "ordered"
    if options.replay:
        with options.replay.open(errors="replace") as lines:
            clients = recorded(lines)
        if not clients:
            raise BenchError(f"{options.replay}: no clients found; expected JSON lines with time and ip")
        for counts in replay(clients, options.hosts, rules, warm_up, options.seed, ordered=ordered):
            yield summary(len(clients), counts, rules, failing, pass_bytes, ordered=ordered)
        return
    for crowd in _crowds(options, warm_up):
        for counts in crowd.run(options.hosts, rules, warm_up, ordered=ordered):
            yield summary(crowd.clients, counts, rules, failing, pass_bytes, ordered=ordered)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster_sim",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--hosts", type=_hosts, default=HOSTS, help="numbers of MX hosts (default: %(default)s)")
    add("--clients", type=_clients, default=CLIENTS, help="numbers of generated clients (default: %(default)s)")
    add("--replay", type=Path, metavar="FILE", help="use recorded clients instead of generated ones")
    add("--days", type=_positive, default=7, help="days that are counted, for generated clients (default: 7)")
    add(
        "--warm-up",
        type=_not_negative,
        metavar="DAYS",
        help="days before the counted ones, in which the caches fill (default: 1, with --replay 0)",
    )
    add("--seed", type=int, default=1, help="of the random numbers: the same seed prints the same table (default: 1)")
    add(
        "--tests",
        type=_tests,
        default="pregreet,dnsbl",
        help="enabled tests, whose passes last as long as by default: "
        + ", ".join(test.key for test in TESTS)
        + " (default: %(default)s)",
    )
    add(
        "--mx",
        choices=("equal", "ordered"),
        default="equal",
        help="hosts of equal MX preference, or one preference each: 90%% of the visits go to the first host, 90%% of "
        "the rest to the second one, and so on (default: equal)",
    )
    add(
        "--failing",
        type=_share,
        metavar="SHARE",
        help="share of the clients that never pass (default: 0.5, with --replay 0)",
    )
    add(
        "--tail",
        type=_positive,
        default=1.2,
        help="generated clients that come N times or more are N to the power of -TAIL of all (default: 1.2)",
    )
    add(
        "--sample",
        type=_sample,
        metavar="VISITS",
        default=20_000,
        help="visits to simulate of each class of generated clients; 0: all (default: 20000)",
    )
    add("--measure", action="store_true", help="measure the memory of a pass with redis-server")
    return parser


def _numbers(text: str, least: int, most: int) -> list[int]:
    numbers = [float(word) for word in text.split(",")]
    if any(not least <= number <= most or number != int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"expected numbers from {least} to {most:,}, separated by commas")
    return [int(number) for number in numbers]


def _hosts(text: str) -> list[int]:
    return _numbers(text, 1, HOSTS_MAX)


def _clients(text: str) -> list[int]:
    return _numbers(text, 1, 10**10)


def _tests(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    known = [test.key for test in TESTS]
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}")
    return names


def _not_negative(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1000:
        raise argparse.ArgumentTypeError("expected a number from 0 to 1000")
    return number


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) <= 1000:
        raise argparse.ArgumentTypeError("expected a number above 0, at most 1000")
    return number


def _share(text: str) -> float:
    if not 0 <= (number := float(text)) < 1:
        raise argparse.ArgumentTypeError("expected a number from 0 to below 1")
    return number


def _sample(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("expected a number of visits, or 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
