"""The results as Markdown for people and JSON for programs."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import postscreen
from bench.measure import Result, Sample

_SCREENERS = ("postscreen", "fastscreen")


def describe() -> dict[str, str]:
    """The machine and the versions of this run."""
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
        "fastscreen": f"{importlib.metadata.version('fastscreen')} ({commit.stdout.strip() or 'no commit'})",
    }
    for name in ("uvloop", "lmdb", "msgpack"):
        versions[name] = importlib.metadata.version(name)
    return versions


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _times(values: list[tuple[int, int]]) -> dict[str, float]:
    return {"p50": median(p50 for p50, _ in values), "p99": median(p99 for _, p99 in values)}


def _screener(samples: list[Sample]) -> dict[str, Any]:
    names = sorted({name for sample in samples for name in sample.cpu})
    return {
        "cpu_us": _spread([sample.total for sample in samples]),
        "cpu_us_by_process": {name: median(sample.cpu.get(name, 0.0) for sample in samples) for name in names},
        "rate": _spread([sample.rate for sample in samples]),
        "first_byte_us": {
            "p50": median(s.first_byte[0] for s in samples),
            "p99": median(s.first_byte[1] for s in samples),
        },
        "end_us": _times([sample.end for sample in samples]),
        "samples_cpu_us": [sample.cpu for sample in samples],
    }


def as_json(results: list[Result], machine: dict[str, str], rounds: int) -> dict[str, Any]:
    """Everything that was measured. CPU in µs a connection."""
    rows: list[dict[str, Any]] = []
    for result in results:
        row = result.row
        entry: dict[str, Any] = {
            "name": row.name,
            "title": row.title,
            "clients": row.clients,
            "together": row.together,
            "sources": row.sources,
            "aim": row.aim,
        }
        if result.problem:
            entry["problem"] = result.problem
        else:
            entry |= {name: _screener(result.samples[name]) for name in _SCREENERS}
            pairs = zip(*(result.samples[name] for name in _SCREENERS), strict=True)
            entry["ratio"] = _spread([ours.total / theirs.total for theirs, ours in pairs])
        rows.append(entry)
    return {"machine": machine, "rounds": rounds, "rows": rows}


def as_markdown(report: dict[str, Any]) -> str:
    """The same for reading: median (minimum to maximum)."""
    lines = [
        "# fastscreen beside postscreen",
        "",
        "CPU of all of a screener's processes, in µs a connection; loaded in turn, "
        f"{report['rounds']} rounds; median (minimum to maximum).",
        "",
        "| clients | postscreen | fastscreen | ratio | aim |",
        "| --- | --- | --- | --- | --- |",
    ]
    notes = []
    for row in report["rows"]:
        if "problem" in row:
            lines.append(f"| {row['title']} | not measured: {row['problem']} | | | |")
            continue
        theirs, ours, ratio = row["postscreen"], row["fastscreen"], row["ratio"]
        aim = f"≤ {row['aim']:.2f}" if row["aim"] else ""
        lines.append(
            f"| {row['title']} | {_range(theirs['cpu_us'], 1)} | {_range(ours['cpu_us'], 1)} "
            f"| **{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f}) | {aim} |"
        )
        for name, one in (("postscreen", theirs), ("fastscreen", ours)):
            parts = ", ".join(f"{process} {used:.1f}" for process, used in one["cpu_us_by_process"].items())
            notes.append(
                f"| {row['title']} | {name} | {parts} | {one['rate']['median']:,.0f} "
                f"| {one['end_us']['p50']:,.0f} / {one['end_us']['p99']:,.0f} |"
            )
    if notes:
        lines += [
            "",
            "| clients | screener | µs by process | connections/s | µs to the end, p50 / p99 |",
            "| --- | --- | --- | --- | --- |",
            *notes,
        ]
    lines += ["", *(f"* {name}: {value}" for name, value in report["machine"].items()), ""]
    return "\n".join(lines)


def _range(values: dict[str, float], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to {values['max']:.{digits}f})"
