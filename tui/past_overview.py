"""Overview of the past: how the sessions of a minute, an hour or a day ended, within what was usual around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from fastscreen.control.messages import HistoryMinutes, HistorySum
from fastscreen.tui.chart import stacked
from fastscreen.tui.figures import bar, clock, count, date, rate, share
from fastscreen.tui.palette import HEADING, MUTED, OK, PAST, PLAIN, REST, STRONG, WARN
from fastscreen.tui.past import Past, Unit
from fastscreen.tui.wording import ADMITTED, OUTCOMES, outcome

STEPS: dict[Unit, int] = {"minute": 60, "hour": 300, "day": 1800}
"""Seconds per column of the chart, by what is shown."""
CHART_ROWS = (3, 12)  # at least, at most
TABLE_ROWS = len(OUTCOMES) + 4


def window(past: Past, width: int, now: float) -> tuple[int, int]:
    """The time that the chart shows: what is asked for in the middle, if the past goes on for so long."""
    step = STEPS[past.unit]
    columns = max(width - 2, 10)
    end = past.until + max((columns - (past.until - past.since) // step) // 2, 0) * step
    last = past.until + max(int(now - past.until) // step + 1, 0) * step
    end = min(end, last)
    return end - columns * step, end


def overview(found: HistoryMinutes, past: Past, now: float, width: int, height: int) -> list[Text]:
    """The chart, and a row for each way in which sessions ended."""
    since, until = int(found.since), int(found.until)
    inside = [each for each in found.sums if past.since <= each.time < past.until]
    rows = max(min(height - TABLE_ROWS - 3, CHART_ROWS[1]), CHART_ROWS[0])
    lines = _chart(found, past, since, until, width - 1, rows)
    begin = min((each.time for each in found.sums), default=since)  # before it, perhaps nothing was recorded
    end = read_until(found)
    spans = max((min(end, now) - begin) / (past.until - past.since), 1.0)
    late = None if found.complete else unread(end)
    return [*lines, Text(), *_table(inside, found.sums, spans, past, width - 1, late)]


def read_until(found: HistoryMinutes) -> int:
    """The end of what was read for sure. If time ran out, the last step with sessions may be read in part only."""
    if found.complete:
        return int(found.until)
    return int(found.sums[-1].time if found.sums else found.since)


def unread(end: int) -> Text:
    """The warning that later sessions are missing."""
    return Text(" ").append(f"time ran out: sessions since {date(end)} are missing", WARN)


def total(sums: Sequence[HistorySum]) -> tuple[Counter[str], int]:
    """Sessions by outcome, and those of known clients."""
    outcomes: Counter[str] = Counter()
    for each in sums:
        outcomes.update(each.outcomes)
    return outcomes, sum(each.cached for each in sums)


def _chart(found: HistoryMinutes, past: Past, since: int, until: int, width: int, height: int) -> list[Text]:
    step = found.step
    columns = max(min((until - since) // step, width - 1), 1)
    whole, admitted = [0.0] * columns, [0.0] * columns
    for each in found.sums:
        at = int(each.time - since) // step
        if 0 <= at < columns:
            whole[at] += sum(each.outcomes.values())
            admitted[at] += sum(each.outcomes.get(name, 0) for name in ADMITTED)
    top = max(whole)
    inside = range(max((past.since - since) // step, 0), min(-(-(past.until - since) // step), columns))
    here = sum(whole[at] for at in inside)
    head = Text(" ").append(count(here), STRONG).append(" sessions, ", MUTED)
    head.append("█ ", OK).append(count(sum(admitted[at] for at in inside)), STRONG).append(" admitted   ", MUTED)
    head.append("█ ", REST).append("others   ", MUTED)
    head.append(f"peak {rate(top)} per {'minute' if step == 60 else f'{step // 60} minutes'}", MUTED)
    lines = [head, *(Text(" ").append_text(line) for line in stacked(admitted, whole, top, columns, height))]
    axis = Text(" ")
    for at in range(columns):
        axis.append("▔" if at in inside else " ", PAST if at in inside else PLAIN)
    form = clock_minute if past.unit == "minute" else date
    begin, end = f"└ {form(since)}", f"{form(until)} ┘"
    room = max(columns - len(begin) - len(end), 0)
    ends = Text(" ").append(f"{begin}{' ' * room}{end}"[:columns], MUTED)
    return [*lines, axis, ends] if height > CHART_ROWS[0] else [*lines, _both(ends, inside)]


def _both(ends: Text, inside: range) -> Text:
    """The axis with the mark in it, where there is no room for two lines."""
    plain = ends.plain
    line = Text()
    for at, char in enumerate(plain):
        marked = at - 1 in inside
        line.append("▔" if marked else char, PAST if marked else MUTED)
    return line


def clock_minute(time: float) -> str:
    """14:03"""
    return clock(time)[:5]


def _table(
    inside: Sequence[HistorySum],
    around: Sequence[HistorySum],
    spans: float,
    past: Past,
    width: int,
    late: Text | None,
) -> list[Text]:
    here, cached = total(inside)
    usual, usual_cached = total(around)
    names = [*OUTCOMES, *sorted(set(here) - set(OUTCOMES))]
    sessions = sum(here.values())
    most = max(here.values(), default=0)
    room = max(width - 53, 3)
    title = f"Verdicts of the {past.unit}"
    head = Text(" ").append(f"{title:<23}", HEADING)
    lines = [head.append(f"{'sessions':>10}{'share':>7}{'usual':>11}", MUTED)]
    if late is not None:
        lines.append(late)
    elif not sessions:
        lines.append(Text(" ").append(f"no session was recorded in this {past.unit}", WARN))
    for name in names:
        label, _, role = outcome(name)
        number = here[name]
        line = Text(" ").append(f"{label:<23}", role if number else MUTED)
        line.append(f"{count(number):>10}", PLAIN if number else MUTED).append(f"{share(number, sessions):>7}", MUTED)
        line.append(f"{rate(usual[name] / spans):>11} ", MUTED)
        lines.append(line.append(bar(number, most, room), role))
    line = Text(" ").append(f"{'of known clients':<23}", MUTED).append(f"{count(cached):>10}", PLAIN)
    line.append(f"{share(cached, sessions):>7}{rate(usual_cached / spans):>11}", MUTED)
    return [*lines, line]
