"""Warnings: current faults, and the latest warnings since the start, the newest first."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.widget import Widget

from fastscreen.control.messages import Warning, WarningsRequest
from fastscreen.tui import faults
from fastscreen.tui.figures import clock, date
from fastscreen.tui.lines import ScrolledLines
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED, OK, WARN
from fastscreen.tui.view import Export, View
from fastscreen.tui.wording import wrapped

MAX_ROWS = 200


class WarningsView(View):
    title = "Warnings"
    brief = "Warn"
    about = "Current faults, and the latest warnings"
    keys = (("x", "export"),)

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._warnings: list[Warning] = []
        self._lines = ScrolledLines()

    def compose(self) -> ComposeResult:
        yield self._lines

    @property
    def main(self) -> Widget | None:
        return self._lines

    async def poll(self, link: Link) -> None:
        found = await link.ask(WarningsRequest())
        self._warnings = sorted(found.warnings, key=lambda warning: -warning.time)[:MAX_ROWS]
        room = self._lines.room - 1
        held = faults.lines(link.status.conditions, link.now, room) if link.status is not None else []
        lines = [*held, *(line for warning in self._warnings for line in shown(warning, link.now, room))]
        self._lines.show(lines if self._warnings else [*held, Text(" ").append("no warnings since the start", OK)])

    def reset(self) -> None:
        self._warnings = []
        self._lines.show([])

    def complain(self, trouble: str) -> None:
        self._lines.show([Text(" ").append(trouble, BAD)])

    def exported(self) -> Export | None:
        return Export(("time", "text"), [(warning.time, warning.text) for warning in self._warnings])


def shown(warning: Warning, now: float, width: int) -> list[Text]:
    """A warning as lines, with its date when it is older than a day."""
    when = clock(warning.time) if now - warning.time < 86400 else date(warning.time)
    head = f" {when:<13}"
    pieces = wrapped(warning.text, width - len(head))
    first = Text().append(head, MUTED).append(pieces[0], WARN)
    return [first, *(Text(" " * len(head)).append(piece, WARN) for piece in pieces[1:])]
