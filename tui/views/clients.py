"""Clients: the clients with most connections, by address or by network."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual.binding import Binding, BindingType

from fastscreen.control.messages import ClientsRequest, HistoryClientsRequest, PastClient, TopClient
from fastscreen.tui.figures import bar, clock, count
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ACCENT, BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.past import Past
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import ADMITTED, OUTCOMES

MAX_ROWS = 200


class ClientsView(TableView):
    title = "Clients"
    brief = "Client"
    about = "The clients with most connections"
    columns = (
        Column("client", 18, 43, give=True),
        Column("connects", 8, 10, right=True),
        Column("passed", 8, 10, right=True),
        Column("failed", 8, 10, right=True),
        Column("handed off", 10, 10, right=True),
        Column("share", 10),
    )
    past_columns = (
        Column("client", 18, 43, give=True),
        Column("sessions", 8, 10, right=True),
        Column("admitted", 8, 10, right=True),
        Column("deferred", 8, 10, right=True),
        Column("rejected", 8, 10, right=True),
        Column("others", 7, 10, right=True),
        Column("share", 10),
    )
    keys = (("n", "by network"), ("Enter", "story or events"), ("x", "export"))
    past_keys = (("n", "by network"), ("Enter", "story or sessions"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "networks", show=False)]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._by: Literal["address", "network"] = "address"
        self._clients: list[TopClient] = []
        self._past_clients: list[PastClient] = []

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

    async def poll_past(self, link: Link, past: Past) -> None:
        found = await link.ask(HistoryClientsRequest(past.since, past.until, by=self._by, limit=MAX_ROWS))
        self._past_clients = found.clients[:MAX_ROWS]
        several = found.total != 1
        kind = ("networks (/24, /64)" if several else "network") if self._by == "network" else "client"
        self.note(
            (count(found.total), STRONG),
            f" {kind}{'s' if several and kind == 'client' else ''} with ",
            (count(found.sessions), STRONG),
            f" session{'' if found.sessions == 1 else 's'} in this {past.unit}",
            f", {len(self._past_clients)} shown" if len(self._past_clients) < found.total else "",
            (f"; counted back to {clock(found.searched)}", WARN) if found.searched is not None else "",
        )
        most = max((client.sessions for client in self._past_clients), default=0)
        self.past_table.fill([past_row(client, most) for client in self._past_clients])

    def reset(self) -> None:
        self._clients, self._past_clients = [], []
        super().reset()

    def action_networks(self) -> None:
        """By address or by network."""
        self._by = "network" if self._by == "address" else "address"
        self.table.clear()
        self.past_table.clear()
        self.again()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        if "/" in message.key and self.viewer.past is not None:
            self.viewer.open_connections(message.key)
        elif "/" in message.key:
            self.viewer.open_events(message.key)
        else:
            self.viewer.open_story(message.key)

    def exported(self) -> Export | None:
        if self.viewer.past is not None:
            return Export(
                ("client", "sessions", *OUTCOMES),
                [(c.client, c.sessions, *(c.outcomes.get(name, 0) for name in OUTCOMES)) for c in self._past_clients],
            )
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


def past_row(client: PastClient, most: int) -> Row:
    """The row of a client of the past."""
    outcomes = client.outcomes
    admitted = sum(outcomes.get(name, 0) for name in ADMITTED)
    deferred, rejected = outcomes.get("deferred", 0), outcomes.get("rejected", 0)
    others = client.sessions - admitted - deferred - rejected
    return Row(
        client.client,
        (
            (client.client, PLAIN),
            (count(client.sessions), PLAIN),
            (count(admitted), OK if admitted else MUTED),
            (count(deferred), WARN if deferred else MUTED),
            (count(rejected), BAD if rejected else MUTED),
            (count(others), PLAIN if others else MUTED),
            (bar(client.sessions, most, 14), ACCENT),
        ),
    )
