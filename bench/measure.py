"""Runs the rows: both screeners side by side, loaded in turn."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import cpu
from bench.fastscreen import Fastscreen
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import Row
from bench.screener import Screener

_LOAD_SECONDS = 120
# After the last client is gone: the log line and the MTA's closing of the channel are still to come.
_SETTLE_SECONDS = 0.5


@dataclass
class Sample:
    """One loading of one screener. CPU is in µs a connection, by process name; times to the client in µs."""

    cpu: dict[str, float]
    rate: float
    first_byte: tuple[int, int]
    end: tuple[int, int]

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass
class Result:
    """A row's samples by screener, in the order in which they were taken; or why there are none."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str = ""


def run(row: Row, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one row, A B A B ...; a row that cannot be measured says why."""
    result = Result(row)
    try:
        with contextlib.ExitStack() as stack:
            screeners: list[Screener] = []
            kinds: tuple[type[Screener], ...] = (Postscreen, Fastscreen)
            for kind in kinds:
                own = folder / f"{row.name}-{kind.name}"
                own.mkdir()
                screener = kind(own, row.settings)
                screener.prepare()
                stack.enter_context(_receiver(programs["receiver"], screener.mta_socket))
                stack.enter_context(screener.running())
                screeners.append(screener)
            for screener in screeners:
                _warm(row, screener, programs)
            for _ in range(rounds):
                for screener in screeners:
                    result.samples.setdefault(screener.name, []).append(_sample(row, screener, programs))
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


@contextlib.contextmanager
def _receiver(program: Path, path: Path) -> Iterator[None]:
    receiver = subprocess.Popen([program, path], stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 5
        while not path.exists():
            if receiver.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the receiver of the hand-off does not listen on {path}")
            time.sleep(0.01)
        yield
    finally:
        receiver.send_signal(signal.SIGTERM)
        taken = json.loads(receiver.communicate(timeout=10)[0])
        path.unlink(missing_ok=True)
    if taken["bad"]:
        raise BenchError(f"{taken['bad']} hand-offs were malformed")


def _load(
    row: Row, screener: Screener, programs: dict[str, Path], kind: str, count: int, together: int
) -> dict[str, Any]:
    arguments: Sequence[object] = (screener.port, kind, count, together, row.sources, _LOAD_SECONDS)
    command = [str(programs["load"]), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LOAD_SECONDS + 30)
    if result.returncode != 0:
        raise BenchError(f"load generator: {result.stderr.strip()}")
    outcome: dict[str, Any] = json.loads(result.stdout)
    for bad in ("busy", "failed"):
        if outcome[bad]:
            raise BenchError(f"{screener.name}: {outcome[bad]} of {count} clients: {bad}")
    if outcome["finished"] != count:
        raise BenchError(f"{screener.name}: only {outcome['finished']} of {count} clients in {_LOAD_SECONDS} s")
    return outcome


def _warm(row: Row, screener: Screener, programs: dict[str, Path]) -> None:
    """Let every address pass once, if the row is of known clients; then load once without counting."""
    if row.warm:
        _load(row, screener, programs, "known", row.sources, row.sources)
    _load(row, screener, programs, row.kind, min(2000, row.clients), row.together)


def _sample(row: Row, screener: Screener, programs: dict[str, Path]) -> Sample:
    time.sleep(_SETTLE_SECONDS)
    log_size = screener.log_size()
    before = screener.read_cpu()
    outcome = _load(row, screener, programs, row.kind, row.clients, row.together)
    time.sleep(_SETTLE_SECONDS)
    spent = cpu.used(before, screener.read_cpu())
    if row.outcome is not None and outcome[row.outcome] != row.clients:
        raise BenchError(f"{screener.name}: {outcome[row.outcome]} of {row.clients} clients: {row.outcome}")
    logged = screener.count_in_log(row.line, log_size)
    if logged != row.clients:
        said = row.line.decode().strip(": [")
        raise BenchError(f"{screener.name}: {logged} of {row.clients} clients were logged as {said!r}")
    return Sample(
        cpu={name: seconds * 1e6 / row.clients for name, seconds in spent.items()},
        rate=row.clients / outcome["seconds"],
        first_byte=(outcome["first_byte_p50"], outcome["first_byte_p99"]),
        end=(outcome["end_p50"], outcome["end_p99"]),
    )
