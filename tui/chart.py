"""The history as a picture of several lines: two values a column, stacked."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from fastscreen.tui.figures import BLOCKS, duration
from fastscreen.tui.palette import MUTED, OK, OK_ON_REST, REST


def gathered(values: Sequence[float], columns: int) -> list[float]:
    """The latest values as so many columns, each the mean of as many values; the newest column is last.

    The number of values a column is whole, and groups are counted from the newest, so that each poll moves the picture.
    """
    each = max(-(-len(values) // columns), 1) if columns > 0 else 1
    groups = [values[max(end - each, 0) : end] for end in range(len(values), 0, -each)]
    return [sum(group) / len(group) for group in reversed(groups)][-columns:]


def stacked(lower: Sequence[float], whole: Sequence[float], top: float, width: int, height: int) -> list[Text]:
    """Columns of `whole`, of which `lower` is the part in the first colour. top: the value of a full column."""
    lines = []
    top = top or 1.0
    for level in range(height - 1, -1, -1):
        line = Text(" " * (width - len(whole)))
        for part, total in zip(lower, whole, strict=True):
            total_here = _filled(total, top, height, level)
            part_here = min(_filled(part, top, height, level), total_here)
            if total_here == 0:
                line.append(" ")
            elif part_here == 0:
                line.append(BLOCKS[total_here], REST)
            elif part_here == total_here or total_here < 8:
                line.append(BLOCKS[total_here], OK)
            else:
                line.append(BLOCKS[part_here], OK_ON_REST)
        lines.append(line)
    return lines


def over_time(
    lower: Sequence[float], whole: Sequence[float], seconds: float, width: int, height: int
) -> tuple[list[Text], float]:
    """Rates of the last `seconds` as columns above a line with the time, and the value of the highest column."""
    columns = gathered(whole, width - 1)
    top = max(columns, default=0.0)
    lines = [
        Text(" ").append_text(line) for line in stacked(gathered(lower, width - 1), columns, top, width - 1, height)
    ]
    drawn = len(columns)
    begin, room = (
        f"└ {duration(seconds)} ago ",
        max(drawn - 4, 0),
    )  # where the chart is too short for both, its end is more important
    axis = Text(" " * (width - drawn)).append(f"{begin if len(begin) <= room else '└':<{room}}"[:room], MUTED)
    return [*lines, axis.append("now┘" if drawn >= 4 else "", MUTED)], top


def _filled(value: float, top: float, height: int, level: int) -> int:
    """How many eighths of the cell at a level are filled; anything above nothing shows at the bottom."""
    eighths = round(8 * height * value / top)
    if value > 0:
        eighths = max(eighths, 1)
    return max(min(eighths - 8 * level, 8), 0)
