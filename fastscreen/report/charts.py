"""The page's charts: pygal's SVG without scripts, styles or anything that a strict content policy would refuse.

The page's own style sheet paints them, so that they follow a dark theme; what pygal's script would show as a tooltip is
there as an SVG title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pygal
from markupsafe import Markup
from pygal.style import Style

WIDTH = 480  # of the drawing; the page scales it to a column, 1.2 times on a desktop and 0.7 on a telephone
_STYLE = Style(label_font_size=14, major_label_font_size=14, legend_font_size=14, value_font_size=13)
_ROW = 30  # height of a bar that lies
_LETTER = 8.4  # width, on average
_LONGEST = 24  # letters of a name beside its bar
_LEGEND_BOX = 2  # as wide as so many letters
_MARGIN = 16
_SVG = "{http://www.w3.org/2000/svg}"


def columns(names: Sequence[str], series: Mapping[str, Sequence[int]], *, every: int = 1, height: int = 280) -> Markup:
    """Standing columns, one of each series on top of the other. every: which names are written out."""
    chart = _chart(pygal.StackedBar, height, series)
    chart.x_labels = list(names)
    chart.x_labels_major = list(names[::every])
    chart.show_minor_x_labels = False
    chart.truncate_label = 30
    return _drawn(chart, series)


def bars(names: Sequence[str], series: Mapping[str, Sequence[int]]) -> Markup:
    """Lying bars, the first name on top."""
    chart = _chart(pygal.HorizontalStackedBar, 90 + _ROW * max(2, len(names)), series)
    # pygal cuts names on the other axis only; of a domain the end says more than the beginning
    shown = [name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}" for name in names]
    chart.x_labels = shown[::-1]
    # the legend is as wide as the bars
    wide = WIDTH - 2 * _MARGIN - _LETTER * max(map(len, shown), default=0)
    if wide < len(series) * _LETTER * (max(map(len, series)) + _LEGEND_BOX):
        chart.legend_at_bottom_columns = 1
    return _drawn(chart, {name: list(values)[::-1] for name, values in series.items()})


def _chart(kind: Any, height: int, series: Mapping[str, Sequence[int]]) -> Any:
    return kind(
        width=WIDTH,
        height=height,
        style=_STYLE,
        js=(),
        css=(),
        no_prefix=True,
        disable_xml_declaration=True,
        show_legend=len(series) > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=2 if len(series) == 4 else min(3, len(series)),  # pygal has no room for one over
        legend_box_size=12,
        truncate_legend=24,
        margin=8,
        spacing=8,
        print_zeroes=False,
        min_scale=2,
        max_scale=4,
        range=(0, max(4, *map(sum, zip(*series.values(), strict=True)))),
        value_formatter=lambda value: f"{value:,.0f}" if value == int(value) else "",  # no half sessions at an axis
        no_data_text="nothing",
    )


def _drawn(chart: Any, series: Mapping[str, Sequence[int]]) -> Markup:
    for name, values in series.items():
        chart.add(name, list(values))
    names = list(series)
    chart.add_xml_filter(lambda root: _bare(root, names))
    return Markup(chart.render())  # of an element tree, which escapes


def _bare(root: Element, names: Sequence[str]) -> Element:
    """Take out what is for pygal's script, and its styles."""
    root.set("role", "img")
    for parent in list(root.iter()):
        for child in list(parent):
            kind = child.get("class", "")
            if (
                not isinstance(child.tag, str)
                or child.tag.rpartition("}")[2] in ("defs", "title")  # defs: scripts, styles
                or "tooltip" in kind.split()
                or "text-overlay" in kind.split()
            ):
                parent.remove(child)
    for element in root.iter():
        for attribute in ("id", "style"):
            element.attrib.pop(attribute, None)
    for number, name in enumerate(names):
        for series in _of_class(root, f"serie-{number}"):
            for bar in _of_class(series, "bar"):
                _titled(bar, name)
    return root


def _of_class(element: Element, name: str) -> list[Element]:
    return [each for each in element.iter() if name in each.get("class", "").split()]


def _titled(bar: Element, name: str) -> None:
    """pygal's descriptions of a bar, as the title that browsers show."""
    said = {each.get("class", ""): each.text or "" for each in bar if each.tag.rpartition("}")[2] == "desc"}
    for each in [each for each in bar if each.tag.rpartition("}")[2] == "desc"]:
        bar.remove(each)
    title = SubElement(bar, "title")
    label = said.get("x_label", "")
    title.text = f"{label}, {name}: {said.get('value', '')}" if label else f"{name}: {said.get('value', '')}"
