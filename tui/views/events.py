"""Events as they happen, with a mark where some were lost."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from textual.binding import Binding, BindingType

from fastscreen.control import client
from fastscreen.control.messages import Event
from fastscreen.tui.figures import clock, count
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ALARM, MUTED, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import ROLES, detail

KEPT = 1000  # lines
RECENT = 200  # requested at the beginning


class EventsView(TableView):
    title = "Events"
    brief = "Event"
    about = "Events as they happen"
    hint = 'filter, such as: kind:pregreet,listed -192.0.2.0/24 "EHLO ylmf"'
    tail = True
    columns = (
        Column("time", 12, 12),
        Column("address", 15, 39, give=True),
        Column("kind", 10, 16),
        Column("details", 12),
    )
    keys = (("/", "filter"), ("space", "pause"), ("Enter", "story"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "pause", show=False)]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._kept: deque[tuple[Row, Event | int]] = deque(maxlen=KEPT)  # an int: so many were lost
        self._paused = False
        self._seen = self._lost = self._marks = 0

    async def poll(self, link: Link) -> None:
        """Follow until the request changes."""
        subscription = await link.subscribe(self.typed, RECENT)
        self.reset()
        self._draw()
        try:
            async for events, lost in subscription:
                self._take(events, lost)
                self._draw()
        finally:
            await subscription.cancel()

    def _take(self, events: list[object], lost: int) -> None:
        if lost:
            self._lost += lost
            self._marks += 1
            events_lost = "event is" if lost == 1 else "events are"
            text = f"{count(lost)} {events_lost} missing: too many to show, or overwritten before they were read"
            self._kept.append(
                (Row(f"lost {self._marks}", (("", MUTED), ("", MUTED), ("lost", ALARM), (text, WARN))), lost)
            )
        for answer in events:
            event = client.event(answer)
            self._seen += 1
            self._kept.append((row(event), event))

    def _draw(self) -> None:
        self.note(
            (count(self._seen), STRONG),
            " event" if self._seen == 1 else " events",
            (f", {count(self._lost)} lost", WARN) if self._lost else "",
            ("   PAUSED: press space to continue", WARN) if self._paused else "",
        )
        if not self._paused:
            self.fill([line for line, _ in self._kept])

    def reset(self) -> None:
        self._kept.clear()
        self._seen = self._lost = 0
        self._paused = False
        super().reset()

    def action_pause(self) -> None:
        """Pause, or continue."""
        self._paused = not self._paused
        self._draw()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        event = next((event for line, event in self._kept if line.key == message.key), None)
        if isinstance(event, Event) and event.address:
            self.viewer.open_story(event.address)

    def exported(self) -> Export | None:
        events = [event for _, event in self._kept if isinstance(event, Event)]
        return Export(
            ("time", "worker", "sequence", "session", "address", "port", "kind", "stage", "list", "number", "text"),
            [
                (e.time, e.worker, e.sequence, e.session, e.address, e.port, e.kind, e.stage, e.zone, e.number, e.text)
                for e in events
            ],
        )


def row(event: Event) -> Row:
    """An event's line."""
    role = ROLES.get(event.kind, PLAIN)
    return Row(
        f"{event.worker} {event.sequence}",
        ((clock(event.time, fraction=True), MUTED), (event.address, PLAIN), (event.kind, role), (detail(event), PLAIN)),
    )
