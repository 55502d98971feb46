"""DNSBL: weight, counters and state of each list."""

from __future__ import annotations

from fastscreen.control.messages import DnsblList, DnsblRequest, Site
from fastscreen.tui.figures import brief, duration, share
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView

STATE_ROLES = {"ok": OK, "slow": WARN, "failing": BAD, "suspect": WARN, "disabled": BAD, "unused": MUTED}
UNHEALTHY = ("slow", "failing", "suspect", "disabled")
MAX_ROWS = 200


class DnsblView(TableView):
    title = "DNSBL"
    brief = "DNS"
    about = "Weight, counters and state of each list"
    columns = (
        Column("list", 14, 40, give=True),
        Column("wt", 3, 6, right=True),
        Column("queries", 7, 7, right=True),
        Column("hits", 6, 6, right=True),
        Column("unique", 6, 6, right=True),
        Column("overlap", 7, 7, right=True),
        Column("err", 5, 6, right=True),
        Column("p50", 5, 6, right=True),
        Column("p95", 5, 6, right=True),
        Column("state", 8),
    )
    keys = (("Enter", "events of the list"), ("x", "export"))

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lists: list[DnsblList] = []

    async def poll(self, link: Link) -> None:
        dnsbl = await link.ask(DnsblRequest())
        self._lists = dnsbl.lists[:MAX_ROWS]
        unhealthy = sum(item.state in UNHEALTHY for item in self._lists)
        self.note(
            (str(len(self._lists)), STRONG),
            f" list{'s' if len(self._lists) != 1 else ''}, threshold {dnsbl.threshold}",
            f", allow list threshold {dnsbl.allowlist_threshold}",
            (f", {unhealthy} unhealthy", BAD) if unhealthy else "",
        )
        self.fill([row(at, item) for at, item in enumerate(self._lists)])

    def reset(self) -> None:
        self._lists = []
        super().reset()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        self.viewer.open_events(f"list:{message.key.partition(' ')[2]}")

    def exported(self) -> Export | None:
        return Export(
            (
                "list",
                "weight",
                "queries",
                "answers",
                "listed",
                "unique",
                "timeouts",
                "errors",
                "p50",
                "p95",
                "state",
                "reason",
            ),
            [
                (
                    *(i.zone, weights(i.sites), i.queries, i.answers, i.listed, i.unique, i.timeouts, i.errors),
                    *(i.p50, i.p95, i.state, i.reason),
                )
                for i in self._lists
            ],
        )


def weights(sites: list[Site]) -> str:
    """The weight, or the least and the greatest where they differ: +3, -4..+2."""
    found = sorted({site.weight for site in sites})
    if not found:
        return "-"
    return f"{found[0]:+}" if len(found) == 1 else f"{found[0]:+}..{found[-1]:+}"


def row(at: int, item: DnsblList) -> Row:
    """A list's row. at: its place, because masked names need not differ.

    Overlap: the share of its hits that another list had as well. Errors include timeouts.
    """
    errors = item.errors + item.timeouts
    slow = item.p95 is not None and item.p95 >= 1.0
    return Row(
        f"{at} {item.zone}",
        (
            (item.zone, PLAIN),
            (weights(item.sites), PLAIN),
            (brief(item.queries), PLAIN),
            (brief(item.listed), PLAIN if item.listed else MUTED),
            (brief(item.unique), PLAIN if item.unique else MUTED),
            (share(item.listed - item.unique, item.listed), PLAIN),
            (brief(errors), WARN if errors else MUTED),
            (duration(item.p50), PLAIN),
            (duration(item.p95), WARN if slow else PLAIN),
            (item.state, STATE_ROLES.get(item.state, PLAIN)),
        ),
    )
