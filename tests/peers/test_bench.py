"""`make bench` still runs and measures both screeners, in every row. Its figures are judged by people, not here."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.rows import ROWS, AnyRow, Compared, Continue, Memory, Relay, Row, Viewer
from peers import needs

ROOT = Path(__file__).parents[2]
SCREENERS = ("postscreen", "fastscreen")
CLIENTS = 100
AT_A_TIME = 3  # rows that run in parallel: they mostly wait, and each has its own namespace


def run(*arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def play(row: AnyRow, folder: Path) -> "subprocess.CompletedProcess[str]":
    return run(row.name, "--rounds", "1", "--clients", str(CLIENTS), "--results", str(folder / row.name))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """What each row reported: the JSON and the text. Every row must have been measured."""
    for program in ("postfix", "postfix-lmdb", "rbldnsd", "haproxy", "openssl", "ip", "unshare"):
        needs.program(program)
    needs.root("Postfix's master")
    folder = tmp_path_factory.mktemp("bench")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        results = dict(zip(ROWS, pool.map(lambda row: play(row, folder), ROWS), strict=True))
    reports = {}
    for row, result in results.items():
        assert result.returncode == 0, result.stdout + result.stderr
        text = (folder / row.name / "latest.md").read_text()
        assert result.stdout.removesuffix("\n") == text
        reports[row.name] = json.loads((folder / row.name / "latest.json").read_text()), text
    return reports


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Row)], ids=lambda row: row.name)
def test_cpu(row: Row, played: dict[str, tuple[dict[str, Any], str]]) -> None:
    data, text = played[row.name]
    [measured] = data["rows"]
    for screener in SCREENERS:
        assert measured[screener]["cpu_us"]["median"] > 0
        assert screener in measured[screener]["cpu_us_by_process"]
        assert measured[screener]["first_byte_us"]["p50"] > 0
    assert measured["ratio"]["median"] > 0
    processes = set(measured["postscreen"]["cpu_us_by_process"])
    assert {"master", "postlogd"} <= processes
    assert bool(row.settings.lists) == ("dnsblog" in processes)
    assert [figure["name"] for figure in data["figures"]] == ([f"flat-{row.name}"] if row.held else [])
    assert f"| {row.title} | fastscreen | " in text


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Memory)], ids=lambda row: row.name)
def test_memory(row: Memory, played: dict[str, tuple[dict[str, Any], str]]) -> None:
    [measured] = played[row.name][0]["memory"]
    assert measured["postscreen"]["median"] > 0  # fastscreen's blocks may have room for so few clients


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Viewer)], ids=lambda row: row.name)
def test_view(row: Viewer, played: dict[str, tuple[dict[str, Any], str]]) -> None:
    [figure] = played[row.name][0]["figures"]
    assert figure["name"] == row.name
    assert figure["value"] > 0


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Compared)], ids=lambda row: row.name)
def test_compared(row: Compared, played: dict[str, tuple[dict[str, Any], str]]) -> None:
    """All sides were measured, each by all of its processes; the ratio is with the cheapest of the others."""
    data, text = played[row.name]
    [measured] = data["compared"]
    ours, *others = measured["sides"]
    assert ours.startswith("fastscreen")
    assert len(others) == (2 if isinstance(row, Relay | Continue) else 1)
    for name, side in measured["sides"].items():
        assert side["cpu_us"]["median"] > 0
        assert name.partition(",")[0].lower() in ("fastscreen", "postscreen", "haproxy")
        assert name.partition(",")[0].lower() in side["cpu_us_by_process"]
        assert side["rate"]["median"] > 0
        assert f"| {row.title} | {name} | " in text
    costs = {name: measured["sides"][name]["cpu_us"]["median"] for name in others}
    assert costs[measured["cheapest"]] == min(costs.values())
    assert measured["ratio"]["median"] > 0
    assert (measured["met"] is None) == (row.aim is None)
    if isinstance(row, Relay):
        assert row.title in report.summary(data)


def test_handshakes_are_made_by_the_tls_processes(played: dict[str, tuple[dict[str, Any], str]]) -> None:
    [measured] = played["tls-handshake"][0]["compared"]
    assert measured["sides"]["fastscreen"]["cpu_us_by_process"]["fastscreen-tls"] > 0
    processes = measured["sides"]["postscreen"]["cpu_us_by_process"]
    assert processes.get("tlsproxy", 0) + processes.get("ended", 0) > 0  # it ends after 100 clients


def test_burst(played: dict[str, tuple[dict[str, Any], str]]) -> None:
    [measured] = played["burst"][0]["burst"]
    assert len(measured["sides"]) == 3
    for side in measured["sides"].values():
        assert side["greeted"]["median"] == CLIENTS
        assert side["max_us"]["median"] > 0


def test_a_row_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    needs.program("postfix")
    needs.root("Postfix's master")
    result = run("held-8000", "--clients", "50", "--results", str(tmp_path), prefix=("prlimit", "--nofile=1000"))
    assert result.returncode == 1
    assert "not measured: the limit on open files is 1000 (ulimit -Hn), 2050 are needed" in result.stdout
    assert json.loads((tmp_path / "latest.json").read_text())["rows"][0].keys() & set(SCREENERS) == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "unknown row: nonsense; expected known, "),
        (["--publish", "--clients", "10"], "--publish needs a run at full size"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert said in result.stderr


def test_what_is_published_is_what_was_measured() -> None:
    """The page and README's table are generated from the JSON file by `bench.publish`."""
    data = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    assert (ROOT / "docs" / "benchmark.md").read_text() == report.as_markdown(data)
    assert report.summary(data) in (ROOT / "README.md").read_text()
