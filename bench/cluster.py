"""The same fastscreen with a cluster and without, in turn in one run: what does sharing passes cost this host?

    python -m bench.cluster [known new-1000 new-5000 offenses-1000 offenses-5000 stopped frozen slow]

All processes of the daemon are counted, the cluster process included, but not the server. In the rows `offenses-...`,
both daemons have a memory of offenses, and the one with a cluster shares it. The rows `stopped`, `frozen` and `slow`
are known clients at 2,000 per second while the server is in that state; for them the 99th percentile of the time to the
banner is compared, too. Exit code 1: a row could not be measured, or is above its limit.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import cluster_faults, limited
from bench.fastscreen import Fastscreen
from bench.limited import BY_NAME, Samples
from bench.measure import Sample
from bench.screener import Settings

ON, OFF = "cluster", "no cluster"
KINDS = ["passes", "offenses"]
COLUMNS = ("row", "cluster, µs per connection", "no cluster", "difference", "ratio, pair by pair", "limit")


@dataclass(frozen=True)
class Limited(limited.Limited):
    """A row, and how much the cluster may cost: as a ratio, or in µs per connection.

    fault: what is wrong with the server (cluster_faults.py). The ratio is then also that of the time to the banner.
    offenses: both sides have a memory of offenses; with a cluster, it is shared.
    """

    microseconds: float = 0.0
    fault: str = ""
    offenses: bool = False


_NEW = BY_NAME["new-greet"]
_NEW_5000 = replace(
    _NEW,
    name="new-5000",
    settings=Settings(greet_wait=1, limit=16_000, handoffs=8000, process_limit=10_000),
    clients=10_000,
    concurrent=10_000,
    rate=5000,
)
LIMITED = {
    "known": Limited(BY_NAME["known"], ratio=1.02),
    "new-1000": Limited(replace(_NEW, name="new-1000"), microseconds=40.0),
    "new-5000": Limited(_NEW_5000, microseconds=15.0),
    "offenses-1000": Limited(replace(_NEW, name="offenses-1000"), microseconds=40.0, offenses=True),
    "offenses-5000": Limited(replace(_NEW_5000, name="offenses-5000"), microseconds=15.0, offenses=True),
    **{
        fault: Limited(replace(BY_NAME["known"], name=fault, clients=10_000, rate=2000), ratio=1.03, fault=fault)
        for fault in cluster_faults.FAULTS
    },
}


class Remembering(Fastscreen):
    """fastscreen, with a memory of offenses or without one."""

    def __init__(self, folder: Path, settings: Settings, offenses: bool) -> None:
        super().__init__(folder, settings)
        self._offenses = offenses

    def configure(self) -> None:
        super().configure()
        if self._offenses:
            with (self.folder / "fastscreen.toml").open("a") as file:
                file.write(f'[score]\nmemory = "{self.folder}/state/offenses"\n')


class Clustered(Remembering):
    """fastscreen with a cluster. Its server runs as long as the daemon does; `fault` is what is wrong with it then."""

    def __init__(self, folder: Path, settings: Settings, fault: str, offenses: bool) -> None:
        super().__init__(folder, settings, offenses)
        self._fault = fault
        self._url = cluster_faults.URLS.get(fault, f"redis://127.0.0.1:{cluster_faults.PORT}")

    def configure(self) -> None:
        super().configure()
        secret = self.folder / "secret"
        secret.write_text("the secret of a benchmark\n")
        os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        with (self.folder / "fastscreen.toml").open("a") as file:
            file.write(f'[cluster]\nserver = "{self._url}"\nsecret_file = "{secret}"\nname = "bench"\n')
            if self._offenses:
                file.write(f"share = {KINDS}\naccept = {KINDS}\n")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with cluster_faults.server_with(self._fault) as server, super().running(), server.breaking():
            yield


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    return limited.main("cluster", "Measure what a cluster costs.", LIMITED, COLUMNS, _sides, _judge)


def _sides(row: Limited, folder: Path) -> dict[str, Fastscreen]:
    name, settings = row.row.name, row.row.settings
    return {
        ON: Clustered(folder / f"{name}-on", settings, row.fault, row.offenses),
        OFF: Remembering(folder / f"{name}-off", settings, row.offenses),
    }


def _judge(row: Limited, samples: Samples) -> int:
    code = _compared(row, "", samples, lambda sample: sample.total)
    if row.fault:
        code |= _compared(row, ", p99 to banner", samples, lambda each: each.first_byte["p99"])
    return code


def _compared(row: Limited, what: str, samples: Samples, value: Callable[[Sample], float]) -> int:
    """Print the values of both sides (µs)."""
    on, off = ([value(sample) for sample in samples[key]] for key in (ON, OFF))
    ratio, shown = limited.ratio_of(on, off)
    difference = median(with_cluster - without for with_cluster, without in zip(on, off, strict=True))
    limit = f"ratio {row.ratio:g}" if row.ratio else f"+{row.microseconds:g} µs"
    limited.print_line(
        [row.row.name + what, f"{median(on):.2f}", f"{median(off):.2f}", f"{difference:+.2f}", shown, limit]
    )
    if ratio > row.ratio if row.ratio else difference > row.microseconds:
        limited.complain(row, f"above its limit ({limit}){what}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
