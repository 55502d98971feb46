"""All results as JSON: medians, extremes, ratios, and whether goals were met. CPU is in µs per connection."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench import burst, compared, measure, memory, viewer
from bench.figures import Figure
from bench.rows import FLAT_AIM, VIEW_GOAL, Relay, Tls

SCREENERS = ("postscreen", "fastscreen")

Result = measure.Result | memory.Result | viewer.Result | burst.Result | compared.Result


def as_json(
    results: Sequence[Result], figures: Sequence[Figure], problems: dict[str, str], machine: dict[str, str], rounds: int
) -> dict[str, Any]:
    """`problems` gives, by name, the reason why figures without a row are missing."""
    rows = [_row(result) for result in results if isinstance(result, measure.Result)]
    flat = [figure for result in results if isinstance(result, measure.Result) for figure in _flat(result)]
    views = [result for result in results if isinstance(result, viewer.Result)]
    problems |= {result.row.title: result.problem for result in views if result.problem}
    return {
        "machine": machine,
        "rounds": rounds,
        "rows": rows,
        "memory": [_memory(result) for result in results if isinstance(result, memory.Result)],
        "burst": [_burst(result) for result in results if isinstance(result, burst.Result)],
        "compared": [_compared(result) for result in results if isinstance(result, compared.Result)],
        "figures": [
            asdict(figure) for figure in (*flat, *(_view(result) for result in views if not result.problem), *figures)
        ],
        "problems": problems,
    }


def failed(report: dict[str, Any]) -> bool:
    """Whether something could not be measured."""
    parts = (*report["rows"], *report["memory"], *report["burst"], *report["compared"])
    return bool(report["problems"]) or any("problem" in part for part in parts)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _row(result: measure.Result) -> dict[str, Any]:
    row = result.row
    entry: dict[str, Any] = {
        "name": row.name,
        "title": row.title,
        "main": row.main,
        "clients": row.clients,
        "concurrent": row.concurrent,
        "rate": row.rate,
        "sources": row.clients if row.new else row.sources,
        "held": row.held,
        "aim": row.aim,
    }
    if result.problem:
        return entry | {"problem": result.problem}
    entry |= {key: _screener(samples) for key, samples in result.samples.items()}
    entry["ratio"] = _spread(_ratios(result, "fastscreen", "postscreen"))
    entry["met"] = None if row.aim is None else entry["ratio"]["median"] <= row.aim
    return entry


def _ratios(result: measure.Result, one: str, other: str) -> list[float]:
    """The ratios of the two samples of each round, which were taken one after the other."""
    pairs = zip(result.samples[one], result.samples[other], strict=True)
    return [ours.total / theirs.total for ours, theirs in pairs]


def _screener(samples: list[measure.Sample]) -> dict[str, Any]:
    names = sorted({name for sample in samples for name in sample.cpu})
    return {
        "cpu_us": _spread([sample.total for sample in samples]),
        "cpu_us_by_process": {name: median(sample.cpu.get(name, 0.0) for sample in samples) for name in names},
        "rate": _spread([sample.rate for sample in samples]),
        "first_byte_us": _times([sample.first_byte for sample in samples]),
        "end_us": _times([sample.end for sample in samples]),
        "samples_cpu_us": [sample.cpu for sample in samples],
    }


def _times(samples: list[dict[str, int]]) -> dict[str, float]:
    return {name: median(sample[name] for sample in samples) for name in ("p50", "p99", "max")}


def _flat(result: measure.Result) -> list[Figure]:
    if result.problem or not result.row.held:
        return []
    ratios = _ratios(result, "fastscreen", measure.UNHELD)
    value = median(ratios)
    return [
        Figure(
            name=f"flat-{result.row.name}",
            title=f"fastscreen's CPU per known client: with {result.row.held:,} held clients ÷ with none",
            value=value,
            unit="",
            aim=f"≤ {FLAT_AIM}",
            met=value <= FLAT_AIM,
            detail=f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    ]


def _view(result: viewer.Result) -> Figure:
    def fastscreen(sample: viewer.Sample) -> float:
        return sample.screener + sample.hub

    ratios = [fastscreen(viewed) / fastscreen(alone) for alone, viewed in result.pairs]
    value = median(ratios)
    hub, view = (median(getattr(viewed, name) for _, viewed in result.pairs) for name in ("hub", "view"))
    return Figure(
        name=result.row.name,
        title=f"fastscreen's CPU per known client at full load: with {result.row.title} ÷ without",
        value=value,
        unit="",
        aim=f"≤ {VIEW_GOAL}",
        met=value <= VIEW_GOAL,
        detail=f"{min(ratios):.2f} to {max(ratios):.2f}; "
        f"{median(fastscreen(viewed) for _, viewed in result.pairs):.1f} µs ({hub:.2f} of it in the control server) "
        f"compared with {median(fastscreen(alone) for alone, _ in result.pairs):.1f}; the view itself used {view:.1f}",
    )


def _memory(result: memory.Result) -> dict[str, Any]:
    row = result.row
    entry: dict[str, Any] = {"name": row.name, "title": row.title, "clients": row.clients, "aim": row.aim}
    if result.problem:
        return entry | {"problem": result.problem}
    entry["samples_kb"] = result.samples
    entry |= {name: _spread(values) for name, values in result.samples.items()}
    return entry | {"met": entry["fastscreen"]["median"] <= row.aim}


def _compared(result: compared.Result) -> dict[str, Any]:
    """The first side is fastscreen's; `ratio` compares it with the cheapest of the others."""
    row = result.row
    entry: dict[str, Any] = {
        "name": row.name,
        "title": row.title,
        "part": "relayed" if isinstance(row, Relay) else "secured" if isinstance(row, Tls) else "continued",
        "per": row.per,
        "main": row.main,
        "clients": row.clients,
        "concurrent": row.concurrent,
        "aim": row.aim,
    }
    if result.problem:
        return entry | {"problem": result.problem}
    entry["sides"] = {name: _side(samples) for name, samples in result.samples.items()}
    ours, *others = result.samples
    cheapest = min(others, key=lambda name: entry["sides"][name]["cpu_us"]["median"])
    pairs = zip(result.samples[ours], result.samples[cheapest], strict=True)
    entry |= {"cheapest": cheapest, "ratio": _spread([one.total / other.total for one, other in pairs])}
    entry["met"] = None if row.aim is None else entry["ratio"]["median"] <= row.aim
    return entry


def _side(samples: list[compared.Sample]) -> dict[str, Any]:
    names = sorted({name for sample in samples for name in sample.cpu})
    return {
        "cpu_us": _spread([sample.total for sample in samples]),
        "cpu_us_by_process": {name: median(sample.cpu.get(name, 0.0) for sample in samples) for name in names},
        "rate": _spread([sample.rate for sample in samples]),
        "samples_cpu_us": [sample.cpu for sample in samples],
    }


def _burst(result: burst.Result) -> dict[str, Any]:
    row = result.row
    entry: dict[str, Any] = {"name": row.name, "title": row.title, "clients": row.clients, "seconds": row.seconds}
    if result.problem:
        return entry | {"problem": result.problem}
    sides = {}
    for name, samples in result.samples.items():
        sides[name] = {
            "within_second": _spread([sample.within_second for sample in samples]),
            "greeted": _spread([sample.greeted for sample in samples]),
            "turned_away": _spread([sample.turned_away for sample in samples]),
            "p50_us": _spread([sample.p50 for sample in samples]),
            "p99_us": _spread([sample.p99 for sample in samples]),
            "max_us": _spread([sample.max for sample in samples]),
            "begun_in_s": _spread([sample.begun_in for sample in samples]),
        }
    met = sides["fastscreen"]["within_second"]["min"] == row.clients
    return entry | {"sides": sides, "met": met}
