"""Micro-benchmarks: `python -m pytest bench/micro` for their tables, `run` for the figures that `make bench` prints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.micro import cache, report
from bench.programs import BenchError

ROOT = Path(__file__).parents[2]
_SECONDS = 180  # that pytest-benchmark may take in all


def run(folder: Path) -> list[Figure]:
    """Measure everything, with what is written meanwhile in `folder`: about 2 GB, removed again.

    BenchError: pytest-benchmark could not run, or one of its tests failed.
    """
    return _small(folder) + cache.figures(folder) + report.figures(folder)


def _small(folder: Path) -> list[Figure]:
    results = folder / "micro.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--benchmark-quiet"]
    command += ["--benchmark-disable-gc", "--benchmark-warmup=on", "--benchmark-warmup-iterations=5"]
    command += ["--benchmark-max-time=1", f"--benchmark-json={results}", str(ROOT / "bench/micro")]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the micro-benchmarks took longer than {_SECONDS} s") from error
    if ran.returncode:
        raise BenchError(f"the micro-benchmarks failed: {(ran.stdout + ran.stderr).strip()}")
    return [_figure(benchmark) for benchmark in json.loads(results.read_text())["benchmarks"]]


def _figure(benchmark: dict[str, Any]) -> Figure:
    """The median of the rounds in ns per item, or, if there is a goal, in millions per second."""
    about, stats = benchmark["extra_info"], benchmark["stats"]
    name = benchmark["fullname"].rpartition("/")[2].replace("test_", "").replace(".py::", "-")
    name = name.replace("[", "-").rstrip("]").replace("_", "-")
    shortest, median, longest = (stats[key] / about["items"] * 1e9 for key in ("min", "median", "max"))
    spread = f"median of {stats['rounds']} rounds; {shortest:.1f} to {longest:.1f} ns each"
    if about["aim"] is None:
        return Figure(name, about["title"], median, "ns", "", None, spread)
    rate = 1000 / median  # millions per second
    aim = about["aim"] / 1e6
    return Figure(name, about["title"], rate, "million/s", f"≥ {aim:g} million/s", rate >= aim, spread)
