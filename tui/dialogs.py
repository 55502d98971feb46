"""Dialogs: a question, an input line, the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from fastscreen.tui.lines import Lines, ScrolledLines
from fastscreen.tui.palette import ACCENT, HEADING, MUTED, STRONG
from fastscreen.tui.view import Entry
from fastscreen.tui.wording import wrapped

BOX_WIDTH = 70


class Confirm(ModalScreen[bool]):
    """A question; only `y` means yes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "answer(True)"), Binding("n,escape,enter,q", "answer(False)")]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Lines()

    def on_mount(self) -> None:
        lines = [Text(piece) for piece in wrapped(self._question, BOX_WIDTH - 4)]
        lines += [Text(), Text("y", ACCENT).append(" yes    ", MUTED).append("n", ACCENT).append(" no", MUTED)]
        box = self.query_one(Lines)
        box.styles.height = len(lines)
        box.show(lines)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Ask(ModalScreen[str | None]):
    """An input line; Esc cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", priority=True)]

    def __init__(self, question: str, text: str) -> None:
        super().__init__()
        self._question = question
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Lines()
            yield Entry("")

    def on_mount(self) -> None:
        self.query_one(Lines).show([Text(self._question)])
        entry = self.query_one(Entry)
        entry.value = self._text
        entry.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self.dismiss(message.value.strip() or None)

    def action_leave(self) -> None:
        self.dismiss(None)


FILTER_HELP = (
    ("192.0.2.1, 192.0.2.0/24", "client addresses, IPv6 too"),
    ("score>=3", "also = < <= >"),
    ("age>10", "sessions older than 10 s"),
    ("stage:greet", "greet, dialogue, queued, handoff, ..."),
    ("kind:pregreet,listed", "events of these kinds"),
    ("failed:pipelining", "clients that failed this test"),
    ("list:zen.spamhaus.org", "events about a list"),
    ("session:17 port:51234", "one session, one port; also worker:1"),
    ('ylmf "mail from"', "any other word: text of a client or reply"),
    ("-stage:greet", "negates a term; all terms must match"),
    ("outcome:rejected mta:5*", "in the past; also helo:*.example"),
)


class Help(ModalScreen[None]):
    """The keys of the screen, those of all screens, the way to the past, and the filter language."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "leave")]

    def __init__(
        self,
        title: str,
        keys: Sequence[tuple[str, str]],
        everywhere: Sequence[tuple[str, str]],
        travel: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__()
        parts = ((title, keys), ("All screens", everywhere), ("The past", travel), ("Filter", FILTER_HELP))
        self._parts = [part for part in parts if part[1]]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box tall"):
            yield ScrolledLines()

    def on_mount(self) -> None:
        lines = [Text("arrow keys: scroll    Esc: back", MUTED)]
        for title, keys in self._parts:
            lines.append(Text(title, HEADING))
            wide = max((len(key) for key, _ in keys), default=0)
            lines += [Text("  ").append(f"{key:<{wide}}", STRONG).append(f"  {what}") for key, what in keys]
        box = self.query_one(ScrolledLines)
        box.show(lines)
        box.focus()

    def action_leave(self) -> None:
        self.dismiss()
