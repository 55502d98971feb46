"""The cache at full size: files of 10,000 to 10 million clients, each measured by a separate process."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.micro import cachefile
from bench.micro.lookups import write_clients
from bench.micro.samples import absent, present
from bench.programs import BenchError

ROOT = Path(__file__).parents[2]
SIZES = (10_000, 1_000_000, 10_000_000)
LOOKUPS = 500_000  # of clients that are in the file, and as many of others
STORING_SECONDS = 16  # half of it without stores

# Aims: issue 3
START_S = 1.0
LOOKUP_US = 3.0
FLAT_MB = 2.0


def figures(
    folder: Path, sizes: Sequence[int] = SIZES, lookups: int = LOOKUPS, storing_seconds: int = STORING_SECONDS
) -> list[Figure]:
    """Build the files in `folder`, one at a time, and measure. What cannot be measured has the reason."""
    made: list[Figure] = []
    write_clients(folder / "known", present(), lookups)
    write_clients(folder / "unknown", absent(), lookups)
    for entries in sizes:
        path = folder / f"cache-{entries}"
        try:
            cachefile.build(path, entries)
            made += _opened(path, entries) + _looked_up(path, entries, lookups)
            if entries == max(sizes):
                made += _stored(path, entries, storing_seconds)
        except BenchError as error:
            made.append(_failed(entries, str(error)))
        finally:
            path.unlink(missing_ok=True)
            path.with_name(path.name + "-lock").unlink(missing_ok=True)
    return made


def _failed(entries: int, why: str) -> Figure:
    return Figure(
        f"cache-{entries}", f"cache of {entries:,} clients", math.nan, "", "measured", False, f"not measured: {why}"
    )


def _run(module: str, *arguments: object) -> dict[str, Any]:
    """Run a measuring program as a separate process; return what it prints."""
    command = [sys.executable, "-m", f"bench.micro.{module}", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        raise BenchError((result.stderr or result.stdout).strip().rpartition("\n")[2])
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


def _forget(path: Path) -> None:
    """Make the kernel drop a file from its page cache, as after a reboot. BenchError: it does not."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size // 2, os.RWF_NOWAIT)
        except BlockingIOError:
            return  # it would have to be read from the disk
        except OSError as error:
            raise BenchError(f"cannot determine whether the file is in memory: {error.strerror}") from error
    raise BenchError("the file stays in memory")


def _read(path: Path) -> None:
    """Load all of a file into memory, as on a machine that has run for a while."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def _opened(path: Path, entries: int) -> list[Figure]:
    made = []
    states: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
        ("start-cold", "start-up, file not in memory", _forget),
        ("start", "start-up, file in memory", _read),
    )
    for suffix, what, prepare in states:
        name, title, aim = f"cache-{entries}-{suffix}", f"cache of {entries:,} clients: {what}", f"≤ {START_S:g} s"
        try:
            prepare(path)
        except BenchError as error:
            made.append(Figure(name, title, math.nan, "s", aim, False, f"not measured: {error}"))
            continue
        seconds = _run("lookups", path, entries, 0)["start_s"]
        detail = (
            "Cache.open and start in a new process, including the check of the file by a child; "
            f"the file has {path.stat().st_size / 1e6:,.1f} MB"
        )
        made.append(Figure(name, title, seconds, "s", aim, seconds <= START_S, detail))
    return made


def _looked_up(path: Path, entries: int, lookups: int) -> list[Figure]:
    seen = _run("lookups", path, entries, lookups, path.with_name("known"), path.with_name("unknown"))
    if seen["found"] < 1:
        raise BenchError(f"only {seen['found']:.2%} of the clients in the file were found")
    made = []
    for name, title in (("known", "a client that is in it"), ("unknown", "a client that is not")):
        quantiles = seen[f"{name}_ns"]
        microseconds = quantiles["median"] / 1000
        made.append(
            Figure(
                f"cache-{entries}-{name}",
                f"cache of {entries:,} clients: lookup of {title}",
                microseconds,
                "µs",
                f"≤ {LOOKUP_US:g} µs",
                microseconds <= LOOKUP_US,
                f"median of {lookups:,} calls of Cache.lookup, 16 per read transaction, including decoding; "
                f"p99 {quantiles['p99'] / 1000:.1f} µs; {seen['clock_ns']} ns for reading the clock are subtracted",
            )
        )
    megabytes = seen["rss_growth"] / 1e6
    made.append(
        Figure(
            f"cache-{entries}-memory",
            f"cache of {entries:,} clients: growth of RssAnon",
            megabytes,
            "MB",
            f"flat: < {FLAT_MB:g} MB",
            megabytes < FLAT_MB,
            f"from before the file is opened until after {2 * lookups:,} lookups",
        )
    )
    return made


def _stored(path: Path, entries: int, seconds: int) -> list[Figure]:
    seen = _run("stores", path, seconds)
    if seen["not_in_file"] or seen["said"]:
        raise BenchError(
            f"{seen['not_in_file']} of {seen['stored']} stored clients are not in the file; {seen['said']}"
        )
    during = f"while {seen['stores_per_s']:,.0f} records per second are stored"
    made = []
    for name, title in (
        ("lookup", "p99 of a lookup"),
        ("wait", "p99 from an event to its four clients' records"),
    ):
        busy, quiet = seen[f"{name}_ns"], seen[f"quiet_{name}_ns"]
        made.append(
            Figure(
                f"cache-{entries}-storing-{name}",
                f"cache of {entries:,} clients: {title} {during}",
                busy["p99"] / 1000,
                "µs",
                "",
                None,
                f"median {busy['median'] / 1000:.1f} µs, maximum {busy['max'] / 1000:,.0f} µs; without stores: median "
                f"{quiet['median'] / 1000:.1f}, p99 {quiet['p99'] / 1000:.1f}, maximum {quiet['max'] / 1000:,.0f} µs; "
                f"all {seen['stored']:,} records were in the file afterwards",
            )
        )
    return made
