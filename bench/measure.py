"""Runs the rows: both screeners run at the same time and are loaded in turn."""

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import clients, cpu, lists
from bench.clients import ClientGroup
from bench.fastscreen import Fastscreen
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import Row
from bench.screener import Screener

UNHELD = "fastscreen, none held"
"""The key for the samples of a third screener that holds no clients: is the cost of held clients flat?"""

# After the last client has left, these are still to come: its log line, the MTA's closing of the channel, fastscreen's
# commit of new passes (once per second), and the DNS server's statistics (once per second).
_SETTLE_SECONDS = 1.5
_WARM_CLIENTS = 500
_HOLD_WAIT = 1800  # greet wait of the silent clients, in s: longer than a row takes
_QUESTIONS_ASTRAY = (
    0.01  # part of those to DNS lists: postscreen leaves some out, both ask again when they hear nothing
)
_HELD_TOGETHER = 15_000  # clients that one process of the load generator holds
_OTHER_DESCRIPTORS = 2000  # of a screener that holds clients: hand-offs, and its own


@dataclass
class Sample:
    """One sample of one screener. CPU is in µs per connection, by process name; times for the client are in µs."""

    cpu: dict[str, float]
    rate: float
    first_byte: dict[str, int]
    end: dict[str, int]

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass
class Result:
    """A row's samples by screener, in the order in which they were taken, or the reason why they are missing."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str = ""


@dataclass
class Side:
    """One screener of a row. key: for its samples. held: silent clients that it holds all the time."""

    key: str
    screener: Screener
    held: int


def run(row: Row, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one row, A B A B ...; a row that cannot be measured has the reason."""
    sides = [
        Side("postscreen", Postscreen(folder / f"{row.name}-postscreen", row.settings), row.held),
        Side("fastscreen", Fastscreen(folder / f"{row.name}-fastscreen", row.settings), row.held),
    ]
    if row.held:
        sides.append(Side(UNHELD, Fastscreen(folder / f"{row.name}-unheld", row.settings), 0))
    return alternating(row, sides, folder, programs, rounds)


def alternating(row: Row, sides: list["Side"], folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure these screeners with the clients of one row, each once in every round."""
    result = Result(row)
    try:
        need_descriptors(row.held, row.settings.workers)
        with contextlib.ExitStack() as stack:
            asked = stack.enter_context(lists.running(folder / f"{row.name}-lists")) if row.settings.lists else None
            for side in sides:
                side.screener.folder.mkdir()
                side.screener.prepare()
                if not row.new and row.kind == "pass":
                    _make_known(row, side.screener, programs)
                side.screener.settings = replace(row.settings, greet_wait=_HOLD_WAIT) if row.held else row.settings
                stack.enter_context(started(side.screener, programs))
                _warm(row, side.screener, programs)
            time.sleep(_SETTLE_SECONDS)
            for side in sides:
                if side.held:
                    for before in range(0, side.held, _HELD_TOGETHER):
                        group = clients.held("silent", min(_HELD_TOGETHER, side.held - before), before)
                        stack.enter_context(clients.holding(group, side.screener, programs["load"]))
            for _ in range(rounds):
                for side in sides:
                    sample = _sample(row, side.screener, programs, asked)
                    result.samples.setdefault(side.key, []).append(sample)
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def smaller(row: Row, clients: int | None) -> Row:
    """The row with at most this many clients, for a quick check."""
    if clients is None:
        return row
    return replace(row, clients=min(row.clients, clients), held=min(row.held, clients))


@contextlib.contextmanager
def started(screener: Screener, programs: dict[str, Path]) -> Iterator[None]:
    """A screener, prepared and running, with a receiver for its hand-offs."""
    screener.configure()
    with clients.receiver(programs["receiver"], screener.mta_socket), screener.running():
        yield


def need_descriptors(held: int, workers: int = 1) -> None:
    """BenchError unless each worker, and each load generator, may hold its part of this many clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(-(-held // workers), min(held, _HELD_TOGETHER)) + _OTHER_DESCRIPTORS
    if held and hard < needed:
        raise BenchError(f"the limit on open files is {hard} (ulimit -Hn), {needed} are needed")


def _group(row: Row, screener: Screener, count: int) -> ClientGroup:
    if row.new:
        return clients.new(screener, row.kind, count, row.concurrent, row.rate)
    return ClientGroup(row.kind, count, row.concurrent, row.rate, row.sources)


def _make_known(row: Row, screener: Screener, programs: dict[str, Path]) -> None:
    """Let every address pass once, then stop the screener, so that its cache is written."""
    with started(screener, programs):
        kind = "deep" if row.settings.deep else "pass"
        group = ClientGroup(kind, row.sources, row.sources, sources=row.sources)
        clients.check(clients.load(group, screener, programs["load"]), screener)


def _warm(row: Row, screener: Screener, programs: dict[str, Path]) -> None:
    """Load once without counting."""
    group = _group(row, screener, min(_WARM_CLIENTS, row.clients))
    outcome = clients.load(group, screener, programs["load"])
    clients.check(outcome, screener, group.count if row.refused else 0)


def _sample(row: Row, screener: Screener, programs: dict[str, Path], asked: lists.Lists | None) -> Sample:
    log_size = screener.log_size()
    questions = asked.asked() if asked else 0
    before = screener.read_cpu()
    outcome = clients.load(_group(row, screener, row.clients), screener, programs["load"])
    time.sleep(_SETTLE_SECONDS)
    spent = cpu.used(before, screener.read_cpu())
    clients.check(outcome, screener, row.clients if row.refused else 0)
    logged = screener.count_in_log(row.line, log_size)
    if logged != row.clients:
        said = row.line.decode().strip(": [")
        raise BenchError(f"{screener.name}: {logged} of {row.clients} clients were logged as {said!r}")
    if asked:
        had, due = asked.asked() - questions, row.clients * len(row.settings.lists)
        if abs(had - due) > due * _QUESTIONS_ASTRAY:
            raise BenchError(f"{screener.name}: {had} questions to the DNS lists instead of {due}")
    return Sample(
        cpu={name: seconds * 1e6 / row.clients for name, seconds in spent.items()},
        rate=row.clients / outcome["seconds"],
        first_byte=_times(outcome["first_byte"]),
        end=_times(outcome["end"]),
    )


def _times(outcome: dict[str, Any]) -> dict[str, int]:
    return {name: outcome[name] for name in ("p50", "p99", "max")}
