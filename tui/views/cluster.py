"""Cluster: the server through which hosts share passes, what is looked up and stored there, and the other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from rich.text import Text
from textual.app import ComposeResult

from fastscreen.control.messages import Cluster, ClusterOffenses, ClusterPeer, Status
from fastscreen.tui.chart import over_time
from fastscreen.tui.figures import clock, count, date, duration, rate, share, size
from fastscreen.tui.lines import Lines, side_by_side
from fastscreen.tui.link import Link, Sample
from fastscreen.tui.palette import BAD, HEADING, MUTED, OK, PLAIN, REST, STRONG, WARN
from fastscreen.tui.table import Column, Row
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import wrapped

MAX_ROWS = 200
CHART_ROWS = (2, 12)  # at least, at most
PEER_ROWS = 3  # that the chart leaves for peers, at least
PROBLEM_ROWS = 3
SLOW = 5.0  # s; passes usually wait for less than one
BAD_MAC = "bad_mac"
REASONS = {
    BAD_MAC: "bad MAC",
    "foreign": "not a record",
    "newer": "newer version",
    "future": "time in future",
    "expired": "expired",
    "deleted": "deleted",
}
REASON_ROLES = {BAD_MAC: BAD, "foreign": WARN, "newer": WARN, "future": WARN}
NOT_CONFIGURED = "No cluster is configured. docs/cluster.md says how several hosts share passes."

Piece = tuple[str, str]
"""Text and role."""


class ClusterView(TableView):
    title = "Cluster"
    brief = "Clus"
    about = "The server that hosts share passes through, and the other hosts"
    columns = (
        Column("host", 14, 40, give=True),
        Column("last seen", 12, 12, right=True),
        Column("version", 10, 20),
        Column("state", 8),
    )
    keys = (("x", "export"),)

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._peers: list[ClusterPeer] = []
        self._box = Lines()

    def compose(self) -> ComposeResult:
        yield self._box
        yield from super().compose()

    async def poll(self, link: Link) -> None:
        self.draw()

    def on_resize(self) -> None:
        """As when the line of faults comes or goes."""
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """Show what the last status says."""
        status = self.link.status
        if status is None:
            return
        cluster = status.cluster
        hidden = not self.table.display
        self.table.display = self._note.display = cluster is not None
        if cluster is None:
            self._peers = []
            self._show([Text(" ").append(NOT_CONFIGURED)])
            return
        self._peers = cluster.peers[:MAX_ROWS]
        self._show(overview(cluster, status, list(self.link.history), self.size.width, self.size.height))
        away = sum(peer.away for peer in self._peers) if cluster.connected else 0
        self.note(*peers_text(len(self._peers), away))
        if hidden and self.screen.focused is None:
            self.screen.set_focus(self.table)
        self.fill([row(at, peer, status.time, cluster.connected) for at, peer in enumerate(self._peers)])

    def _show(self, lines: Sequence[Text]) -> None:
        self._box.styles.height = len(lines)
        self._box.show(lines)

    def reset(self) -> None:
        self._peers = []
        self._show([])
        super().reset()

    def exported(self) -> Export | None:
        return Export(
            ("host", "last_seen", "version", "away"),
            [(peer.name, peer.seen, peer.version, int(peer.away)) for peer in self._peers],
        )


def row(at: int, peer: ClusterPeer, now: float, connected: bool) -> Row:
    """A peer's row. at: its place, because escaped names need not differ. Without the server, nobody is seen."""
    state, role = ("away", WARN) if peer.away else ("present", OK)
    if not connected:
        state, role = "unknown", MUTED
    seen = f"{duration(max(now - peer.seen, 0.0))} ago"  # by its clock, which may be ahead
    cells = ((peer.name, PLAIN), (seen, role if peer.away else PLAIN), (peer.version or "-", MUTED), (state, role))
    return Row(f"{at} {peer.name}", cells)


# ---- the line in Overview


def summary(cluster: Cluster, status: Status, width: int) -> Text:
    """The cluster in one line. Of the healthy one, as many details as there is room for."""
    line = Text(" ").append("Cluster  ", HEADING)
    found = trouble(cluster, status)
    variants = _variants(cluster, status.time) if found is None else _trouble_variants(cluster, found)
    best: Sequence[Piece] = ()
    for best in variants:
        if len(line.plain) + sum(len(text) for text, _ in best) <= width:
            break
    for text, role in best:
        line.append(text, role)
    line.truncate(width, overflow="ellipsis")
    return line


def _variants(cluster: Cluster, now: float) -> Iterator[list[Piece]]:
    """What the line may say, from the longest text to the shortest."""
    trip = f", {duration(cluster.round_trip)}"
    servers = (
        [("connected to ", PLAIN), (cluster.server, OK), (role_text(cluster), PLAIN), (trip, PLAIN)],
        [(cluster.server, OK), (trip, PLAIN)],
        [("connected", OK), (trip, PLAIN)],
        [("connected", OK)],
    )
    found: tuple[list[Piece], ...] = (
        [(f"{count(cluster.found)} of {count(cluster.asked)} found", PLAIN)],
        [(f"{share(cluster.found, cluster.asked)} found", PLAIN)],
    )
    here = ", ".join(peer.name for peer in cluster.peers if not peer.away)
    named: list[Piece] = [(here, PLAIN)] if here else []
    for peer in cluster.peers:
        if peer.away:
            named += [("; " if named else "", PLAIN), (f"{peer.name} away {duration(max(now - peer.seen, 0.0))}", WARN)]
    counted = list(peers_text(len(cluster.peers), sum(peer.away for peer in cluster.peers)))
    others = (named, counted) if named else (counted,)
    bad = cluster.ignored.get(BAD_MAC, 0)
    forged: list[Piece] = [("; ", PLAIN), (f"{count(bad)} bad MAC{'s' if bad != 1 else ''}", BAD)] if bad else []
    for other, (hits, server) in (
        *product(others, ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))),
        (counted, (1, 3)),
    ):
        queue = f"; queue {count(cluster.queue)}; "
        yield [*servers[server], *forged, ("; ", PLAIN), *found[hits], (queue, PLAIN), *other]


def _trouble_variants(cluster: Cluster, found: Trouble) -> Iterator[list[Piece]]:
    since = f" since {found.since}" if found.since else ""
    lasts = f" ({found.lasts})" if found.since else ""
    why = f": {found.why}" if found.why else ""
    queued = f"; {count(cluster.queue)} queued" if cluster.queue else ""
    for text in (since + lasts + why + queued, since + why + queued, since + why):
        yield [(found.what + text, found.role)]


def role_text(cluster: Cluster) -> str:
    """Behind the server's name. A server whose user may not ask does not say it."""
    return f" ({cluster.role})" if cluster.role not in ("", "unknown") else ""


def peers_text(number: int, away: int) -> tuple[Piece, ...]:
    """How many other hosts there are."""
    if not number:
        return (("no peers", MUTED),)
    pieces: tuple[Piece, ...] = ((count(number), PLAIN), (" peer" if number == 1 else " peers", PLAIN))
    return (*pieces, (f", {count(away)} away", WARN)) if away else pieces


# ---- the screen above the peers


class Trouble(NamedTuple):
    """what: does not work; since, lasts: if that is known; why: if it has been tried."""

    what: str
    why: str = ""
    since: str = ""
    lasts: str = ""
    role: str = BAD


def trouble(cluster: Cluster, status: Status) -> Trouble | None:
    """None: all works."""
    if not cluster.running:
        return Trouble("process not running", "it is started again automatically; see the log")
    if cluster.connected and not cluster.problem:
        return None
    since = cluster.since
    if cluster.connected:  # since then; the condition tells since when the server refuses
        since = next((one.since for one in status.conditions if one.kind == "cluster"), 0.0)
    held = (moment(since, status.time), duration(max(status.time - since, 0.0))) if since else ("", "")
    if cluster.connected:
        return Trouble("not storing", cluster.problem, *held)
    return (
        Trouble("not connected", cluster.problem, *held) if cluster.problem else Trouble("connecting", "", *held, WARN)
    )


def moment(time: float, now: float) -> str:
    """A time of day, or a date when it is older than a day."""
    return clock(time) if now - time < 86400 else date(time)


def overview(cluster: Cluster, status: Status, history: Sequence[Sample], width: int, height: int) -> list[Text]:
    """All that is above the peers, as lines."""
    head = _state(cluster, status, width)
    each = (width - 1) // 3 - 1
    parts = side_by_side([_lookups(cluster), _passes(cluster), _ignored(cluster)], each, 10)
    room = height - len(head) - len(parts) - 4  # the lines around the chart, and above the peers
    offenses = cluster.offenses or ClusterOffenses()
    if offenses != ClusterOffenses() and room > CHART_ROWS[0] + PEER_ROWS:  # otherwise the chart needs its row
        parts.append(_offenses(offenses, width - 1))
        room -= 1
    wanted = min(max(len(cluster.peers), PEER_ROWS), room)
    rows = max(min(room - wanted, CHART_ROWS[1]), room // 4, CHART_ROWS[0])
    chart = _chart(history, width - 1, rows) if room >= rows + PEER_ROWS else []
    return [*head, *chart, *parts]


def _state(cluster: Cluster, status: Status, width: int) -> list[Text]:
    place = Text(" ").append(cluster.server or "no server yet", STRONG).append(role_text(cluster), MUTED)
    place.append("   this host ", MUTED).append(cluster.name or "-", STRONG)
    found = trouble(cluster, status)
    if found is None:
        held = duration(max(status.time - cluster.since, 0.0))
        line = Text(" ").append("connected", OK).append(f" since {moment(cluster.since, status.time)} ({held})")
        return [line.append("   round trip ", MUTED).append(duration(cluster.round_trip), STRONG), place]
    text = f"{found.what} since {found.since} ({found.lasts})" if found.since else found.what
    if not found.why:
        return [Text(" ").append(text, found.role), place]
    lines = [Text(" ").append(piece, found.role) for piece in wrapped(f"{text}: {found.why}", width - 2)[:PROBLEM_ROWS]]
    return [*lines, Text(" ").append(_effect(cluster), STRONG), place]


def _effect(cluster: Cluster) -> str:
    if not cluster.running:
        return "Clients are screened without it."
    if cluster.connected:
        return "Passes are queued until the server takes them. Retried automatically."
    return "Clients are screened without it; passes are queued. Retried automatically."


def _chart(history: Sequence[Sample], width: int, height: int) -> list[Text]:
    asked = [sample.asked for sample in history]
    found = [min(sample.found, sample.asked) for sample in history]
    seconds = history[-1].time - history[0].time if history else 0.0
    lines, top = over_time(found, asked, seconds, width, height)
    now, now_found = (asked[-1], found[-1]) if history else (0.0, 0.0)
    head = Text(" ").append(rate(now), STRONG).append(" look-ups/s   ", MUTED)
    head.append("█ ", OK).append(rate(now_found), STRONG).append(" found   ", MUTED)
    head.append("█ ", REST).append(rate(now - now_found), STRONG).append(" not found   ", MUTED)
    return [head.append(f"peak {rate(top)}", MUTED), *lines]


def _lookups(cluster: Cluster) -> list[Text]:
    return [
        _heading("Look-ups", share(cluster.found, cluster.asked)),
        _figure("asked", count(cluster.asked)),
        _figure("found", count(cluster.found), OK if cluster.found else PLAIN),
        _figure("waits ended", count(cluster.ended)),
        _counter("too late", cluster.late),
        _counter("unanswered", cluster.unanswered),
        _counter("packets dropped", cluster.worker_packets_dropped),
        _counter("answers dropped", cluster.packets_dropped),
    ]


def _passes(cluster: Cluster) -> list[Text]:
    slow = WARN if cluster.queue_age >= SLOW else PLAIN
    return [
        _heading("Passes", ""),
        _figure("stored", count(cluster.stored)),
        _figure("queue", count(cluster.queue), slow),
        _figure("queue size", size(cluster.queue_bytes), slow),
        _figure("oldest waits", duration(cluster.queue_age) if cluster.queue else "-", slow),
        _counter("queue dropped", cluster.queue_dropped),
        _figure("resync", "running" if cluster.resync else "-", STRONG if cluster.resync else PLAIN),
        _figure("deletions", count(cluster.deletions)),
    ]


def _ignored(cluster: Cluster) -> list[Text]:
    lines = [_heading("Ignored records", count(sum(cluster.ignored.values())))]
    for key, label in REASONS.items():
        lines.append(_counter(label, cluster.ignored.get(key, 0), REASON_ROLES.get(key, PLAIN)))
    others = sum(number for key, number in cluster.ignored.items() if key not in REASONS)  # of a newer daemon
    return [*lines, _counter("others", others)] if others else lines


def _offenses(offenses: ClusterOffenses, width: int) -> Text:
    line = Text(" ").append("Offenses ", HEADING).append(count(offenses.stored), STRONG).append(" stored, ", MUTED)
    line.append(count(offenses.found), STRONG).append(" found, ", MUTED)
    line.append(count(offenses.queue), STRONG).append(" in the queue", MUTED)
    if offenses.dropped:
        line.append(f", {count(offenses.dropped)} dropped", WARN)
    line.truncate(width, overflow="ellipsis")
    return line


def _heading(title: str, more: str) -> Text:
    return Text().append(f"{title:<15}", HEADING).append(f"{more:>8}", MUTED)


def _figure(label: str, value: str, role: str = PLAIN) -> Text:
    return Text().append(f"{label:<15}{value:>8}", role)


def _counter(label: str, number: int, role: str = WARN) -> Text:
    """A number that should be 0."""
    return _figure(label, count(number), role if number else MUTED)
