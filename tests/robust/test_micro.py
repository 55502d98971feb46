"""The micro-benchmarks still run, and measure the right thing. Their results are not checked here."""

import subprocess
import sys
from pathlib import Path

from bench.micro import cache, report

ROOT = Path(__file__).parents[2]


def test_each_runs_once() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--benchmark-disable"]
    command += ["-k", "not 1000000", "bench/micro"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


def test_a_cache_is_measured(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in cache.figures(tmp_path, [1_000], lookups=2_000, storing_seconds=1)}
    about = ["start-cold", "start", "known", "unknown", "memory", "storing-lookup", "storing-wait"]
    assert list(figures) == [f"cache-1000-{name}" for name in about]
    # Whether the kernel forgets a file depends on where the temporary folder is.
    cold = figures["cache-1000-start-cold"]
    assert cold.value > 0 or cold.detail.startswith("not measured: ")
    for name in ("start", "known", "unknown"):
        figure = figures[f"cache-1000-{name}"]
        assert figure.value > 0
        assert figure.met == (figure.value <= float(figure.aim.split()[1]))
    assert "all 2,500 records were in the file afterwards" in figures["cache-1000-storing-wait"].detail
    assert not list(tmp_path.glob("cache*"))


def test_a_cache_without_room_says_why(tmp_path: Path) -> None:
    (figure,) = cache.figures(tmp_path, [10**15], lookups=1, storing_seconds=1)
    assert figure.met is False
    assert figure.detail.startswith("not measured: a cache of 1,000,000,000,000,000 entries needs 250000000.0 GB")


def test_a_report_is_measured(tmp_path: Path) -> None:
    (figure,) = report.figures(tmp_path, 1_000_000)
    assert figure.value > 0
    assert figure.met == (figure.value <= float(figure.aim.split()[1]))
    assert " distinct clients" in figure.detail
    assert not list(tmp_path.iterdir())
