"""A table of fixed columns whose cells are plain text with a role: nothing in it is ever read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from fastscreen.tui.lines import Lines
from fastscreen.tui.palette import ACCENT, HEADING, PLAIN, SELECTED


class Column(NamedTuple):
    """least, most: width in cells. give: the column shrinks if space is short. The last column takes the rest."""

    title: str
    least: int
    most: int = 0
    right: bool = False
    give: bool = False
    sort: str = ""


class Row(NamedTuple):
    """key: what this row is about, the same in every poll. cells: text and role."""

    key: str
    cells: Sequence[tuple[str, str]]


class Table(Lines, can_focus=True):
    """Headings, rows and a cursor. The cursor stays on what it was put on, wherever that moves to."""

    DEFAULT_CSS = "Table { overflow-y: scroll; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "first", show=False),
        Binding("end,G", "last", show=False),
        Binding("enter", "choose", show=False),
    ]

    class Chosen(Message):
        """Enter, or a click on the row under the cursor."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Heading(Message):
        """A click on the heading of a column that can be sorted by."""

        def __init__(self, sort: str) -> None:
            super().__init__()
            self.sort = sort

    def __init__(self, columns: Sequence[Column], tail: bool = False, id: str | None = None) -> None:
        """tail: the cursor stays on the last row until it is moved."""
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.sort = ""  # the column that rows are sorted by
        self.rows: list[Row] = []
        self._tail = tail
        self._following = tail
        self._held = False  # the cursor was put on a row, and stays with it
        self._cursor = 0
        self._wants = [0] * len(columns)  # widths that contents asked for; they do not shrink, so that nothing jumps
        self._widths: list[int] = []
        self._laid_out = 0  # the room that the widths are for

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        return self.rows[self._cursor].key if self.rows else None

    def fill(self, rows: Sequence[Row]) -> None:
        """Show these rows."""
        key = self.chosen
        self.rows = list(rows)
        self._cursor = min(self._cursor, max(len(rows) - 1, 0))
        if self._following:
            self._cursor = max(len(rows) - 1, 0)
        elif self._held and key is not None:
            self._cursor = next((at for at, row in enumerate(rows) if row.key == key), self._cursor)
        for row in rows:
            for at, (text, _) in enumerate(row.cells):
                self._wants[at] = max(self._wants[at], len(text))
        self._lay_out()
        self.resize_to(len(rows) + 1)
        if self._following or self._held:
            self._reveal()
        self.repaint()

    def clear(self) -> None:
        """No rows, and the cursor where it began."""
        self._cursor, self._held, self._following = 0, False, self._tail
        self._wants = [0] * len(self.columns)
        self.fill([])

    def _lay_out(self) -> None:
        self._laid_out = self.room
        room = self.room - 1
        widths = [
            max(column.least, min(want, column.most)) for column, want in zip(self.columns, self._wants, strict=True)
        ]
        last = len(widths) - 1
        over = sum(widths) + last - room
        for at, column in enumerate(self.columns[:last]):
            if over > 0 and column.give:
                cut = min(over, widths[at] - column.least)
                widths[at] -= cut
                over -= cut
        self._widths = [*widths[:last], max(room - sum(widths[:last]) - last, 0)]

    def line_at(self, y: int) -> Text:
        if self._laid_out != self.room:  # rows may come before there is any
            self._lay_out()
        if y == 0:
            line = Text()
            for at, column in enumerate(self.columns):
                marked = column.sort and column.sort == self.sort
                self._put(line, at, column.title + ("▾" if marked else ""), ACCENT if column.sort else HEADING)
            line.stylize("bold")
            return line
        at = y - 1 + self.scroll_offset.y
        line = Text()
        if at >= len(self.rows):
            return line
        chosen = at == self._cursor and self.has_focus
        for place, (text, role) in enumerate(self.rows[at].cells):
            self._put(line, place, text, PLAIN if chosen else role)
        if chosen:
            line.append(" " * (self.room - len(line.plain)))
            line.stylize(SELECTED)
        return line

    def _put(self, line: Text, at: int, text: str, role: str) -> None:
        width = self._widths[at] if self._widths else 0
        if len(text) > width:
            text = text[: width - 1] + "…" if width > 0 else ""
        text = text.rjust(width) if self.columns[at].right else text.ljust(width)
        line.append(" " + text, role)

    def _reveal(self) -> None:
        top, rows = self.scroll_offset.y, max(self.size.height - 1, 1)
        if self._cursor < top or self._cursor >= top + rows:
            self.scroll_to(y=self._cursor if self._cursor < top else self._cursor - rows + 1, animate=False)

    def _go(self, at: int) -> None:
        self._cursor = max(min(at, len(self.rows) - 1), 0)
        self._held = self._cursor > 0
        self._following = self._tail and self._cursor == len(self.rows) - 1
        self._reveal()
        self.repaint()

    def action_move(self, by: int) -> None:
        self._go(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._go(self._cursor + by * max(self.size.height - 2, 1))

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self.rows) - 1)

    def action_choose(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Chosen(self.chosen))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            edge = 0
            for column, width in zip(self.columns, self._widths, strict=True):
                edge += width + 1
                if event.x < edge:
                    if column.sort:
                        self.post_message(self.Heading(column.sort))
                    return
            return
        at = event.y - 1 + self.scroll_offset.y
        if at < len(self.rows):
            if at == self._cursor and self.has_focus:
                self.action_choose()
            self._go(at)

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_resize(self) -> None:
        self._drawn.clear()
        self._lay_out()
        self.resize_to(len(self.rows) + 1)
