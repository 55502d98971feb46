"""What the rows have in common that compare ways of bringing a client to an MTA that reads the PROXY protocol."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import cpu
from bench.rows import Continued, Relayed, Secured
from bench.server import Server

SETTLE_SECONDS = 1.5  # as in measure.py


@dataclass
class Sample:
    """One loading of one side. CPU is in µs a connection or an MB, by process name; rate: of connections, a second."""

    cpu: dict[str, float]
    rate: float

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass
class Result:
    """A row's samples by side, in the order in which they were taken; or why there are none."""

    row: Relayed | Continued | Secured
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str = ""


def take(result: Result, rounds: int, sides: Mapping[str, Callable[[], Sample]]) -> None:
    """Load each side in turn; who is first changes, so that what drifts favours none."""
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result.samples.setdefault(name, []).append(sides[name]())


def counted(server: Server, load: Callable[[], float], connections: int, units: float) -> Sample:
    """Load a side. `load` returns how many seconds it took; `units` are what CPU is shown of, in all."""
    before = server.read_cpu()
    seconds = load()
    time.sleep(SETTLE_SECONDS)
    spent = cpu.used(before, server.read_cpu())
    return Sample({name: used * 1e6 / units for name, used in spent.items()}, connections / seconds)


@contextmanager
def ready(server: Server) -> Iterator[None]:
    """A server, from nothing, with no MTA of its own."""
    server.folder.mkdir()
    server.prepare()
    server.configure()
    with server.running():
        yield
