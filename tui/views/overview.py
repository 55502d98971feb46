"""Overview: what connects, what happens to it, and the state of MTA, cache, cluster, history, memory, lists and
workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult

from fastscreen.control.messages import (
    TESTS,
    DnsblList,
    DnsblRequest,
    HistoryMinutes,
    HistoryMinutesRequest,
    Status,
)
from fastscreen.tui import past_overview
from fastscreen.tui.chart import over_time
from fastscreen.tui.figures import bar, count, duration, rate, share, size, sparkline
from fastscreen.tui.lines import Lines, side_by_side
from fastscreen.tui.link import ControlError, Link, Sample, Unreachable
from fastscreen.tui.palette import ACCENT, ALARM, BAD, HEADING, MUTED, OK, PLAIN, REST, STRONG, WARN
from fastscreen.tui.past import Past
from fastscreen.tui.view import Export, View
from fastscreen.tui.views.cluster import summary
from fastscreen.tui.views.dnsbl import STATE_ROLES
from fastscreen.tui.views.heat import exported_sums
from fastscreen.tui.views.recorder import memory_line, recorder_line
from fastscreen.tui.wording import ROLES, STAGE_ROLES

WIDE = 120  # columns from which there are three parts side by side
CHART_ROWS = (3, 20)  # at least, at most
PARTS_ROWS = 14
VERDICTS = (
    ("cached", "known, PASS OLD"),
    ("passed", "passed the tests"),
    ("allowlisted", "allowlisted"),
    ("handed_off", "handed off to MTA"),
    ("rejected", "rejected"),
    *((test.event, test.label) for test in TESTS if test.event == test.key and not test.own),
    ("denylisted", "denylisted"),
    ("hangup", "hung up"),
    ("busy", "rejected: busy"),
    ("handoff_failed", "hand-off failed"),
)
RARE_VERDICTS = (
    *((test.event, test.label) for test in TESTS if test.event == test.key and test.own),
    ("bypassed", "BYPASSED"),
)
"""They have a row once there was one."""


class OverviewView(View):
    title = "Overview"
    brief = "Over"
    about = "Clients, verdicts, and the state of MTA, cache, lists and workers"
    keys = (("0-9 w", "screens"), ("left", "the past"), ("p", "picture"), ("t", "theme"), (":", "commands"))
    past_keys = (("0-9 w", "screens"), ("left right", "minute"), ("p", "picture"), ("x", "export"))

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lists: list[DnsblList] = []
        self._found: HistoryMinutes | None = None  # around the past that is shown
        self._asked_width = 0
        self._trouble = ""
        self._lines = Lines()

    def compose(self) -> ComposeResult:
        yield self._lines

    async def poll(self, link: Link) -> None:
        try:
            self._lists = (await link.ask(DnsblRequest())).lists
        except Unreachable:
            raise
        except ControlError:  # the DNSBL screen shows why
            self._lists = []
        self.draw()

    async def poll_past(self, link: Link, past: Past) -> None:
        self._asked_width = self._lines.size.width
        since, until = past_overview.window(past, self._asked_width, link.now)
        wanted = HistoryMinutesRequest(since, until, past_overview.STEPS[past.unit])
        self._found, self._trouble = await link.ask(wanted), ""
        self.draw()

    def turn(self) -> None:
        self._found, self._trouble = None, ""

    def complain(self, trouble: str) -> None:
        self._trouble = trouble
        self.draw()

    def on_resize(self) -> None:
        """As when the line of faults comes or goes."""
        if self.viewer.past is not None and self._lines.size.width not in (0, self._asked_width):
            self.again()  # another number of columns
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """Show what is known; with or without an answer."""
        lines = self._lines
        status, past = self.link.status, self.viewer.past
        if past is not None:
            if self._trouble:
                lines.show([Text(), Text(" ").append(self._trouble, BAD)])
            elif self._found is not None:
                size = lines.size
                lines.show(past_overview.overview(self._found, past, self.link.now, size.width, size.height))
            else:
                lines.show([])
            return
        if status is None:
            lines.show([Text(), Text(" ").append("no data yet", MUTED)])
            return
        lines.show(overview(status, list(self.link.history), self._lists, lines.size.width, lines.size.height))

    def reset(self) -> None:
        self._lists, self._found = [], None
        self.draw()

    def exported(self) -> Export | None:
        if self.viewer.past is not None:
            return exported_sums(self._found)
        history = self.link.history
        kinds = sorted({kind for sample in history for kind in sample.rates})
        return Export(
            ("time", "sessions", "handoffs", *kinds),
            [(s.time, s.sessions, s.handoffs, *(s.rates.get(kind, 0.0) for kind in kinds)) for s in history],
        )


def overview(
    status: Status, history: Sequence[Sample], lists: Sequence[DnsblList], width: int, height: int
) -> list[Text]:
    """The whole screen as lines."""
    columns = 3 if width >= WIDE else 2
    each = (width - 1) // columns - 1
    held, health = (
        _held(status, history, each),
        [*_lists(lists, each, 6 if columns == 3 else 3), *_workers(status, history, each)],
    )
    rare = sum(1 for kind, _ in RARE_VERDICTS if status.counts.get(kind))
    extra = [summary(status.cluster, status, width - 1)] if status.cluster is not None else []
    extra += [recorder_line(status.history, status.time, width - 1)] if status.history is not None else []
    extra += [memory_line(status.memory, width - 1)] if status.memory is not None else []
    chart = max(min(height - PARTS_ROWS - rare - len(extra) - 2, CHART_ROWS[1]), CHART_ROWS[0])
    rows = max(height - chart - len(extra) - 2, 1)
    parts = [_verdicts(status, history, each), held, health] if columns == 3 else [_verdicts(status, history, each)]
    if columns == 2:
        parts.append([*held, *health])
    return [*_chart(history, width - 1, chart), *extra, *side_by_side(parts, each, rows)]


def _chart(history: Sequence[Sample], width: int, height: int) -> list[Text]:
    connects = [sample.rates.get("connect", 0.0) for sample in history]
    handed = [sample.rates.get("handed_off", 0.0) for sample in history]
    now, now_handed = (connects[-1], handed[-1]) if history else (0.0, 0.0)
    seconds = history[-1].time - history[0].time if history else 0.0
    lines, top = over_time(handed, connects, seconds, width, height)
    head = Text(" ").append(rate(now), STRONG).append(" connects/s   ", MUTED)
    head.append("█ ", OK).append(rate(now_handed), STRONG).append(" handed off to the MTA   ", MUTED)
    rejected = history[-1].rates.get("rejected", 0.0) if history else 0.0
    head.append("█ ", REST).append("others, ", MUTED).append(rate(rejected), STRONG)
    head.append(" rejected   ", MUTED).append(f"peak {rate(top)}", MUTED)
    return [head, *lines]


def _verdicts(status: Status, history: Sequence[Sample], width: int) -> list[Text]:
    minute = history[-60:]
    rows = []
    for kind, name in (*VERDICTS, *(row for row in RARE_VERDICTS if status.counts.get(row[0]))):
        lately = sum(sample.rates.get(kind, 0.0) for sample in minute) / len(minute) if minute else 0.0
        rows.append((kind, name, status.counts.get(kind, 0), lately))
    most = max(lately for *_, lately in rows)
    room = max(width - 37, 3)
    lines = [Text().append(f"{'Verdicts':<17}", HEADING).append(f"{'since start':>11}{'per s':>9}", MUTED)]
    for kind, name, total, lately in rows:
        role = ROLES.get(kind, PLAIN) if total else MUTED
        line = Text().append(f"{name:<17}", role).append(f"{count(total):>11}", PLAIN if total else MUTED)
        line.append(f"{rate(lately):>9} ", PLAIN if lately else MUTED)
        lines.append(line.append(bar(lately, most, room), role))
    return lines


def _held(status: Status, history: Sequence[Sample], width: int) -> list[Text]:
    stages: dict[str, int] = {"greet": 0, "dialogue": 0, "queued": 0, "handoff": 0}
    for worker in status.workers:
        for stage, number in worker.stages.items():
            stages[stage] = stages.get(stage, 0) + number
    sessions = sum(worker.sessions for worker in status.workers) - stages.get("relay", 0)
    if not any(status.counts.get(kind) for kind in ("continued", "continue_failed", "relayed")):
        for stage in ("continue", "relay"):  # nothing is relayed: these rows would only displace others
            if not stages.get(stage):
                stages.pop(stage, None)
    limit = status.limits.get("pre_queue")
    line = Text().append(f"{'Sessions':<10}", HEADING).append(f"{count(sessions):>8}", STRONG)
    lines = [line.append(f" of {count(limit)}" if limit else "", MUTED)]
    most = max(stages.values(), default=0)
    for stage, number in list(stages.items())[:6]:
        role = STAGE_ROLES.get(stage, PLAIN)
        line = Text().append(f"{stage:<10}", role).append(f"{count(number):>8} ")
        lines.append(line.append(bar(number, most, max(width - 20, 3)), role))
    queue = [float(sample.handoffs) for sample in history]
    line = Text().append(f"{'MTA queue':<10}", HEADING).append(f"{count(queue[-1] if queue else 0):>8} ")
    lines.append(line.append(sparkline(queue, max(width - 20, 3)), ACCENT))
    cache = status.cache
    line = Text().append(f"{'Cache':<10}", HEADING)
    if cache is None:
        return [*lines, line.append(" disabled", MUTED)]
    line.append(f"{share(cache.hits, cache.hits + cache.misses):>8} ", STRONG).append("hit, ", MUTED)
    return [*lines, line.append(count(cache.entries)).append(" entry" if cache.entries == 1 else " entries", MUTED)]


def _lists(lists: Sequence[DnsblList], width: int, rows: int) -> list[Text]:
    healthy = sum(item.state in ("ok", "unused") for item in lists)
    line = (
        Text()
        .append(f"{'DNSBL':<10}", HEADING)
        .append(f"{len(lists):>8} ", STRONG)
        .append("list" if len(lists) == 1 else "lists", MUTED)
    )
    if healthy < len(lists):
        line.append(f", {len(lists) - healthy} unhealthy", BAD)
    lines = [line]
    order = {"disabled": 0, "suspect": 1, "failing": 2, "slow": 3, "ok": 4}
    name = max(width - 22, 8)
    for item in sorted(lists, key=lambda item: (order.get(item.state, 3), -(item.p95 or 0.0)))[:rows]:
        line = Text().append(f"{item.zone[:name]:<{name}} ")
        line.append(f"{duration(item.p50):>6}{duration(item.p95):>6} ", MUTED)
        lines.append(line.append(f"{item.state:<8}", STATE_ROLES.get(item.state, PLAIN)))
    return lines


def _workers(status: Status, history: Sequence[Sample], width: int) -> list[Text]:
    line = Text().append("Workers  ", HEADING).append(f"{'sessions':>8}{'cpu':>6}{'memory':>8}", MUTED)
    lines = [line]
    used = history[-1].cpu if history else {}
    for worker in status.workers:
        cpu = f"{100 * used[worker.number]:.0f} %" if worker.number in used else "-"
        line = Text().append(f"{worker.number:>2} {worker.pid:<7}")
        line.append(f"{count(worker.sessions):>7}").append(f"{cpu:>6}{size(worker.rss):>8}", MUTED)
        if worker.stress:
            line.append(" ").append("STRESS", ALARM)
        elif not worker.accepting:
            line.append(" ").append("full", WARN)
        elif worker.log_lines_lost:
            line.append(" log lost", BAD)
        lines.append(line)
    lines += [Text().append(f"{number:>2} does not answer", BAD) for number in status.missing_workers]
    return lines
