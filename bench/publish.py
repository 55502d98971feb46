"""Publishes a run in docs/ and README: a complete run, or some rows into the last complete one."""

import json
from pathlib import Path
from typing import Any

from bench import picture, report
from bench.rows import ROWS

_BEGIN, _END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
_ORDER = [row.name for row in ROWS]


def write(data: dict[str, Any], root: Path, *, whole: bool) -> None:
    """Write docs/benchmark.{md,json,svg} and the part of README between two comments. ValueError: they are missing.

    whole: everything was measured. Otherwise the rows of `data` replace those that were published before.
    """
    readme = root / "README.md"
    before, begin, rest = readme.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"README.md has no {_BEGIN} and {_END}")
    docs = root / "docs"
    if not whole:
        data = put_into(json.loads((docs / "benchmark.json").read_text()), data)
    readme.write_text(f"{before}{_BEGIN}\n{report.summary(data)}\n\n{_made(data)}\n{_END}{after}")
    (docs / "benchmark.md").write_text(report.as_markdown(data))
    (docs / "benchmark.json").write_text(json.dumps(data, indent=1) + "\n")
    picture.write(data, docs / "benchmark.svg")


def put_into(published: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The published run with rows of another run, each marked with the time and the machine of that run."""
    mark = {key: measured["machine"][key] for key in ("time", "processor", "load before")}
    merged = dict(published)
    for part in report.PARTS:
        there = {entry["name"]: entry for entry in published.get(part, [])}
        there |= {entry["name"]: entry | {"apart": mark} for entry in measured[part]}
        merged[part] = sorted(
            there.values(), key=lambda entry: _ORDER.index(entry["name"]) if entry["name"] in _ORDER else len(_ORDER)
        )
    merged["machine"] = {
        name: value for name, value in measured["machine"].items() if name not in published["machine"]
    } | published["machine"]
    return merged


def _made(data: dict[str, Any]) -> str:
    machine = data["machine"]
    names = {"postfix": "Postfix", "haproxy": "HAProxy"}
    programs = [f"{name} {machine[key]}" for key, name in names.items() if key in machine]
    days = sorted({entry["apart"]["time"][:10] for entry in report.apart(data)})
    others = f"; measured separately: {', '.join(days)} ([rows](docs/benchmark.md#the-machine))" if days else ""
    made = f"{machine['processor']}, {', '.join(programs)}, {data['rounds']} rounds, {machine['time'][:10]}"
    return f"{made}{others}."
