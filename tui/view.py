"""The base of all screens: the one that is shown is polled once per second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, cast

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input

from fastscreen.tui.lines import Lines
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED
from fastscreen.tui.past import Past
from fastscreen.tui.table import Column, Row, Table

Value = str | int | float | None
Keys = tuple[tuple[str, str], ...]


class Host(Protocol):
    """What a screen uses of the application."""

    @property
    def link(self) -> Link:
        """The daemon that is shown."""

    @property
    def past(self) -> Past | None:
        """The past that is shown; None: the present."""

    def poll_now(self) -> None:
        """Poll for the current screen at once."""

    def go_to_past(self, time: float) -> None:
        """Show the minute of this time (s since 1970)."""

    def go_back(self) -> None:
        """From a story to the screen where it was opened."""

    def open_story(self, address: str, session: int = 0) -> None:
        """Show the story of an address. session: the recorded session that is shown in full."""

    def open_events(self, filter: str) -> None:
        """Follow the events that match."""

    def open_overview(self, time: float) -> None:
        """Show Overview of the minute of this time."""

    def open_connections(self, filter: str) -> None:
        """Show the sessions that match."""

    def show_keys(self) -> None:
        """Show the keys of the screen, which have changed."""

    def say(self, text: str, bad: bool = False) -> None:
        """Show a short message in the corner."""


class Export(NamedTuple):
    """A table as data. Text of clients is escaped as on the screen."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


class Entry(Input):
    """An input line; Esc leaves it."""

    DEFAULT_CSS = "Entry { height: 1; border: none; padding: 0 1; background: $panel; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("down", "leave", show=False),
    ]

    def __init__(self, hint: str) -> None:
        super().__init__(placeholder=hint, compact=True, select_on_focus=False, max_length=400)
        self.cursor_blink = False

    async def on_key(self, event: events.Key) -> None:
        """Handle Backspace and the like at once: on a slow line, Textual would do so after the letters behind them."""
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self:
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)

    def action_leave(self) -> None:
        """Back to what is below."""
        self.screen.focus_next()


class View(Vertical):
    """A screen of the application."""

    title: ClassVar[str] = ""
    brief: ClassVar[str] = ""  # the title in a terminal that is too narrow for all of them
    about: ClassVar[str] = ""  # one line, for the command palette
    keys: Keys = ()  # for the line at the bottom and for Help
    past_keys: ClassVar[Keys | None] = None  # the same in the past; None: this screen has no past

    @property
    def viewer(self) -> Host:
        """The application."""
        return cast(Host, self.app)

    @property
    def link(self) -> Link:
        """The daemon that is shown."""
        return self.viewer.link

    @property
    def main(self) -> Widget | None:
        """The widget that has the focus first."""
        return None

    @property
    def entry(self) -> Entry | None:
        """The input line."""
        return None

    async def poll(self, link: Link) -> None:
        """Ask the daemon and show the answer, every second. Raises ControlError."""

    async def poll_past(self, link: Link, past: Past) -> None:
        """Ask for the past and show it: once, but again while it is not over. Raises ControlError."""

    def turn(self) -> None:
        """Another time is shown: the past, another past, or the present again."""

    def reset(self) -> None:
        """Another daemon is shown: clear the screen."""

    def complain(self, trouble: str) -> None:
        """The daemon has refused the request."""

    def again(self) -> None:
        """Poll now, because the request has changed."""
        self.viewer.poll_now()

    def submit(self) -> None:
        """Use what the input line holds from now on."""
        self.screen.set_focus(self.main)
        self.again()

    def exported(self) -> Export | None:
        """The table, if there is one."""
        return None


class TableView(View):
    """A view of a table, with a line of notes above it, and perhaps an input line."""

    columns: ClassVar[Sequence[Column]] = ()
    past_columns: ClassVar[Sequence[Column]] = ()  # of the table that is there in the past
    hint: ClassVar[str] = ""  # of the input line; empty: no input line
    past_hint: ClassVar[str] = ""
    tail: ClassVar[bool] = False

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.table = Table(self.columns, tail=self.tail)
        self.past_table = Table(self.past_columns)
        self.past_table.display = False
        self._entry = Entry(self.hint)
        self._note = Lines(classes="note")

    def compose(self) -> ComposeResult:
        if self.hint:
            yield self._entry
        yield self._note
        yield self.table
        if self.past_columns:
            yield self.past_table

    @property
    def main(self) -> Widget | None:
        return self.past_table if self.past_table.display else self.table

    @property
    def entry(self) -> Entry | None:
        return self._entry if self.hint else None

    @property
    def typed(self) -> str:
        """The text of the input line."""
        return self._entry.value.strip()

    def type_in(self, text: str) -> None:
        """Set the text of the input line."""
        self._entry.value = text

    def note(self, *parts: tuple[str, str] | str) -> None:
        """Set the line of notes."""
        line = Text(" ")
        for part in parts:
            text, role = part if isinstance(part, tuple) else (part, MUTED)
            line.append(text, role)
        self._note.show([line])

    def complain(self, trouble: str) -> None:
        self.note((trouble, BAD))

    def fill(self, rows: Sequence[Row]) -> None:
        """Show these rows."""
        self.table.fill(rows)

    def turn(self) -> None:
        if not self.past_columns:
            return
        past = self.viewer.past is not None
        focused = self.screen.focused in (self.table, self.past_table)
        self.table.display, self.past_table.display = not past, past
        self._entry.placeholder = self.past_hint if past else self.hint
        self.past_table.clear()
        self.note()
        if focused:
            self.screen.set_focus(self.main)

    def reset(self) -> None:
        self.table.clear()
        self.past_table.clear()
        self.note()
