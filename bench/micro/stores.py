"""A loop that looks clients up while the writer thread commits: `python -m bench.micro.stores PATH SECONDS`.

Another process sends the time, 1,000 times per second. Each time, the loop looks up four clients in one batch, and in
the second half of the run it also stores five. It measures each look-up, and the time from the sending until the last
of the four results: this includes the wait for the interpreter, which the writer may hold. Prints the results as JSON.
"""

import json
import os
import subprocess
import sys
import time
from array import array
from itertools import islice

import uvloop

from bench.micro.lookups import clock_ns, quantiles
from bench.micro.samples import absent, present
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.stamps import DISABLED

RATE = 1000  # events per second
LOOKUPS, STORES = 4, 5  # an event
_STAMP = 8  # bytes

# Imports none of our modules, so that it uses as little of the two cores as possible.
_SENDER = f"""
import os, sys, time
due = time.monotonic_ns()
for _ in range(int(sys.argv[1])):
    due += {1_000_000_000 // RATE}
    time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
    os.write(1, time.monotonic_ns().to_bytes({_STAMP}, "little"))
"""


class Arrivals:
    """The results: ns of each lookup, and ns from each event to its answers; first without stores, then with."""

    def __init__(self, cache: LmdbCache, events: int) -> None:
        self._cache = cache
        self._known = list(islice(present(), events * LOOKUPS))
        self._new = list(islice(absent(), events * STORES))
        self._stamps = (int(time.time()) + 86400, int(time.time()) + 3600, DISABLED, DISABLED, DISABLED)
        self._events = events
        self.lookups = (array("q"), array("q"))
        self.waits = (array("q"), array("q"))
        self.stored: list[bytes] = []
        self.storing_began = self.storing_ended = 0

    def handle(self, stamp: int) -> None:
        """One event: four clients come, five passed."""
        clock = time.perf_counter_ns
        number = len(self.waits[0]) + len(self.waits[1])
        storing = number >= self._events // 2
        lookups = self.lookups[storing]
        for key in self._known[number * LOOKUPS : (number + 1) * LOOKUPS]:
            began = clock()
            self._cache.lookup(key)
            lookups.append(clock() - began)
        self._cache.end_batch()
        self.waits[storing].append(time.monotonic_ns() - stamp)
        if storing:
            if not self.stored:
                self.storing_began = stamp
            self.storing_ended = stamp
            for key in self._new[number * STORES : (number + 1) * STORES]:
                self._cache.store(key, self._stamps)
                self.stored.append(key)


def main(path: str, seconds: int) -> dict[str, object]:
    loop = uvloop.new_event_loop()
    said: list[str] = []
    cache = LmdbCache(
        path, warn=said.append, log=said.append, wake=loop.call_soon_threadsafe, cleanup_interval=0, max_size=1 << 34
    )
    events = seconds * RATE
    arrivals = Arrivals(cache, events)
    cache.open()
    cache.start()
    with subprocess.Popen([sys.executable, "-ISc", _SENDER, str(events)], stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        source = sender.stdout.fileno()
        rest = b""

        def readable() -> None:
            nonlocal rest
            data = os.read(source, 4096)
            if not data:
                loop.stop()
            rest += data
            while len(rest) >= _STAMP:
                stamp, rest = int.from_bytes(rest[:_STAMP], "little"), rest[_STAMP:]
                arrivals.handle(stamp)

        loop.add_reader(source, readable)
        loop.run_forever()
        loop.remove_reader(source)
    cache.close()
    loop.close()
    lost = missing(path, arrivals.stored)
    clock = clock_ns()
    return {
        "stored": len(arrivals.stored),
        "stores_per_s": len(arrivals.stored) * 1e9 / max(1, arrivals.storing_ended - arrivals.storing_began),
        "not_in_file": lost,
        "lookup_ns": quantiles(arrivals.lookups[1], clock),
        "quiet_lookup_ns": quantiles(arrivals.lookups[0], clock),
        "wait_ns": quantiles(arrivals.waits[1]),
        "quiet_wait_ns": quantiles(arrivals.waits[0]),
        "said": said,
    }


def missing(path: str, clients: list[bytes]) -> int:
    """How many of them are not in the file when it is read again."""
    cache = LmdbCache(path, warn=print, log=print, wake=lambda call: call(), cleanup_interval=0, max_size=1 << 34)
    cache.open()
    lost = sum(cache.lookup(key) is None for key in clients)
    cache.close()
    return lost


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
