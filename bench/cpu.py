"""The CPU time of a tree of processes, user and system, from the scheduler's own count in nanoseconds."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Reading:
    """The time that each thread has used, in ns, with its process's name."""

    threads: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)


def tree(root: int) -> dict[int, str]:
    """The process `root` and all its descendants: their names by pid."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            parents[int(folder.name)] = (int(rest.split()[1]), name)
    found: dict[int, str] = {}
    for pid, (_, name) in parents.items():
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor][0]
        if ancestor == root:
            found[pid] = name
    return found


def read(root: int) -> Reading:
    """What the tree under `root` has used until now."""
    reading = Reading()
    for pid, name in tree(root).items():
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                used = int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue
            reading.threads[pid, int(task.name)] = (name, used)
    return reading


def used(before: Reading, after: Reading) -> dict[str, float]:
    """Seconds used between two readings, by process name. One that ended in between counts up to `before` only."""
    spent: Counter[str] = Counter()
    for thread, (name, until) in after.threads.items():
        since = before.threads.get(thread, (name, 0))[1]
        spent[name] += until - since
    return {name: nanoseconds / 1e9 for name, nanoseconds in spent.items()}
