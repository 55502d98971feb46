"""DNSBL: what each list is worth, and whether it works."""

from __future__ import annotations

from fastscreen.control.messages import Dnsbl, DnsblList, Site
from fastscreen.tui.figures import brief, duration, share
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView

STATE_ROLES = {"ok": OK, "slow": WARN, "failing": BAD, "suspect": WARN, "out": BAD, "unused": MUTED}
ILL = ("slow", "failing", "suspect", "out")
MAX_ROWS = 200


class DnsblView(TableView):
    title = "DNSBL"
    about = "What each list is worth, and whether it works"
    columns = (
        Column("list", 14, 40, give=True),
        Column("wt", 3, 6, right=True),
        Column("asked", 6, 6, right=True),
        Column("hits", 6, 6, right=True),
        Column("unique", 6, 6, right=True),
        Column("overlap", 7, 7, right=True),
        Column("err", 5, 6, right=True),
        Column("p50", 5, 6, right=True),
        Column("p95", 5, 6, right=True),
        Column("state", 7),
    )
    keys = (("Enter", "events of the list"), ("x", "export"))

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lists: list[DnsblList] = []

    async def poll(self, link: Link) -> None:
        dnsbl = await link.ask(Dnsbl, "dnsbl")
        self._lists = dnsbl.lists[:MAX_ROWS]
        ill = sum(item.state in ILL for item in self._lists)
        self.note(
            (str(len(self._lists)), STRONG),
            f" lists, threshold {dnsbl.threshold}",
            f", allow list threshold {dnsbl.allowlist_threshold}",
            (f", {ill} not well", BAD) if ill else "",
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
                "asked",
                "answered",
                "listed",
                "unique",
                "timed_out",
                "errors",
                "p50",
                "p95",
                "state",
                "why",
            ),
            [
                (
                    *(i.zone, weights(i.sites), i.asked, i.answered, i.listed, i.unique, i.timed_out, i.errors),
                    *(i.p50, i.p95, i.state, i.why),
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

    Overlap: the part of its hits that another list had as well. Errors: with time-outs.
    """
    errors = item.errors + item.timed_out
    slow = item.p95 is not None and item.p95 >= 1.0
    return Row(
        f"{at} {item.zone}",
        (
            (item.zone, PLAIN),
            (weights(item.sites), PLAIN),
            (brief(item.asked), PLAIN),
            (brief(item.listed), PLAIN if item.listed else MUTED),
            (brief(item.unique), PLAIN if item.unique else MUTED),
            (share(item.listed - item.unique, item.listed), PLAIN),
            (brief(errors), WARN if errors else MUTED),
            (duration(item.p50), PLAIN),
            (duration(item.p95), WARN if slow else PLAIN),
            (item.state, STATE_ROLES.get(item.state, PLAIN)),
        ),
    )
