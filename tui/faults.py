"""Faults that hold now: one red line on every screen, and all of them, with remedies, on the screen of warnings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from fastscreen.control.messages import Condition
from fastscreen.tui.bar import Item
from fastscreen.tui.figures import clock, date
from fastscreen.tui.palette import ALARM, BAD, HEADING, MUTED, STRONG
from fastscreen.tui.wording import wrapped

IMPORTANT = ("listen", "mta", "descriptors", "worker", "disk", "cache", "config", "tables", "log", "resolver")
"""Kinds, the most important first; any other comes after these."""


def ordered(conditions: Sequence[Condition]) -> list[Condition]:
    """The most important first, and of one kind the earliest."""
    rank = {kind: at for at, kind in enumerate(IMPORTANT)}
    return sorted(conditions, key=lambda one: (rank.get(one.kind, len(rank)), one.since))


def line(conditions: Sequence[Condition], screen: int) -> list[Item]:
    """How many there are, and what the most important one is; a click shows all. screen: the number of theirs."""
    first = ordered(conditions)[0]
    number = f"{len(conditions)} fault{'s' if len(conditions) != 1 else ''} ({screen + 1})"
    return [Item(f" {number}  {first.kind.upper()}: {first.text} ", ALARM, f"app.view({screen})")]


def lines(conditions: Sequence[Condition], now: float, width: int) -> list[Text]:
    """All of them: since when, what is wrong, and below it what can be done."""
    shown: list[Text] = []
    for one in ordered(conditions):
        when = clock(one.since) if now - one.since < 86400 else date(one.since)
        head = f" {when:<13}"
        pieces = wrapped(f"{one.kind.upper()}: {one.text}", width - len(head))
        shown.append(Text().append(head, MUTED).append(pieces[0], BAD))
        shown += [Text(" " * len(head)).append(piece, BAD) for piece in pieces[1:]]
        shown += [Text(" " * len(head)).append(piece, STRONG) for piece in wrapped(one.remedy, width - len(head))]
    if shown:
        shown = [
            Text(" ").append("Faults that hold now", HEADING),
            *shown,
            Text(),
            Text(" ").append("Warnings", HEADING),
        ]
    return shown
