"""Benchmarks that measure a daemon next to another one still run. Their figures are judged by people, not here."""

import subprocess
import sys
from pathlib import Path

import pytest

from peers import needs

ROOT = Path(__file__).parents[2]
CLIENTS = 100


def test_two_builds(tmp_path: Path) -> None:
    """A build next to itself: both are measured, and a limit that no build meets is exit code 1."""
    for program in ("postfix", "ip"):
        needs.program(program)
    needs.root("a network namespace")
    command = [sys.executable, "-m", "bench.builds", str(Path(sys.executable).with_name("fastscreen")), "known"]
    for limit, code in (("1000", 0), ("0.001", 1)):
        done = subprocess.run(
            [*command, "--rounds", "1", "--clients", "100", "--limit", limit],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        [row] = [line for line in done.stdout.splitlines() if line.startswith("| known ")]
        ours, theirs, ratio = (float(cell.split()[0]) for cell in row.strip("| ").split(" | ")[1:])
        assert ours > 0
        assert abs(ratio - ours / theirs) < 0.05


@pytest.mark.parametrize(
    ("name", "rows", "more"),
    [
        ("cluster", ["known", "new-1000", "stopped", "frozen", "slow"], {"stopped", "frozen", "slow"}),
        ("history", ["known", "new-deep"], set()),
        ("score", ["known", "new-deep", "new-evidence"], set()),
    ],
)
def test_with_and_without(name: str, rows: list[str], more: set[str]) -> None:
    """A daemon with a cluster, a history or scorers, next to one without. more: rows with the time to the banner."""
    for program in ("postfix", "ip", "unshare", "redis-server"):
        needs.program(program)
    needs.root("network namespaces")
    command = [sys.executable, "-m", f"bench.{name}", "--rounds", "1", "--clients", str(CLIENTS), *rows]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert all("above its limit" in line for line in result.stderr.splitlines()), result.stderr
    assert result.returncode == bool(result.stderr)
    shown = [line.split(" |")[0] for line in result.stdout.splitlines()[2:]]
    assert shown == [f"| {row}{what}" for row in rows for what in ("", ", p99 to banner")[: 1 + (row in more)]]
