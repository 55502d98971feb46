"""The same fastscreen with a history and without, in turn in one run: what does recording sessions cost?

    python -m bench.history [known new-deep]

Two things are limited, one by one. The ratio is that of all processes of the daemon except the recorder: what clients
and the MTA wait for. The recorder, a process that runs at the lowest priority and for which nothing waits, has its own
column and its own limit, in µs per session. Exit code 1: a row could not be measured, or is above a limit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from bench import limited
from bench.fastscreen import Fastscreen
from bench.limited import BY_NAME, Limited, Samples
from bench.measure import Sample
from bench.programs import BenchError
from fastscreen.history.recorder import RecorderProcess

ON, OFF = "history", "no history"
RECORDER_LIMIT = 8.0  # µs per session
LIMITED = {"known": Limited(BY_NAME["known"], 1.02), "new-deep": Limited(BY_NAME["new-deep"], 1.03)}
COLUMNS = ("row", "history, µs per session", "no history", "ratio, pair by pair", "limit", "recorder", "limit")


class Recording(Fastscreen):
    """fastscreen with a history."""

    def configure(self) -> None:
        super().configure()
        with (self.folder / "fastscreen.toml").open("a") as file:
            file.write(f'[history]\npath = "{self.folder}/state/history"\n')


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    return limited.main("history", "Measure what a history costs.", LIMITED, COLUMNS, _sides, _judge)


def _sides(row: Limited, folder: Path) -> dict[str, Fastscreen]:
    name, settings = row.row.name, row.row.settings
    return {ON: Recording(folder / f"{name}-on", settings), OFF: Fastscreen(folder / f"{name}-off", settings)}


def _judge(row: Limited, samples: Samples) -> int:
    on, off = ([_others(sample) for sample in samples[key]] for key in (ON, OFF))
    recorder = median(_recorder(sample) for sample in samples[ON])
    ratio, shown = limited.ratio_of(on, off)
    limits = f"{row.ratio:g}", f"{RECORDER_LIMIT:g} µs"
    cells = [row.row.name, f"{median(on):.2f}", f"{median(off):.2f}", shown, limits[0], f"{recorder:.2f} µs", limits[1]]
    limited.print_line(cells)
    problems = []
    if ratio > row.ratio:
        problems.append(f"the ratio is above its limit ({row.ratio:g})")
    if recorder > RECORDER_LIMIT:
        problems.append(f"the recorder is above its limit ({RECORDER_LIMIT:g} µs per session)")
    for problem in problems:
        limited.complain(row, problem)
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
