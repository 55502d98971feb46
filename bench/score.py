"""The same fastscreen with every scorer and the memory of offenses, and without, in turn in one run: what do they cost?

    python -m bench.score [known new-deep new-evidence]

A client of `new-deep` gives no evidence itself; one of `new-evidence` gives two kinds of it, each with a line in the
log, which is not limited. The memory has a record for each network that clients come from, and there is an AS table as
large as that of the Internet. The weights are so small that every client passes. The ratio is that of all processes of
the daemon except the one that writes the memory, which runs at the lowest priority and has its own column: nothing
waits for it. Exit code 1: a row could not be measured, or is above its limit.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import limited, offense_lookups
from bench.fastscreen import Fastscreen
from bench.limited import BY_NAME, Limited, Samples
from bench.measure import Sample
from bench.programs import BenchError
from bench.screener import Settings
from bench.tls import certificate
from fastscreen.core import SCORERS
from fastscreen.history.recorder import RecorderProcess

ON, OFF = "scored", "not scored"
_DEEP = BY_NAME["new-deep"]
_KNOWN = BY_NAME["known"]
LIMITED = {
    "known": Limited(replace(_KNOWN, settings=replace(_KNOWN.settings, deep=True)), 1.02),
    "new-deep": Limited(replace(_DEEP, kind="named"), 1.06),
    "new-evidence": Limited(replace(_DEEP, name="new-evidence")),
}
COLUMNS = ("row", "all scorers, µs per session", "none", "ratio, pair by pair", "limit", "memory")
AS_RANGES = 500_000
LOOPBACK = range(127 << 16, 128 << 16)  # networks
DAY = 86400


class Scoring(Fastscreen):
    """fastscreen with a weight for each scorer."""

    def configure(self) -> None:
        super().configure()
        state = self.folder / "state"
        owner = state.stat()
        offense_lookups.write(state / "offenses", LOOPBACK, int(time.time()) // DAY)
        for file in state.glob("offenses*"):
            os.chown(file, owner.st_uid, owner.st_gid)
        (self.folder / "as.csv").write_text(offense_lookups.as_lines(AS_RANGES))
        weights = [f"{scorer.key} = 1" for scorer in SCORERS[1:]]
        lines = [
            "[score]",
            'action = "enforce"',
            *weights,
            f'memory = "{state}/offenses"',
            f'as_file = "{self.folder}/as.csv"',
        ]
        text = (self.folder / "fastscreen.toml").read_text().replace("[dnsbl]", "[dnsbl]\nthreshold = 1000", 1)
        (self.folder / "fastscreen.toml").write_text(text + "\n".join(lines) + "\n")


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    return limited.main("score", "Measure what all scorers cost.", LIMITED, COLUMNS, _sides, _judge)


def _sides(row: Limited, folder: Path) -> dict[str, Fastscreen]:
    name = row.row.name
    settings: Settings = row.row.settings
    if name == "new-evidence":
        settings = replace(settings, tls=certificate(folder / f"{name}-certificate"))
    return {ON: Scoring(folder / f"{name}-on", settings), OFF: Fastscreen(folder / f"{name}-off", settings)}


def _judge(row: Limited, samples: Samples) -> int:
    on, off = ([_others(sample) for sample in samples[key]] for key in (ON, OFF))
    memory = median(_memory(sample) for sample in samples[ON])
    ratio, shown = limited.ratio_of(on, off)
    limited.print_line(
        [
            row.row.name,
            f"{median(on):.2f}",
            f"{median(off):.2f}",
            shown,
            f"{row.ratio:g}" if row.ratio else "",
            f"{memory:.2f} µs",
        ]
    )
    if row.ratio and ratio > row.ratio:
        limited.complain(row, f"the ratio is above its limit ({row.ratio:g})")
        return 1
    return 0


def _memory(sample: Sample) -> float:
    """µs per session of the process that writes the memory; 0 would mean that there is none."""
    used = sample.cpu.get(RecorderProcess.NAME, 0.0)
    if not used:
        raise BenchError("the memory's process has used no CPU time: is it running?")
    return used


def _others(sample: Sample) -> float:
    return sample.total - sample.cpu.get(RecorderProcess.NAME, 0.0)


if __name__ == "__main__":
    sys.exit(main())
