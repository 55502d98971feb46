"""Heat map: a day, hour by hour, with the sessions of one verdict in each minute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from fastscreen.control.messages import HistoryMinutes, HistoryMinutesRequest
from fastscreen.tui.figures import count, share
from fastscreen.tui.lines import Lines
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ACCENT, BAD, CURRENT, MUTED, PLAIN, STRONG
from fastscreen.tui.past import MINUTE, Past
from fastscreen.tui.past_overview import read_until, unread
from fastscreen.tui.view import Export, View
from fastscreen.tui.wording import OUTCOMES, outcome

ALL, KNOWN = "all", "known"
CHOICES = (ALL, "rejected", "deferred", "handed_off", "relayed", "continued", "left", "busy", "failed", KNOWN)
"""What can be shown: every session, those with a verdict, or those of known clients."""
LEVELS = "░▒▓█"
LABEL, TOTAL = 7, 9  # cells in front of a row, and behind it
OTHER_ROWS = 6  # head, axis, the mark of the cursor, legend, what is under the cursor, and perhaps a warning
REFRESH = 10.0  # s


class Layout(NamedTuple):
    """hours: of a row. minutes: of a column. cells: of the terminal per column."""

    hours: int
    minutes: int
    cells: int

    @property
    def columns(self) -> int:
        return self.hours * 60 // self.minutes


LAYOUTS = (Layout(1, 1, 2), Layout(1, 1, 1), Layout(2, 1, 1), Layout(2, 2, 1), Layout(2, 3, 1), Layout(3, 3, 1))
"""The first that fits is used; the last one fits always."""


def layout(minutes: int, width: int, height: int) -> Layout:
    """How a day of so many minutes is laid out in a room."""

    def fits(one: Layout) -> bool:
        rows = -(-minutes // (60 * one.hours))
        return LABEL + one.columns * one.cells + TOTAL <= width and rows + OTHER_ROWS <= height

    return next((one for one in LAYOUTS if fits(one)), LAYOUTS[-1])


class Day(NamedTuple):
    """A day's sessions of one choice, by minute; None where nothing is known: later than now, or not read.

    missing: since when sessions were not read, in s since 1970; None: all were.
    """

    since: int
    shown: list[int | None]
    sessions: list[int]
    missing: int | None = None


def day_of(found: HistoryMinutes, since: int, until: int, now: float, choice: str) -> Day:
    """Of a day's sums, those of a choice."""
    minutes = max((until - since) // MINUTE, 1)
    end = read_until(found)
    past = min(max(int(now - since) // MINUTE + 1, 0), minutes)
    if not found.complete:
        past = min(past, max((end - since) // MINUTE, 0))
    shown: list[int | None] = [0] * past + [None] * (minutes - past)
    sessions = [0] * minutes
    for each in found.sums:
        at = int(each.time - since) // MINUTE
        if 0 <= at < minutes and (found.complete or each.time < end):
            sessions[at] = sum(each.outcomes.values())
            shown[at] = (
                sessions[at] if choice == ALL else each.cached if choice == KNOWN else each.outcomes.get(choice, 0)
            )
    return Day(since, shown, sessions, None if found.complete else end)


class HeatMap(Lines, can_focus=True):
    """The day, with a cursor."""

    DEFAULT_CSS = "HeatMap { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0)", show=False),
        Binding("right", "move(1, 0)", show=False),
        Binding("up", "move(0, -1)", show=False),
        Binding("down", "move(0, 1)", show=False),
        Binding("home", "most", show=False),
        Binding("v", "choice(1)", show=False),
        Binding("V", "choice(-1)", show=False),
        Binding("enter", "choose", show=False),
    ]

    class Chosen(Message):
        """Enter, or a click on the cell under the cursor."""

        def __init__(self, minute: int) -> None:
            super().__init__()
            self.minute = minute

    def __init__(self) -> None:
        super().__init__()
        self._found: HistoryMinutes | None = None
        self._span = (0, 0)
        self._now = 0.0
        self._choice = 0
        self._cursor = 0  # a minute of the day

    def put(self, found: HistoryMinutes, span: tuple[int, int], now: float, minute: int | None) -> None:
        """Show a day. minute: where the cursor goes; None: it stays."""
        self._found, self._span, self._now = found, span, now
        if minute is not None:
            self._cursor = (minute - span[0]) // MINUTE
        self._draw()

    def clear(self) -> None:
        """Nothing is known."""
        self._found = None
        self.show([])

    def say(self, trouble: str) -> None:
        """Show why there is nothing to show."""
        self._found = None
        self.show([Text(" ").append(trouble, BAD)])

    @property
    def _day(self) -> Day | None:
        if self._found is None:
            return None
        return day_of(self._found, *self._span, self._now, CHOICES[self._choice])

    @property
    def _layout(self) -> Layout:
        return layout((self._span[1] - self._span[0]) // MINUTE, self.size.width, self.size.height)

    def _draw(self) -> None:
        day = self._day
        if day is None:
            return
        self._cursor = max(min(self._cursor, len(day.shown) - 1), 0)
        self.show(drawn(day, CHOICES[self._choice], self._layout, self._cursor, self.size.width, self._now))

    def on_resize(self) -> None:
        super().on_resize()
        self._draw()

    def action_move(self, columns: int, rows: int) -> None:
        """Move the cursor by cells."""
        one = self._layout
        to = self._cursor + columns * one.minutes + rows * one.hours * 60
        if 0 <= to < (self._span[1] - self._span[0]) // MINUTE:
            self._cursor = to
        self._draw()

    def action_most(self) -> None:
        """To the cell with most sessions."""
        if (day := self._day) is not None:
            cells = gathered(day.shown, self._layout.minutes)
            self._cursor = max(range(len(cells)), key=lambda at: cells[at] or 0) * self._layout.minutes
            self._draw()

    def action_choice(self, by: int) -> None:
        """The next or the previous verdict."""
        self._choice = (self._choice + by) % len(CHOICES)
        self._draw()

    def action_choose(self) -> None:
        """Go to the minute under the cursor: of a cell, the one with most sessions."""
        if (day := self._day) is not None:
            self.post_message(self.Chosen(day.since + busiest(day, self._layout, self._cursor) * MINUTE))

    def on_click(self, event: events.Click) -> None:
        one, row, column = self._layout, event.y - 2, (event.x - LABEL) // self._layout.cells
        at = row * one.hours * 60 + column * one.minutes
        if row < 0 or not 0 <= column < one.columns or at >= (self._span[1] - self._span[0]) // MINUTE:
            return
        if at == self._cursor - self._cursor % one.minutes:
            self.action_choose()
        self._cursor = at
        self._draw()


def gathered(values: Sequence[int | None], each: int) -> list[int | None]:
    """Sums of so many values; None where none is known."""
    groups = [values[at : at + each] for at in range(0, len(values), each)]
    return [sum(known) if (known := [v for v in group if v is not None]) else None for group in groups]


def busiest(day: Day, one: Layout, cursor: int) -> int:
    """Of the cell under the cursor, the minute with most sessions."""
    first = cursor - cursor % one.minutes
    cell = range(first, min(first + one.minutes, len(day.shown)))
    return max(cell, key=lambda at: (day.shown[at] or 0, day.sessions[at], -at))


def bounds(most: int) -> list[int]:
    """The greatest value of each level. The steps grow, so that quiet minutes differ as well."""
    return [max(most * (level + 1) ** 2 // len(LEVELS) ** 2, 1) for level in range(len(LEVELS))]


def drawn(day: Day, choice: str, one: Layout, cursor: int, width: int, now: float) -> list[Text]:
    """The whole screen: head, axis, rows, the mark of the cursor, legend, what is under the cursor, and a warning if
    not all was read."""
    cells = gathered(day.shown, one.minutes)
    limits = bounds(max((value or 0 for value in cells), default=0))
    label, role = words(choice)
    number = sum(value or 0 for value in day.shown)
    head = Text(" ").append(f"{label[0].upper()}{label[1:]}", role or STRONG).append(" on ", MUTED)
    head.append(Past(day.since, "day").text(now), STRONG).append(": ", MUTED).append(count(number), STRONG)
    head.append(" sessions" if choice == ALL else f" of {count(sum(day.sessions))} sessions", MUTED)
    lines = [head, _axis(one)]
    for first in range(0, len(cells), one.columns):
        lines.append(_row(day, cells, first, one, limits, cursor, role))
    mark = LABEL + cursor % (one.hours * 60) // one.minutes * one.cells
    lines.append(Text(" " * mark).append("^" * one.cells, STRONG))
    lines += [_legend(limits, one, role), _under(day, one, cursor, choice)]
    if day.missing is not None:
        lines.append(unread(day.missing))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def words(choice: str) -> tuple[str, str]:
    """A choice in words, and its role."""
    if choice == ALL:
        return "all sessions", ACCENT
    if choice == KNOWN:
        return "known clients", ACCENT
    label, _, role = outcome(choice)
    return label, role


def _axis(one: Layout) -> Text:
    """The minutes within a row."""
    cells = [" "] * (one.columns * one.cells + 6)
    for minute in range(0, one.hours * 60, 20 if one.hours > 1 else 10):
        at = minute // one.minutes * one.cells
        text = f"+{minute // 60}:{minute % 60:02}" if one.hours > 1 else f":{minute:02}"
        cells[at : at + len(text)] = text
    line = Text(" " * LABEL).append("".join(cells).rstrip(), MUTED)
    room = LABEL + one.columns * one.cells + TOTAL - len(line.plain)
    return line.append(f"{'total':>{max(room, 0)}}", MUTED)


def _row(
    day: Day, cells: Sequence[int | None], first: int, one: Layout, limits: Sequence[int], cursor: int, role: str
) -> Text:
    here = first <= cursor // one.minutes < first + one.columns
    begins = datetime.fromtimestamp(day.since + first * one.minutes * MINUTE)
    line = Text().append(f"{'>' if here else ' '}{begins:%H:%M} ", STRONG if here else MUTED)
    row = cells[first : first + one.columns]
    for at, value in enumerate(row):
        if value is None:
            char, style = " ", PLAIN
        elif not value:
            char, style = ".", MUTED
        else:
            char, style = LEVELS[next(level for level, limit in enumerate(limits) if value <= limit)], role
        if here and first + at == cursor // one.minutes:
            char, style = "X", CURRENT
        line.append(char * one.cells, style)
    line.append(" " * ((one.columns - len(row)) * one.cells))
    if day.missing is not None and all(value is None for value in row):
        return line
    total = sum(value or 0 for value in row)
    return line.append(f"{count(total):>{TOTAL}}", PLAIN if total else MUTED)


def _legend(limits: Sequence[int], one: Layout, role: str) -> Text:
    line = Text(" ").append(". ", MUTED).append("none  ", MUTED)
    low = 1
    for char, limit in zip(LEVELS, limits, strict=True):
        if limit >= low:
            text = f"{count(low)}-{count(limit)}" if limit > low else count(low)
            line.append(f"{char}{char} ", role).append(f"{text}  ", MUTED)
            low = limit + 1
    minutes = "minute" if one.minutes == 1 else f"{one.minutes} minutes"
    return line.append(f"sessions per {minutes}", MUTED)


def _under(day: Day, one: Layout, cursor: int, choice: str) -> Text:
    """What is in the cell, and where Enter leads."""
    first = cursor - cursor % one.minutes
    begins, at = (datetime.fromtimestamp(day.since + minute * MINUTE) for minute in (first, busiest(day, one, cursor)))
    ends = datetime.fromtimestamp(day.since + (first + one.minutes) * MINUTE)
    shown = sum(value or 0 for value in day.shown[first : first + one.minutes])
    sessions = sum(day.sessions[first : first + one.minutes])
    line = Text(" ").append(f"{begins:%H:%M}-{ends:%H:%M}  ", STRONG)
    if day.missing is not None and all(value is None for value in day.shown[first : first + one.minutes]):
        return line.append("unknown", MUTED)
    line.append(count(shown), STRONG)
    if choice != ALL:
        line.append(f" of {count(sessions)}", MUTED)
    line.append(f" session{'' if sessions == 1 else 's'}", MUTED)
    if choice != ALL and shown:
        line.append(f", {share(shown, sessions)}", MUTED)
    return line.append("   Enter", ACCENT).append(f" goes to {at:%H:%M}", MUTED)


class HeatView(View):
    title = "Heat map"
    brief = "Heat"
    about = "A day, minute by minute, by verdict"
    keys = (("arrows", "move"), ("v", "verdict"), ("Enter", "go there"), ("{ }", "day"), ("x", "export"))
    past_keys = keys

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._map = HeatMap()
        self._found: HistoryMinutes | None = None
        self._at = (0, 0)  # the day that was asked for
        self._minute = 0  # that the cursor was put on
        self._next = 0.0  # monotonic: when to ask again

    def compose(self) -> ComposeResult:
        yield self._map

    @property
    def main(self) -> Widget | None:
        return self._map

    async def poll(self, link: Link) -> None:
        await self._ask(link, Past(int(link.now), "day"), int(link.now) - MINUTE)

    async def poll_past(self, link: Link, past: Past) -> None:
        await self._ask(link, past._replace(unit="day"), past.minute)

    async def _ask(self, link: Link, day: Past, minute: int) -> None:
        span = (day.since, day.until)
        if span == self._at and time.monotonic() < self._next:
            return
        found = await link.ask(HistoryMinutesRequest(day.since, day.until))
        self._found, self._next = found, time.monotonic() + REFRESH
        moved = span != self._at or (self.viewer.past is not None and minute != self._minute)
        self._map.put(found, span, link.now, minute if moved else None)
        self._at, self._minute = span, minute

    def turn(self) -> None:
        self._next = 0.0

    def reset(self) -> None:
        self._found, self._at, self._next = None, (0, 0), 0.0
        self._map.clear()

    def complain(self, trouble: str) -> None:
        self._at = (0, 0)
        self._map.say(trouble)

    def on_heat_map_chosen(self, message: HeatMap.Chosen) -> None:
        self.viewer.open_overview(message.minute)

    def exported(self) -> Export | None:
        return exported_sums(self._found)


def exported_sums(found: HistoryMinutes | None) -> Export:
    """Each step with its sessions, by how they ended."""
    return Export(
        ("time", *OUTCOMES, "known"),
        [
            (each.time, *(each.outcomes.get(name, 0) for name in OUTCOMES), each.cached)
            for each in (found.sums if found is not None else ())
        ],
    )
