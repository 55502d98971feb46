"""The report as a single HTML page without scripts, external fonts or images.

Text from clients is escaped by Jinja. The page's own content security policy blocks everything except its style sheet,
so that the page works with any policy of a web server.
"""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastscreen import __version__
from fastscreen.format import span
from fastscreen.report import charts
from fastscreen.report.summary import Period, Summary
from fastscreen.report.tally import DEFERRED
from fastscreen.report.text import POSSIBLY_WRONG, label, unknowns

_HERE = Path(__file__).parent
_SERIES = (DEFERRED, "dnsbl", "pregreet", "denylist")
_MAX_BARS = 12  # lists or networks in a chart


def as_page(summary: Summary) -> str:
    """The whole page."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("fastscreen.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["label"] = label
    environment.filters["span"] = span
    environment.filters["moment"] = lambda when: time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
    environment.filters["short"] = lambda when: time.strftime("%b %-d %H:%M", time.localtime(when))
    page = environment.get_template("page.html.j2").render(
        report=summary,
        version=__version__,
        style=Markup(style),  # our own file
        policy="default-src 'none'; style-src 'sha256-"
        + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        + "'; base-uri 'none'; form-action 'none'",
        share=lambda part, whole: f"{100 * part / whole:.0f} %" if whole else "",
        charts=_charts(summary),
        possibly_wrong=POSSIBLY_WRONG,
        unknowns=list(unknowns(summary.what_if)) if summary.what_if else [],
    )
    return page + "\n"


def _charts(summary: Summary) -> dict[str, Markup]:
    """Charts by name, without empty ones."""
    made: dict[str, Markup] = {}
    if any(period.connections for period in summary.hours):
        made["hours"] = _periods(summary.hours, every=3)
    if len(summary.days) > 1:
        made["days"] = _periods(summary.days, every=max(1, len(summary.days) // 4))
    if summary.refusals:
        made["refusals"] = charts.bars(
            [label(test) for test in summary.refusals], {"sessions": list(summary.refusals.values())}
        )
    if summary.away.times:
        names = [each.name for each in summary.away.delays]
        delays = {
            "same address": [each.count for each in summary.away.delays],
            "another address of the network": [each.count for each in summary.away.neighbour_delays],
        }
        if summary.away.elsewhere:
            delays["another network"] = [each.count for each in summary.away.elsewhere_delays]
        made["delays"] = charts.bars(names, delays)
    if summary.lists:
        lists = summary.lists[:_MAX_BARS]
        made["lists"] = charts.bars(
            [each.name for each in lists],
            {
                "only this list": [each.alone for each in lists],
                "also others": [each.clients - each.alone for each in lists],
            },
        )
    if summary.ranks:
        made["ranks"] = charts.columns(list(summary.ranks), {"sessions": list(summary.ranks.values())}, height=240)
    if summary.top_networks:
        networks = summary.top_networks[:_MAX_BARS]
        made["networks"] = charts.bars(
            [each.name for each in networks],
            {
                "handed off": [each.handed for each in networks],
                "deferred": [min(each.away, each.connections - each.handed) for each in networks],
                "rejected": [each.refused for each in networks],
            },
        )
    return made


def _periods(periods: tuple[Period, ...], every: int) -> Markup:
    """Results by hour or by day."""
    series = {"handed off": [period.handed for period in periods]}
    for test in _SERIES:
        series[label(test)] = [period.turned.get(test, 0) for period in periods]
    series["other tests"] = [
        sum(count for test, count in period.turned.items() if test not in _SERIES) for period in periods
    ]
    shown = {name: values for name, values in series.items() if name == "handed off" or any(values)}
    return charts.columns([period.name for period in periods], shown, every=every, height=320)
