"""The same fastscreen with a history and without, in turn in one run: what does recording sessions cost?

    python -m bench.history [known new-deep]

Two things are limited, one by one. The ratio is that of all processes of the daemon except the recorder: what clients
and the MTA wait for. The recorder, a process that runs at the lowest priority and for which nothing waits, has its own
column and its own limit, in µs per session. Exit code 1: a row could not be measured, or is above a limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import measure, netns, programs
from bench.fastscreen import Fastscreen
from bench.measure import Sample
from bench.programs import BenchError
from bench.rows import ROWS, Row
from fastscreen.history.recorder import RecorderProcess

ON, OFF = "history", "no history"
RECORDER_LIMIT = 8.0  # µs per session
_BY_NAME = {row.name: row for row in ROWS if isinstance(row, Row)}


@dataclass(frozen=True)
class Limited:
    """A row, and how much the other processes may use with a history, compared with none."""

    row: Row
    ratio: float


LIMITED = {
    "known": Limited(_BY_NAME["known"], 1.02),
    "new-deep": Limited(_BY_NAME["new-deep"], 1.03),
}


class Recording(Fastscreen):
    """fastscreen with a history."""

    def configure(self) -> None:
        super().configure()
        with (self.folder / "fastscreen.toml").open("a") as file:
            file.write(f'[history]\npath = "{self.folder}/state/history"\n')


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description="Measure what a history costs.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: all): {', '.join(LIMITED)}")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side is loaded (default: 7)")
    parser.add_argument("--clients", type=int, help="upper limit for the clients of each round: a quick check")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(LIMITED):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(LIMITED)}")
    code = 0
    with tempfile.TemporaryDirectory(prefix="fastscreen-history-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
            print("| row | history, µs per session | no history | ratio, pair by pair | limit | recorder | limit |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            for row_name in options.rows or LIMITED:
                row = measure.smaller(LIMITED[row_name].row, options.clients)
                code |= _measure(replace(LIMITED[row_name], row=row), folder, built, options.rounds)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return code


def _measure(limited: Limited, folder: Path, built: dict[str, Path], rounds: int) -> int:
    row = limited.row
    sides = [
        measure.Side(ON, Recording(folder / f"{row.name}-on", row.settings), row.held),
        measure.Side(OFF, Fastscreen(folder / f"{row.name}-off", row.settings), row.held),
    ]
    result = measure.alternating(row, sides, folder, built, rounds)
    if result.problem:
        print(f"bench: {row.name}: {result.problem}", file=sys.stderr)
        return 1
    on, off = ([_others(sample) for sample in result.samples[key]] for key in (ON, OFF))
    recorder = median(_recorder(sample) for sample in result.samples[ON])
    ratios = [with_history / without for with_history, without in zip(on, off, strict=True)]
    shown = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    cells = [
        row.name,
        f"{median(on):.2f}",
        f"{median(off):.2f}",
        shown,
        f"{limited.ratio:g}",
        f"{recorder:.2f} µs",
        f"{RECORDER_LIMIT:g} µs",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    problems = []
    if median(ratios) > limited.ratio:
        problems.append(f"the ratio is above its limit ({limited.ratio:g})")
    if recorder > RECORDER_LIMIT:
        problems.append(f"the recorder is above its limit ({RECORDER_LIMIT:g} µs per session)")
    for problem in problems:
        print(f"bench: {row.name}: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _recorder(sample: Sample) -> float:
    """µs per session of the recorder; 0 would mean that nothing was recorded."""
    used = sample.cpu.get(RecorderProcess.NAME, 0.0)
    if not used:
        raise BenchError("the recorder has used no CPU time: is it running?")
    return used


def _others(sample: Sample) -> float:
    return sample.total - sample.cpu.get(RecorderProcess.NAME, 0.0)


if __name__ == "__main__":
    sys.exit(main())
