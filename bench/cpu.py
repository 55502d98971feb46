"""The CPU time of a tree of processes, user and system, by each process's own clock, including ended processes.

A process that ended is in its parent's sum of waited-for children, in ticks of 10 ms. So what ended between two
readings is that sum's growth, less what those processes had used before the first reading.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ENDED = "ended"
"""The name for processes that ended between two readings."""

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass
class Reading:
    """What each process has used, in ns, with its name; and the processes that it waited for. By pid and start time."""

    used: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    children: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Process:
    parent: int
    name: str
    started: int  # in ticks since boot: a pid is used again
    children: int  # ns


def tree(root: int) -> dict[int, str]:
    """The process `root` and all its descendants: their names by pid."""
    return {pid: process.name for pid, process in _tree(root).items()}


def read(root: int) -> Reading:
    """The CPU time that the tree under `root` has used so far."""
    reading = Reading()
    for pid, process in _tree(root).items():
        try:
            # the kernel's clock of all threads of another process, clock_getcpuclockid(3)
            used = time.clock_gettime_ns(~pid << 3 | 2)
        except OSError:  # it has just ended
            continue
        key = pid, process.started
        reading.used[key] = process.name, used
        reading.children[key] = process.children
    return reading


def used(before: Reading, after: Reading) -> dict[str, float]:
    """Seconds used between two readings, by process name."""
    spent: Counter[str] = Counter()
    for key, (name, until) in after.used.items():
        spent[name] += until - before.used.get(key, (name, 0))[1]
    ended = sum(until - before.children.get(key, 0) for key, until in after.children.items())
    ended -= sum(until for key, (_, until) in before.used.items() if key not in after.used)
    if ended > 0:
        spent[ENDED] = ended
    return {name: nanoseconds / 1e9 for name, nanoseconds in spent.items()}


def _tree(root: int) -> dict[int, _Process]:
    processes: dict[int, _Process] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            fields = rest.split()  # from the third one on, proc(5)
            children = (int(fields[13]) + int(fields[14])) * _TICK_NS
            processes[int(folder.name)] = _Process(int(fields[1]), name, int(fields[19]), children)
    found: dict[int, _Process] = {}
    for pid, process in processes.items():
        ancestor = pid
        while ancestor in processes and ancestor != root:
            ancestor = processes[ancestor].parent
        if ancestor == root:
            found[pid] = process
    return found
