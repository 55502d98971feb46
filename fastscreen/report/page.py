"""The report as one page that needs nothing beside it: no script, no font, no picture from elsewhere.

What clients sent comes into it through Jinja's escaping only, and its own content policy forbids all but its style
sheet, so that it is safe behind any server's policy, too.
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
from fastscreen.report.text import unknowns

_HERE = Path(__file__).parent
_SERIES = ("come again", "dnsbl", "pregreet", "denylist")
_LISTS = 12  # lists, networks that a chart has room for

SUSPICIONS = {
    "passed later": "turned away, and later passed",
    "network passes": "turned away, while other addresses of its network pass",
    "lowest rank": "listed by one list only, and just so much as to be refused",
}


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
        suspicions=SUSPICIONS,
        unknowns=list(unknowns(summary.what_if)) if summary.what_if else [],
    )
    return page + "\n"


def _charts(summary: Summary) -> dict[str, Markup]:
    """Charts by name; one that would have nothing to show is not there."""
    made: dict[str, Markup] = {}
    if any(period.connections for period in summary.hours):
        made["hours"] = _periods(summary.hours, every=3)
    if len(summary.days) > 1:
        made["days"] = _periods(summary.days, every=max(1, len(summary.days) // 4))
    if summary.refusals:
        made["refusals"] = charts.bars(list(summary.refusals), {"sessions": list(summary.refusals.values())})
    if summary.away.times:
        names = [each.name for each in summary.away.delays]
        delays = {
            "same address": [each.count for each in summary.away.delays],
            "its network": [each.count for each in summary.away.neighbour_delays],
        }
        if summary.away.elsewhere:
            delays["elsewhere"] = [each.count for each in summary.away.elsewhere_delays]
        made["delays"] = charts.bars(names, delays)
    if summary.lists:
        lists = summary.lists[:_LISTS]
        made["lists"] = charts.bars(
            [each.name for each in lists],
            {
                "this list alone": [each.alone for each in lists],
                "others too": [each.clients - each.alone for each in lists],
            },
        )
    if summary.ranks:
        made["ranks"] = charts.columns(list(summary.ranks), {"sessions": list(summary.ranks.values())}, height=240)
    if summary.top_networks:
        networks = summary.top_networks[:_LISTS]
        made["networks"] = charts.bars(
            [each.name for each in networks],
            {
                "handed on": [each.handed for each in networks],
                "told 450": [min(each.away, each.connections - each.handed) for each in networks],
                "refused": [each.refused for each in networks],
            },
        )
    return made


def _periods(periods: tuple[Period, ...], every: int) -> Markup:
    """Verdicts by test, of hours or days."""
    series = {"handed on": [period.handed for period in periods]}
    for test in _SERIES:
        series[test] = [period.turned.get(test, 0) for period in periods]
    series["other tests"] = [
        sum(count for test, count in period.turned.items() if test not in _SERIES) for period in periods
    ]
    shown = {name: values for name, values in series.items() if name == "handed on" or any(values)}
    return charts.columns([period.name for period in periods], shown, every=every, height=320)
