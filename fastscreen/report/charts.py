"""Charts of the HTML page: pygal's SVG without scripts, styles or anything else that a strict content policy blocks.

The style sheet of the page sets the colors, so that charts follow a dark theme. Tooltips, for which pygal uses a
script, are SVG titles instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pygal
from markupsafe import Markup
from pygal.style import Style

WIDTH = 480  # of the drawing; the page scales it to a column: 1.2 times on a desktop, 0.7 times on a phone
_STYLE = Style(label_font_size=14, major_label_font_size=14, legend_font_size=14, value_font_size=13)
_BAR_HEIGHT = 30  # of a horizontal bar
_CHARACTER = 8.4  # average width
_MAX_NAME = 24  # characters of a name next to its bar
_LEGEND_BOX = 2  # width in characters
_MARGIN = 16
_SVG = "{http://www.w3.org/2000/svg}"


def columns(names: Sequence[str], series: Mapping[str, Sequence[int]], *, every: int = 1, height: int = 280) -> Markup:
    """Stacked vertical bars. every: show every n-th name."""
    chart = _chart(pygal.StackedBar, height, series)
    chart.x_labels = list(names)
    chart.x_labels_major = list(names[::every])
    chart.show_minor_x_labels = False
    chart.truncate_label = 30
    return _rendered(chart, series)


def bars(names: Sequence[str], series: Mapping[str, Sequence[int]]) -> Markup:
    """Stacked horizontal bars, the first name on top."""
    chart = _chart(pygal.HorizontalStackedBar, 90 + _BAR_HEIGHT * max(2, len(names)), series)
    # pygal truncates names on the other axis only. The end of a domain name is more useful than the beginning
    shown = [name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}" for name in names]
    chart.x_labels = shown[::-1]
    # the legend has the same width as the bars
    wide = WIDTH - 2 * _MARGIN - _CHARACTER * max(map(len, shown), default=0)
    if wide < len(series) * _CHARACTER * (max(map(len, series)) + _LEGEND_BOX):
        chart.legend_at_bottom_columns = 1
    return _rendered(chart, {name: list(values)[::-1] for name, values in series.items()})


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
        legend_at_bottom_columns=2
        if len(series) == 4
        else min(3, len(series)),  # pygal does not leave space for a single one in the last row
        legend_box_size=12,
        truncate_legend=24,
        margin=8,
        spacing=8,
        print_zeroes=False,
        min_scale=2,
        max_scale=4,
        range=(0, max(4, *map(sum, zip(*series.values(), strict=True)))),
        value_formatter=lambda value: f"{value:,.0f}" if value == int(value) else "",  # sessions are whole numbers
        no_data_text="no data",
    )


def _rendered(chart: Any, series: Mapping[str, Sequence[int]]) -> Markup:
    for name, values in series.items():
        chart.add(name, list(values))
    names = list(series)
    chart.add_xml_filter(lambda root: _stripped(root, names))
    return Markup(chart.render())  # rendered from an element tree, which escapes text


def _stripped(root: Element, names: Sequence[str]) -> Element:
    """Remove pygal's styles, and the elements that only its script uses."""
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
                _add_title(bar, name)
    return root


def _of_class(element: Element, name: str) -> list[Element]:
    return [each for each in element.iter() if name in each.get("class", "").split()]


def _add_title(bar: Element, name: str) -> None:
    """Convert pygal's descriptions of a bar to a title, which browsers show."""
    descriptions = {each.get("class", ""): each.text or "" for each in bar if each.tag.rpartition("}")[2] == "desc"}
    for each in [each for each in bar if each.tag.rpartition("}")[2] == "desc"]:
        bar.remove(each)
    title = SubElement(bar, "title")
    label = descriptions.get("x_label", "")
    title.text = (
        f"{label}, {name}: {descriptions.get('value', '')}" if label else f"{name}: {descriptions.get('value', '')}"
    )
