"""The same fastscreen with a cluster and without, in turn in one run: what does sharing passes cost this host?

    python -m bench.cluster [known new-1000 new-5000 stopped frozen slow]

All processes of the daemon are counted, the cluster process included, but not the server. The rows `stopped`, `frozen`
and `slow` are known clients at 2,000 per second while the server is in that state; for them the 99th percentile of the
time to the banner is compared, too. Exit code 1: a row could not be measured, or is above its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import cluster_faults, measure, netns, programs
from bench.fastscreen import Fastscreen
from bench.measure import Sample
from bench.programs import BenchError
from bench.rows import ROWS, Row
from bench.screener import Settings

ON, OFF = "cluster", "no cluster"
_BY_NAME = {row.name: row for row in ROWS if isinstance(row, Row)}


@dataclass(frozen=True)
class Limited:
    """A row, and how much the cluster may cost: as a ratio, or in µs per connection.

    fault: what is wrong with the server (cluster_faults.py). The ratio is then also that of the time to the banner.
    """

    row: Row
    ratio: float = 0.0
    microseconds: float = 0.0
    fault: str = ""


_NEW = _BY_NAME["new-greet"]
LIMITED = {
    "known": Limited(_BY_NAME["known"], ratio=1.02),
    "new-1000": Limited(replace(_NEW, name="new-1000"), microseconds=40.0),
    "new-5000": Limited(
        replace(
            _NEW,
            name="new-5000",
            settings=Settings(greet_wait=1, limit=16_000, handoffs=8000, process_limit=10_000),
            clients=10_000,
            concurrent=10_000,
            rate=5000,
        ),
        microseconds=15.0,
    ),
    **{
        fault: Limited(replace(_BY_NAME["known"], name=fault, clients=10_000, rate=2000), ratio=1.03, fault=fault)
        for fault in cluster_faults.FAULTS
    },
}


class Clustered(Fastscreen):
    """fastscreen with a cluster. Its server runs as long as the daemon does; `fault` is what is wrong with it then."""

    def __init__(self, folder: Path, settings: Settings, fault: str) -> None:
        super().__init__(folder, settings)
        self._fault = fault
        self._url = cluster_faults.URLS.get(fault, f"redis://127.0.0.1:{cluster_faults.PORT}")

    def configure(self) -> None:
        super().configure()
        secret = self.folder / "secret"
        secret.write_text("the secret of a benchmark\n")
        os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        with (self.folder / "fastscreen.toml").open("a") as file:
            file.write(f'[cluster]\nserver = "{self._url}"\nsecret_file = "{secret}"\nname = "bench"\n')

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with cluster_faults.server_with(self._fault) as server, super().running(), server.breaking():
            yield


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="Measure what a cluster costs.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: all): {', '.join(LIMITED)}")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side is loaded (default: 7)")
    parser.add_argument("--clients", type=int, help="upper limit for the clients of each round: a quick check")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(LIMITED):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(LIMITED)}")
    code = 0
    with tempfile.TemporaryDirectory(prefix="fastscreen-cluster-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
            print("| row | cluster, µs per connection | no cluster | difference | ratio, pair by pair | limit |")
            print("| --- | --- | --- | --- | --- | --- |")
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
        measure.Side(ON, Clustered(folder / f"{row.name}-on", row.settings, limited.fault), row.held),
        measure.Side(OFF, Fastscreen(folder / f"{row.name}-off", row.settings), row.held),
    ]
    result = measure.alternating(row, sides, folder, built, rounds)
    if result.problem:
        print(f"bench: {row.name}: {result.problem}", file=sys.stderr)
        return 1
    code = _compared(limited, row.name, result.samples, lambda sample: sample.total)
    if limited.fault:
        code |= _compared(limited, f"{row.name}, p99 to banner", result.samples, lambda each: each.first_byte["p99"])
    return code


def _compared(limited: Limited, name: str, samples: dict[str, list[Sample]], value: Callable[[Sample], float]) -> int:
    """Print the values of both sides (µs)."""
    on, off = ([value(sample) for sample in samples[key]] for key in (ON, OFF))
    ratios = [with_cluster / without for with_cluster, without in zip(on, off, strict=True)]
    difference = median(with_cluster - without for with_cluster, without in zip(on, off, strict=True))
    limit = f"ratio {limited.ratio:g}" if limited.ratio else f"+{limited.microseconds:g} µs"
    shown = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    cells = [name, f"{median(on):.2f}", f"{median(off):.2f}", f"{difference:+.2f}", shown, limit]
    print(f"| {' | '.join(cells)} |", flush=True)
    if median(ratios) > limited.ratio if limited.ratio else difference > limited.microseconds:
        print(f"bench: {name}: above its limit ({limit})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
