"""One process that opens a cache and looks up clients, as a screener does. Prints what it saw as JSON.

`python -m bench.micro.lookups CACHE ENTRIES COUNT [KNOWN UNKNOWN]`; COUNT 0: the cache is only opened.

It keeps what it needs for measuring in maps, not on the heap: LMDB's lists for writing, 3 MB of which nothing is used
here, are memory that is only reserved while malloc takes them from the kernel, and malloc stops doing that in a process
that has freed something larger.
"""

import gc
import json
import mmap
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from bench.micro.samples import present
from fastscreen.cache.lmdb_cache import LmdbCache

BATCH = 16  # look-ups a read transaction: clients of one batch of events
_SLOT = 17  # bytes per client in a buffer: the size of its key, the key


def rss_anon() -> int:
    """This process's memory that is not backed by a file, in bytes (proc(5), RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status")


def write_clients(path: Path, clients: Iterable[bytes], count: int) -> None:
    """Write the first `count` of some keys, as `look_up` takes them."""
    with path.open("wb") as file:
        file.writelines(bytes([len(key)]) + key.ljust(_SLOT - 1, b"\0") for key in islice(clients, count))


def look_up(cache: LmdbCache, clients: mmap.mmap, number: int, times: "memoryview[int]") -> int:
    """Look up the first `number` clients, again and again; record the ns of each lookup; return how many were known.

    As in the core, the key is cut out of a buffer and the record is taken apart. That the core then makes five C
    integers of it is not in the time: nothing in Python does that without costing many times as much.
    """
    clock = time.perf_counter_ns
    lookup = cache.lookup
    found = at = 0
    for turn in range(len(times)):
        size = clients[at]
        began = clock()
        stamps = lookup(clients[at + 1 : at + 1 + size])
        if stamps is not None:
            _pregreet, _dnsbl, _pipelining, *_others = stamps
            found += 1
        times[turn] = clock() - began
        at += _SLOT
        if at == number * _SLOT:
            at = 0
        if turn % BATCH == BATCH - 1:
            cache.end_batch()
    cache.end_batch()
    return found


def times_for(count: int) -> "memoryview[int]":
    """An array for this many times, with all its pages already in memory."""
    octets = mmap.mmap(-1, 8 * count)
    for _ in range(count):
        octets.write(b"\1" * 8)
    return memoryview(octets).cast("q")


def clients_of(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def clock_ns() -> int:
    """What reading the clock adds to a time."""
    clock = time.perf_counter_ns
    times = sorted(-(clock() - clock()) for _ in range(100_001))
    return times[len(times) // 2]


def quantiles(times: Iterable[int], clock: int = 0) -> dict[str, float]:
    """Median, 99th percentile and maximum, each without `clock`."""
    ordered = sorted(times)
    return {
        "median": ordered[len(ordered) // 2] - clock,
        "p99": ordered[len(ordered) * 99 // 100] - clock,
        "max": ordered[-1] - clock,
    }


def main(path: str, entries: int, count: int, known: str = "", unknown: str = "") -> dict[str, object]:
    """Open a cache of `entries` clients; look up `count` of them, then as many others."""
    said: list[str] = []
    first = next(present())
    if count:
        known_clients, known_times = clients_of(Path(known)), times_for(count)
        unknown_clients, unknown_times = clients_of(Path(unknown)), times_for(count)
    gc.collect()
    before = rss_anon()
    began = time.perf_counter()
    cache = LmdbCache(
        path, warn=said.append, log=said.append, wake=lambda call: call(), cleanup_interval=0, max_size=1 << 34
    )
    cache.open()
    cache.start()
    start = time.perf_counter() - began
    if cache.lookup(first) is None or said:
        raise SystemExit(f"not a cache that can be measured: {said}")
    cache.end_batch()
    if not count:
        cache.close()
        return {"start_s": start}
    found = look_up(cache, known_clients, min(count, entries), known_times)
    strangers = look_up(cache, unknown_clients, count, unknown_times)
    growth = rss_anon() - before
    cache.close()
    clock = clock_ns()
    return {
        "start_s": start,
        "found": found / count,
        "strangers_found": strangers / count,
        "known_ns": quantiles(known_times, clock),
        "unknown_ns": quantiles(unknown_times, clock),
        "clock_ns": clock,
        "rss_growth": growth,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
