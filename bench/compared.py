"""Common code of the rows that compare ways to connect a client to an MTA that reads the PROXY protocol."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import cpu
from bench.rows import Continue, Relay, Tls
from bench.server import Server

SETTLE_SECONDS = 1.5  # as in measure.py


@dataclass
class Sample:
    """One sample of one side. CPU is in µs per connection or MB, by process name; rate: connections per second."""

    cpu: dict[str, float]
    rate: float

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass
class Result:
    """A row's samples by side, in the order in which they were taken, or the reason why they are missing."""

    row: Relay | Continue | Tls
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str = ""


def take(result: Result, rounds: int, sides: Mapping[str, Callable[[], Sample]]) -> None:
    """Load each side in turn. The order changes, so that drift favors none."""
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result.samples.setdefault(name, []).append(sides[name]())


def counted(server: Server, load: Callable[[], float], connections: int, units: float) -> Sample:
    """Load a side. `load` returns how many seconds it took; CPU is shown per unit, and `units` is their number."""
    before = server.read_cpu()
    seconds = load()
    time.sleep(SETTLE_SECONDS)
    spent = cpu.used(before, server.read_cpu())
    return Sample({name: used * 1e6 / units for name, used in spent.items()}, connections / seconds)


@contextmanager
def ready(server: Server) -> Iterator[None]:
    """A newly prepared server, without its own MTA."""
    server.folder.mkdir()
    server.prepare()
    server.configure()
    with server.running():
        yield
