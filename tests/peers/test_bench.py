"""`make bench` still runs and measures both screeners. Its figures are judged by people, not here."""

import json
import subprocess
import sys
from pathlib import Path

from peers import needs

ROOT = Path(__file__).parents[2]


def test_every_row_is_measured(tmp_path: Path) -> None:
    needs.program("postfix")
    needs.root("Postfix's master")
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--clients", "200", "--results", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / "latest.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["known", "pregreet"]
    for row in report["rows"]:
        for screener in ("postscreen", "fastscreen"):
            assert row[screener]["cpu_us"]["median"] > 0
            assert screener in row[screener]["cpu_us_by_process"]
        assert "master" in row["postscreen"]["cpu_us_by_process"]
    assert (tmp_path / "latest.md").read_text() == result.stdout.removesuffix("\n")


def test_what_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "bench", "nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "no such row: nonsense" in result.stderr
