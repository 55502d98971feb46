"""`fastscreen report` on a log of 1 GB."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Figure
from bench.micro.maillog import write
from bench.programs import BenchError

SIZE = 1_000_000_000
AIM_S = 30  # for SIZE, on one processor


def figures(folder: Path, size: int = SIZE) -> list[Figure]:
    """Write a log in `folder`, have it reported on, remove it. BenchError: the command failed."""
    log = folder / "mail.log"
    try:
        write(log, size)
        return [_reported(log)]
    finally:
        log.unlink(missing_ok=True)


def _reported(log: Path) -> Figure:
    """Measure CPU time, which excludes other work on the machine and includes work on additional processors."""
    size = log.stat().st_size
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "fastscreen", "report", "--json", str(log)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise BenchError(f"fastscreen report failed: {result.stderr.strip()}")
    found = json.loads(result.stdout)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    aim = AIM_S * size / SIZE
    return Figure(
        "report",
        f"fastscreen report: a log of {size / 1e9:g} GB, of a screener and its MTA",
        cpu,
        "s of CPU",
        f"≤ {aim:g} s",
        cpu <= aim,
        f"{took:.1f} s elapsed; {found['lines']:,} lines, {found['clients']:,} distinct clients; peak memory of this"
        f" and earlier measurements: {after.ru_maxrss / 1024:,.0f} MB",
    )
