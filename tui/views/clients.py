"""Clients: the clients with most connections, by address or by network."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual.binding import Binding, BindingType

from fastscreen.control.messages import ClientsRequest, TopClient
from fastscreen.tui.figures import bar, clock, count
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ACCENT, BAD, MUTED, OK, PLAIN, STRONG
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView

MAX_ROWS = 200


class ClientsView(TableView):
    title = "Clients"
    about = "The clients with most connections"
    columns = (
        Column("client", 18, 43, give=True),
        Column("connects", 8, 10, right=True),
        Column("passed", 8, 10, right=True),
        Column("failed", 8, 10, right=True),
        Column("handed off", 10, 10, right=True),
        Column("share", 10),
    )
    keys = (("n", "by network"), ("Enter", "story or events"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "networks", show=False)]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._by: Literal["address", "network"] = "address"
        self._clients: list[TopClient] = []

    async def poll(self, link: Link) -> None:
        found = await link.ask(ClientsRequest(self._by, MAX_ROWS))
        self._clients = found.clients[:MAX_ROWS]
        self.note(
            (str(len(self._clients)), STRONG),
            " client with most connections, by " if len(self._clients) == 1 else " clients with most connections, by ",
            ("address" if self._by == "address" else "network (/24, /64)", STRONG),
            f", since {clock(found.complete_since)}" if found.complete_since is not None else "",
        )
        most = max((client.connects for client in self._clients), default=0)
        self.fill([row(client, most) for client in self._clients])

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
            ("client", "connects", "passed", "failed", "handed_off"),
            [(c.client, c.connects, c.passed, c.failed, c.handed_off) for c in self._clients],
        )


def row(client: TopClient, most: int) -> Row:
    """A client's row; its bar is relative to the busiest client."""
    return Row(
        client.client,
        (
            (client.client, PLAIN),
            (count(client.connects), PLAIN),
            (count(client.passed), OK if client.passed else MUTED),
            (count(client.failed), BAD if client.failed else MUTED),
            (count(client.handed_off), OK if client.handed_off else MUTED),
            (bar(client.connects, most, 20), ACCENT),
        ),
    )
