"""The machine and the versions of a run."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench import haproxy, postscreen


def describe() -> dict[str, str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    versions = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "kernel": platform.release(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        "postfix": postscreen.version(),
        "haproxy": haproxy.version(),
        "fastscreen": f"{importlib.metadata.version('fastscreen')} ({commit.stdout.strip() or 'no commit'})",
    }
    for name in ("uvloop", "lmdb", "msgspec"):
        versions[name] = importlib.metadata.version(name)
    return versions
