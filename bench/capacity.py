"""fastscreen at the sizes of docs/sizing.md: 30,000 held clients on two workers, and a million cached clients.

    python -m bench.capacity [held-30000 cached-million]

Each row loads known clients on a daemon of this size and on a small one, in turn. It needs root and, for the held
clients, a limit on open files of 17,000 (ulimit -Hn): each worker and each load generator holds half of them. Exit code
1: a row could not be measured, or is above its limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import cpu, limited, measure, netns, programs
from bench.fastscreen import Fastscreen
from bench.limited import BY_NAME
from bench.measure import Side
from bench.micro import cachefile
from bench.programs import BenchError
from bench.rows import FLAT_AIM, Row

LARGE, SMALL = "large", "small"
_LIMIT = 36_000  # limits.pre_queue: stress mode begins at nine tenths of it
_COLUMNS = ("row", "this size, µs per connection", "small", "ratio, pair by pair", "limit", "memory, cache file")


@dataclass(frozen=True)
class Capacity:
    """A row. cached: clients in the cache of one side. ratio: the limit of its CPU time to that of the other side."""

    row: Row
    ratio: float
    cached: int = 0


_KNOWN = BY_NAME["known"]
CAPACITIES = {
    "held-30000": Capacity(
        replace(
            BY_NAME["held-14000"],
            name="held-30000",
            title="known client while 30,000 silent clients are held by two workers",
            settings=replace(BY_NAME["held-14000"].settings, workers=2, limit=_LIMIT),
            held=30_000,
        ),
        FLAT_AIM,
    ),
    "cached-million": Capacity(
        replace(_KNOWN, name="cached-million", title="known client, and a million others in the cache"),
        FLAT_AIM,
        cached=1_000_000,
    ),
}


class Measured(Fastscreen):
    """fastscreen with a cache file of this size before its first start. memory: RssAnon of all its processes, in kB."""

    def __init__(self, folder: Path, row: Row, cached: int = 0) -> None:
        super().__init__(folder, row.settings)
        self._cached = cached
        self.memory = 0

    def prepare(self) -> None:
        super().prepare()
        if self._cached:
            path = self.folder / "state" / "cache"
            cachefile.build(path, self._cached)
            for made in (path, path.with_name("cache-lock")):
                os.chown(made, self._user.pw_uid, self._user.pw_gid)

    def configure(self) -> None:
        """Without the cleanup that follows the start with a file that was never cleaned up."""
        super().configure()
        path = self.folder / "fastscreen.toml"
        path.write_text(path.read_text().replace("[cache]\n", "[cache]\ncleanup_interval = 0\n"))

    def read_cpu(self) -> cpu.Reading:
        self.memory = self.held_memory()
        return super().read_cpu()

    def cache_size(self) -> int:
        """Of the file on the disk, in bytes."""
        return (self.folder / "state" / "cache").stat().st_blocks * 512


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity", description="Measure the sizes of docs/sizing.md."
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: all): {', '.join(CAPACITIES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is loaded (default: 5)")
    parser.add_argument("--clients", type=int, help="upper limit for clients, held and cached ones: a quick check")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(CAPACITIES):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(CAPACITIES)}")
    code = 0
    with tempfile.TemporaryDirectory(prefix="fastscreen-capacity-", dir="/tmp") as created:
        folder = Path(created)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
            limited.print_line(_COLUMNS)
            limited.print_line(["---"] * len(_COLUMNS))
            for name in options.rows or CAPACITIES:
                code |= _measured(_smaller(CAPACITIES[name], options.clients), folder, built, options.rounds)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return code


def _smaller(capacity: Capacity, clients: int | None) -> Capacity:
    if clients is None:
        return capacity
    return replace(capacity, row=measure.smaller(capacity.row, clients), cached=min(capacity.cached, clients))


def _measured(capacity: Capacity, folder: Path, built: dict[str, Path], rounds: int) -> int:
    row = capacity.row
    large = Measured(folder / f"{row.name}-large", row, capacity.cached)
    small = Measured(folder / f"{row.name}-small", row)
    sides = [Side(LARGE, large, row.held), Side(SMALL, small, 0)]
    result = measure.alternating(row, sides, folder, built, rounds)
    if result.problem:
        print(f"bench: {row.name}: {result.problem}", file=sys.stderr)
        return 1
    of_large, of_small = ([sample.total for sample in result.samples[key]] for key in (LARGE, SMALL))
    ratio, shown = limited.ratio_of(of_large, of_small)
    about = f"{large.cache_size() / 1e6:.0f} MB on disk"
    if row.held:
        per_client = (large.memory - small.memory) / row.held
        about = f"{per_client:.2f} kB per held client"
    cells = [row.title, f"{median(of_large):.1f}", f"{median(of_small):.1f}", shown, f"{capacity.ratio:g}", about]
    limited.print_line(cells)
    if ratio <= capacity.ratio:
        return 0
    print(f"bench: {row.name}: the ratio is above its limit ({capacity.ratio:g})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
