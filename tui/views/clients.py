"""Clients: who comes most often, by address or by network."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from fastscreen.control.messages import Clients, Talker
from fastscreen.tui.figures import bar, clock, count
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ACCENT, BAD, MUTED, OK, PLAIN, STRONG
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView

MAX_ROWS = 200


class ClientsView(TableView):
    title = "Clients"
    about = "Who comes most often"
    columns = (
        Column("client", 18, 43, give=True),
        Column("connects", 8, 10, right=True),
        Column("passed", 8, 10, right=True),
        Column("failed", 8, 10, right=True),
        Column("handed on", 9, 10, right=True),
        Column("share", 10),
    )
    keys = (("n", "by network"), ("Enter", "story or events"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "networks", show=False)]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._by = "address"
        self._clients: list[Talker] = []

    async def poll(self, link: Link) -> None:
        found = await link.ask(Clients, "clients", by=self._by, limit=MAX_ROWS)
        self._clients = found.clients[:MAX_ROWS]
        self.note(
            (str(len(self._clients)), STRONG),
            " clients that connect most, by ",
            ("address" if self._by == "address" else "network (/24, /64)", STRONG),
            f", since {clock(found.begins)}" if found.begins is not None else "",
        )
        most = max((talker.connects for talker in self._clients), default=0)
        self.fill([row(talker, most) for talker in self._clients])

    def reset(self) -> None:
        self._clients = []
        super().reset()

    def action_networks(self) -> None:
        """By address or by network."""
        self._by = "network" if self._by == "address" else "address"
        self.table.clear()
        self.again()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        if "/" in message.key:
            self.viewer.open_events(message.key)
        else:
            self.viewer.open_story(message.key)

    def exported(self) -> Export | None:
        return Export(
            ("client", "connects", "passed", "failed", "handed"),
            [(t.client, t.connects, t.passed, t.failed, t.handed) for t in self._clients],
        )


def row(talker: Talker, most: int) -> Row:
    """A client's row, its bar beside the busiest one's."""
    return Row(
        talker.client,
        (
            (talker.client, PLAIN),
            (count(talker.connects), PLAIN),
            (count(talker.passed), OK if talker.passed else MUTED),
            (count(talker.failed), BAD if talker.failed else MUTED),
            (count(talker.handed), OK if talker.handed else MUTED),
            (bar(talker.connects, most, 20), ACCENT),
        ),
    )
