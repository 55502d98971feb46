"""A burst of new clients: which of them get the teaser, and when."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import clients
from bench.clients import ClientGroup
from bench.fastscreen import Fastscreen
from bench.measure import need_descriptors, started
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import Burst
from bench.screener import Screener

_FIRST = "127.8.0.1"


@dataclass
class Sample:
    """One burst. Times from connect() to the teaser, in µs, of those that got it."""

    greeted: int
    within_second: int
    turned_away: int  # with 421
    p50: int
    p99: int
    max: int
    begun_in: float  # s that the load needed for all connects


@dataclass
class Result:
    """The bursts by screener, or the reason why they are missing."""

    row: Burst
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str = ""


def run(row: Burst, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure: each screener in turn gets one burst per round."""
    result = Result(row)
    tuned = replace(row.settings, process_limit=row.tuned_process_limit)
    sides: dict[str, Screener] = {
        f"postscreen, process limit {row.settings.process_limit} (default)": Postscreen(
            folder / f"{row.name}-default", row.settings
        ),
        f"postscreen, process limit {tuned.process_limit:,}": Postscreen(folder / f"{row.name}-tuned", tuned),
        "fastscreen": Fastscreen(folder / f"{row.name}-fastscreen", row.settings),
    }
    try:
        need_descriptors(row.clients)
        with contextlib.ExitStack() as stack:
            for screener in sides.values():
                screener.folder.mkdir()
                screener.prepare()
                stack.enter_context(started(screener, programs))
            for _ in range(min(rounds, row.rounds)):
                for name, screener in sides.items():
                    result.samples.setdefault(name, []).append(_sample(row, screener, programs))
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def _sample(row: Burst, screener: Screener, programs: dict[str, Path]) -> Sample:
    """One burst of clients, each with its own address; then wait until the screener has seen them leave."""
    group = ClientGroup(
        "silent",
        row.clients,
        concurrent=row.clients,
        rate=row.clients,
        sources=row.clients,
        first=_FIRST,
        seconds=row.seconds,
    )
    outcome = clients.load(group, screener, programs["load"])
    if outcome["failed"]:
        raise BenchError(f"load generator: {outcome['failed']} of {row.clients} clients could not connect")
    screener.wait_until_idle()
    times = outcome["first_byte"]
    return Sample(
        greeted=outcome["complete"],
        within_second=times["within_second"],
        turned_away=outcome["busy"],
        p50=times.get("p50", 0),
        p99=times.get("p99", 0),
        max=times.get("max", 0),
        begun_in=outcome["begun_in"],
    )
