"""What the recorder of the history costs: CPU time and disk space per session, up to a million of them in a file.

    python -m bench.history_recorder                      a table for several rates
    python -m bench.history_recorder --sessions 100000    a quick check

The sessions are those of bench/history_archive.py. Their number per turn is what two turns per second bring at a rate.
The rings are not part of it: reading a ring takes about 0.3 µs per session.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.history_archive import CLIENTS, KINDS, VARIANTS, address, packed
from fastscreen.config.model import History
from fastscreen.core import HISTORY_OUTCOMES
from fastscreen.history.recorder import TURN_SECONDS
from fastscreen.history.ring import Row
from fastscreen.history.writer import HistoryWriter
from fastscreen.process import conditions
from fastscreen.process.conditions import Conditions

RATES = (100, 1000, 10_000)  # sessions per second
START = 1_796_040_000.0  # s since 1970: noon
MAX_CPU = 8.0  # µs per session
MAX_SIZE = 200.0  # bytes per session
_OUTCOME = {"known": "handed_off", "listed": "rejected", "pregreet": "rejected", "new": "deferred", "left": "left"}


class Ring:
    """Gives the sessions of a turn."""

    capacity = 16384
    generation = 2

    def __init__(self) -> None:
        self.head = self.tail = self.lost = 0
        self.rows: list[Row] = []

    def settings(self) -> bytes | None:
        return b"{}"

    def read(self, limit: int) -> tuple[list[Row], int]:
        return self.rows, 0

    def done(self) -> None:
        self.tail = self.head


def measured(folder: Path, rate: int, sessions: int) -> tuple[float, float, float, float]:
    """µs per session, of all and of the last tenth; bytes per session; s of the longest turn."""
    rng = random.Random(17)
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=CLIENTS)
    records = {kind: [packed(kind, rng) for _ in range(VARIANTS)] for kind in KINDS}
    clients = [
        (address(at), records[kind], HISTORY_OUTCOMES.index(_OUTCOME[kind]), int(kind == "known"))
        for at, kind in enumerate(kinds)
    ]
    rings = [Ring(), Ring()]
    now = START
    writer = HistoryWriter(
        History(path=str(folder), max_size=64 << 30),
        rings,
        Conditions(memoryview(bytearray(conditions.SIZE))),
        info=print,
        warn=print,
        clock=lambda: now,
    )
    of_ring = max(1, int(rate * TURN_SECONDS / len(rings)))
    spent, longest, before = 0.0, 0.0, (0, 0.0)
    stored = turns = 0
    while stored < sessions:
        for ring in rings:
            ring.rows = _rows(rng, clients, now, of_ring)
            ring.head += of_ring
            stored += of_ring
        now += TURN_SECONDS
        began, cpu = time.perf_counter(), time.process_time()
        writer.turn()
        if turns % int(60 / TURN_SECONDS) == 0:
            writer.clean_up()
        if turns % int(1 / TURN_SECONDS) == 0:
            writer.stats()
        spent += time.process_time() - cpu
        longest = max(longest, time.perf_counter() - began)
        turns += 1
        if stored <= sessions * 9 // 10:
            before = stored, spent
    writer.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    last = (spent - before[1]) / max(1, stored - before[0])
    return 1e6 * spent / stored, 1e6 * last, size / stored, longest


def _rows(
    rng: random.Random, clients: Sequence[tuple[bytes, list[bytes], int, int]], now: float, count: int
) -> list[Row]:
    found = []
    ended, step = int(now * 1e6), int(TURN_SECONDS * 1e6 / count)
    for at in range(count):
        client, records, outcome, cached = clients[int(rng.random() * CLIENTS)]
        found.append((ended + at * step, client, records[int(rng.random() * VARIANTS)], outcome, cached))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    arguments = parser.parse_args()
    met = True
    print(f"{arguments.sessions:,} sessions; limits: {MAX_CPU:g} µs and {MAX_SIZE:g} bytes per session\n")
    print("| per second | µs per session | of the last tenth | bytes per session | longest turn, ms |")
    print("| --- | --- | --- | --- | --- |")
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            cpu, last, size, longest = measured(Path(folder), rate, arguments.sessions)
        met = met and max(cpu, last) <= MAX_CPU and size <= MAX_SIZE
        print(f"| {rate:,} | {cpu:.2f} | {last:.2f} | {size:.0f} | {1000 * longest:.0f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
