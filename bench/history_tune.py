"""How long `fastscreen tune` takes for a history of any size, and how much memory.

    python -m bench.history_tune FOLDER                      judge the history in a folder
    python -m bench.history_tune FOLDER --sessions 10000000  make it first, in one day, if the folder is empty

bench/history_archive.py makes the history. Its clients have sessions of all kinds; a different threshold changes the
results of some, so that passes have to be followed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from fastscreen.history.archive import Archive

SESSIONS = 10_000_000
LIMIT = 60.0  # s, for SESSIONS
CHANGES = {
    "the settings in force": (),
    "dnsbl.threshold=4": ("--set", "dnsbl.threshold=4"),
    "a shorter prefix": ("--set", "cache.prefix_ipv4=24"),
}


def measure(folder: Path, rounds: int) -> bool:
    """Print a row for each of CHANGES: the shortest time of the rounds. False: a limit is missed."""
    sessions = Archive(folder).count()
    limit = LIMIT * sessions / SESSIONS
    met = True
    print(f"{sessions:,} sessions; limit {limit:.0f} s\n\n| settings | s | CPU s | per session | peak memory | met |")
    print("| --- | --- | --- | --- | --- | --- |")
    for title, words in CHANGES.items():
        times, cpu = [], []
        for _ in range(rounds):
            began, used = time.perf_counter(), _cpu()
            command = [sys.executable, "-m", "fastscreen", "tune", "--path", str(folder), "--json", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
            cpu.append(_cpu() - used)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        fine = min(times) < limit
        met = met and fine
        each = 1e6 * min(cpu) / max(1, sessions)
        shown = f"{min(times):.1f} | {min(cpu):.1f} | {each:.2f} µs | {memory:.0f} MB"
        print(f"| {title} | {shown} | {'yes' if fine else '**no**'} |", flush=True)
    return met


def _cpu() -> float:
    """CPU time of all programs that were run so far, in s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.sessions and not (arguments.folder.exists() and any(arguments.folder.iterdir())):
        command = [sys.executable, "-m", "bench.history_archive", str(arguments.folder), "--days", "1"]
        subprocess.run([*command, "--sessions", str(arguments.sessions)], check=True)
    return 0 if measure(arguments.folder, arguments.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
