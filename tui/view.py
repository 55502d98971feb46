"""What the screens have in common: a view is asked to poll once a second while it is the one that is seen."""

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
from fastscreen.tui.table import Column, Row, Table

Value = str | int | float | None
Keys = tuple[tuple[str, str], ...]


class Export(NamedTuple):
    """A table as data. What came from a client is escaped in it as on the screen."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


class Application(Protocol):
    """What a screen needs of the application around it: `fastscreen.tui.app.Viewer`."""

    @property
    def link(self) -> Link: ...
    def poll_now(self) -> None: ...
    def open_story(self, address: str) -> None: ...
    def open_events(self, filter: str) -> None: ...
    def go_back(self) -> None: ...
    def say(self, text: str, bad: bool = False) -> None: ...


class Entry(Input):
    """The one line in which something can be typed; Esc leaves it."""

    DEFAULT_CSS = "Entry { height: 1; border: none; padding: 0 1; background: $panel; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("down", "leave", show=False),
    ]

    def __init__(self, hint: str) -> None:
        super().__init__(placeholder=hint, compact=True, select_on_focus=False, max_length=400)
        self.cursor_blink = False

    async def on_key(self, event: events.Key) -> None:
        """Backspace and the like now: Textual would do them behind all letters that came with them on a slow line."""
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
    about: ClassVar[str] = ""  # one line, for the command palette
    keys: ClassVar[Keys] = ()  # for the line at the bottom and for Help

    @property
    def viewer(self) -> Application:
        """The application."""
        return cast(Application, self.app)

    @property
    def link(self) -> Link:
        """The daemon that is looked at."""
        return self.viewer.link

    @property
    def main(self) -> Widget | None:
        """What has the focus when the view is come to."""
        return None

    @property
    def entry(self) -> Entry | None:
        """The line to type in."""
        return None

    async def poll(self, link: Link) -> None:
        """Ask and show; once a second. Raises ControlError."""

    def reset(self) -> None:
        """Another daemon: forget what is shown."""

    def complain(self, trouble: str) -> None:
        """The daemon has refused what was asked."""

    def again(self) -> None:
        """Poll now, because what is asked for has changed."""
        self.viewer.poll_now()

    def submit(self) -> None:
        """What stands in the line to type in counts from now on."""
        self.screen.set_focus(self.main)
        self.again()

    def exported(self) -> Export | None:
        """The table, if there is one."""
        return None


class TableView(View):
    """A view of a table, with a line of notes and perhaps a line to type in above it."""

    columns: ClassVar[Sequence[Column]] = ()
    hint: ClassVar[str] = ""  # of the line to type in; empty: there is none
    tail: ClassVar[bool] = False

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.table = Table(self.columns, tail=self.tail)
        self._entry = Entry(self.hint)
        self._note = Lines(classes="note")

    def compose(self) -> ComposeResult:
        if self.hint:
            yield self._entry
        yield self._note
        yield self.table

    @property
    def main(self) -> Widget | None:
        return self.table

    @property
    def entry(self) -> Entry | None:
        return self._entry if self.hint else None

    @property
    def typed(self) -> str:
        """What the line to type in holds."""
        return self._entry.value.strip()

    def type_in(self, text: str) -> None:
        """Put something into that line."""
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

    def reset(self) -> None:
        self.table.clear()
        self.note()
