"""A widget of text lines that repaints only the cells that have changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.text import Text
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from fastscreen.escaping import printable

Cells = list[tuple[str, object]]


def cells_of(strip: Strip) -> Cells:
    """Each cell's character and style; all that is shown is one cell wide."""
    return [(char, style) for text, style, _ in strip for char in text]


def difference(old: Cells, new: Cells) -> tuple[int, int] | None:
    """Where two lines begin and end to differ, or None."""
    width = max(len(old), len(new))
    blank: Cells = [(" ", None)]
    old, new = old + blank * (width - len(old)), new + blank * (width - len(new))
    if old == new:
        return None
    first = next(at for at in range(width) if old[at] != new[at])
    last = next(at for at in range(width - 1, -1, -1) if old[at] != new[at])
    return first, last + 1


def side_by_side(parts: Sequence[Sequence[Text]], width: int, rows: int) -> list[Text]:
    """Parts as columns of this width, cut off after so many rows."""
    lines = []
    for at in range(min(rows, max(len(part) for part in parts))):
        line = Text()
        for part in parts:
            cell = part[at].copy() if at < len(part) else Text()
            cell.truncate(width, pad=True)
            line.append(" ").append_text(cell)
        lines.append(line)
    return lines


class Lines(ScrollView, can_focus=False):
    """Lines of text under one another; longer than the widget, they scroll."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Lines { overflow-x: hidden; overflow-y: hidden; scrollbar-size: 1 1; }"

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: list[Text] = []
        self._drawn: dict[int, Strip] = {}

    @property
    def lines(self) -> list[Text]:
        """What is shown, with what has scrolled away."""
        return self._lines

    @property
    def room(self) -> int:
        """Width of a line in cells, without the scroll bar."""
        return self.scrollable_content_region.width

    def show(self, lines: Sequence[Text]) -> None:
        """Show these lines."""
        self._lines = list(lines)
        self.resize_to(len(lines))
        self.repaint()

    def resize_to(self, height: int) -> None:
        """So many lines can be scrolled through."""
        size = Size(self.room, height)
        if size != self.virtual_size:  # not by assignment, which would lay out and draw the whole screen again
            self.set_reactive(Widget.virtual_size, size)
            self._scroll_update(size)

    def line_at(self, y: int) -> Text:
        """The line in row `y` of the widget."""
        at = y + self.scroll_offset.y
        return self._lines[at] if at < len(self._lines) else Text()

    def repaint(self) -> None:
        """Have those cells painted that differ from what is on the screen."""
        for y in range(self.size.height):
            strip = self._strip(y)
            old = self._drawn.get(y)
            if old is None:
                self.refresh(Region(0, y, self.room, 1))
            elif found := difference(cells_of(old), cells_of(strip)):
                self.refresh(Region(found[0], y, found[1] - found[0], 1))

    def restyle(self) -> None:
        """Draw everything again after the theme has changed."""
        self._drawn.clear()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        self._drawn[y] = strip = self._strip(y)
        return strip.apply_style(self.rich_style)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = new_value
        if round(old_value) != round(new_value):
            self.repaint()

    def on_resize(self) -> None:
        self._drawn.clear()
        self.resize_to(self.virtual_size.height)

    def _strip(self, y: int) -> Strip:
        segments = [
            segment if segment.text.isprintable() else Segment(printable(segment.text), segment.style)
            for segment in self.line_at(y).render(self.app.console, end="")
        ]
        return Strip(segments).adjust_cell_length(self.room)


class ScrolledLines(Lines, can_focus=True):
    """Lines with a scroll bar, moved through with the arrow keys."""

    DEFAULT_CSS = "ScrolledLines { overflow-y: scroll; }"
