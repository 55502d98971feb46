"""Puts a whole run into docs/ and the README."""

import json
from pathlib import Path
from typing import Any

from bench import picture, report

_BEGIN, _END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def write(data: dict[str, Any], text: str, root: Path) -> None:
    """Write docs/benchmark.{md,json,svg} and the README's part between two comments. ValueError: they are missing."""
    readme = root / "README.md"
    before, begin, rest = readme.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"README.md has no {_BEGIN} and {_END}")
    machine = data["machine"]
    versions = f"Postfix {machine['postfix']}, HAProxy {machine['haproxy']}"
    made = f"{machine['processor']}, {versions}, {data['rounds']} rounds, {machine['time'][:10]}."
    readme.write_text(f"{before}{_BEGIN}\n{report.summary(data)}\n\n{made}\n{_END}{after}")
    docs = root / "docs"
    (docs / "benchmark.md").write_text(text)
    (docs / "benchmark.json").write_text(json.dumps(data, indent=1) + "\n")
    picture.write(data, docs / "benchmark.svg")
