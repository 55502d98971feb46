"""Memory of held clients: the growth of RssAnon of the processes that hold them, in newly started screeners."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import clients
from bench.fastscreen import Fastscreen
from bench.measure import need_descriptors, started
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import Memory
from bench.screener import Screener

# What a process allocates once, with its first clients, is not counted. Few clients: their own memory is reused.
_WARM = 10


@dataclass
class Result:
    """kB per client by screener, one value per round, or the reason why they are missing."""

    row: Memory
    samples: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""


def run(row: Memory, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one kind of held client, A B A B ..., each time in a new process."""
    result = Result(row)
    kinds: tuple[type[Screener], ...] = (Postscreen, Fastscreen)
    try:
        need_descriptors(row.clients)
        for number in range(min(rounds, row.rounds)):
            for kind in kinds:
                screener = kind(folder / f"{row.name}-{kind.name}-{number}", row.settings)
                result.samples.setdefault(kind.name, []).append(_sample(row, screener, programs))
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def _sample(row: Memory, screener: Screener, programs: dict[str, Path]) -> float:
    with contextlib.ExitStack() as stack:
        screener.folder.mkdir()
        screener.prepare()
        stack.enter_context(started(screener, programs))
        with clients.holding(clients.held(row.kind, min(_WARM, row.clients)), screener, programs["load"]):
            pass
        screener.wait_until_idle()
        before = screener.held_memory()
        with clients.holding(clients.held(row.kind, row.clients), screener, programs["load"]):
            time.sleep(0.5)
            grown = screener.held_memory() - before
    return grown / row.clients
