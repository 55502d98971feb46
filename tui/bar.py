"""One line of clickable items: tabs, and the keys at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text
from textual import events

from fastscreen.tui.lines import Lines
from fastscreen.tui.palette import PLAIN


class Item(NamedTuple):
    """action: Textual's name for what a click does. brief: the text where the bar is too narrow for all items."""

    text: str
    role: str = PLAIN
    action: str = ""
    brief: str = ""


class Bar(Lines):
    """Items side by side; those that do not fit are omitted, except `right`, which is at the end."""

    DEFAULT_CSS = "Bar { height: 1; }"

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._items: Sequence[Item] = ()
        self._right: Sequence[Item] = ()
        self._shown: Sequence[Item] = ()

    def fill(self, items: Sequence[Item], right: Sequence[Item] = ()) -> None:
        """Show these items."""
        self._items, self._right = items, right
        line = Text()
        room = self.size.width - sum(len(item.text) for item in right)
        if sum(len(item.text) for item in items) > room:
            items = [item._replace(text=item.brief or item.text) for item in items]
        self._shown = items
        for item in items:
            line.append(item.text[: max(room - len(line.plain), 0)], item.role)
        line.append(" " * (room - len(line.plain)))
        for item in right:
            line.append(item.text, item.role)
        self.show([line])

    def on_resize(self) -> None:
        super().on_resize()
        self.fill(self._items, self._right)

    async def on_click(self, event: events.Click) -> None:
        edge = 0
        for item in self._shown:
            edge += len(item.text)
            if event.x < edge:
                if item.action:
                    await self.app.run_action(item.action)
                return
