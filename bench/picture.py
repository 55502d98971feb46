"""The README's picture: both screeners' CPU per connection, on a logarithmic scale: equal ratios have equal widths."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

# Each has a contrast of at least 3 on white and on the dark gray of GitHub's dark theme.
_TEXT, _THEIRS, _OURS = "#768390", "#d9730d", "#2f8f5b"
_TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def write(report: dict[str, Any], path: Path) -> None:
    """Draw the main rows that were measured."""
    rows = [row for row in report["rows"] if row["main"] and "problem" not in row]
    style: dict[Any, Any] = {
        "svg.fonttype": "path",  # no reader needs a font
        "svg.hashsalt": "fastscreen",
        "font.size": 11,
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "xtick.color": _TEXT,
        "ytick.color": _TEXT,
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(9.6, 0.9 + 0.52 * len(rows)), layout="constrained")
        axes.set_xscale("log")
        for place, row in enumerate(rows):
            theirs, ours = row["postscreen"]["cpu_us"], row["fastscreen"]["cpu_us"]
            axes.plot(
                [ours["median"], theirs["median"]], [place, place], color=_TEXT, alpha=0.45, linewidth=2, zorder=1
            )
            for values, colour in ((theirs, _THEIRS), (ours, _OURS)):
                axes.plot([values["min"], values["max"]], [place, place], color=colour, linewidth=6, alpha=0.5)
                axes.plot(values["median"], place, "o", color=colour, markersize=9)
            axes.annotate(
                f"{theirs['median']:,.0f}",
                (theirs["max"], place),
                (9, 0),
                textcoords="offset points",
                va="center",
                color=_THEIRS,
            )
            axes.annotate(
                f"{ours['median']:,.0f}",
                (ours["min"], place),
                (-9, 0),
                textcoords="offset points",
                va="center",
                ha="right",
                color=_OURS,
            )
            axes.annotate(
                f"{theirs['median'] / ours['median']:.1f} ×",
                ((ours["median"] * theirs["median"]) ** 0.5, place),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=10,
            )
        values = [
            row[name]["cpu_us"][end] for row in rows for name in ("postscreen", "fastscreen") for end in ("min", "max")
        ]
        axes.set_xlim(min(values) / 1.7, max(values) * 1.9)
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
        axes.xaxis.set_major_locator(FixedLocator(_TICKS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="both", which="both", length=0)
        axes.grid(axis="x", which="major", color=_TEXT, alpha=0.25)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_xlabel("µs of CPU per connection, all processes of the screener; logarithmic scale")
        for name, colour in (("fastscreen", _OURS), ("postscreen", _THEIRS)):
            axes.plot([], [], "o", color=colour, markersize=9, label=name)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, labelcolor="linecolor")
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
