"""Some rows of the benchmark, measured apart, among those that were published."""

import json
from pathlib import Path
from typing import Any

from bench import publish, report

ROOT = Path(__file__).parents[2]


def test_rows_that_were_measured_apart(tmp_path: Path) -> None:
    """They take the places of the old ones, say when they were made, and nothing else changes."""
    published: dict[str, Any] = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    for entry in report.apart(published):
        del entry["apart"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmark.json").write_text(json.dumps(published))
    (tmp_path / "README.md").write_text("before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n")
    row = published["rows"][1] | {"title": "measured again"}
    empty: dict[str, Any] = {part: [] for part in report.PARTS}
    others = {"time": "2031-01-02T03:04:05+00:00", "processor": "Abacus, 10 wires", "load before": "0.1 0.2 0.3"}
    machine = published["machine"] | others
    publish.write(empty | {"machine": machine, "rounds": 5, "rows": [row], "problems": {}}, tmp_path, whole=False)
    merged = json.loads((tmp_path / "docs" / "benchmark.json").read_text())
    assert merged["machine"] == published["machine"]
    assert [entry["name"] for entry in merged["rows"]] == [entry["name"] for entry in published["rows"]]
    assert [entry["title"] for entry in report.apart(merged)] == ["measured again"]
    text = (tmp_path / "docs" / "benchmark.md").read_text()
    assert text == report.as_markdown(merged)
    mark = "2031-01-02T03:04:05+00:00, Abacus, 10 wires, load before 0.1 0.2 0.3"
    assert f"* measured separately, {mark}: measured again\n" in text
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "measured separately: 2031-01-02" in readme
