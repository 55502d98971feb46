"""Judges the sessions of a history: reads them in time order, and gives them to the core's judge."""

from __future__ import annotations

from collections.abc import Callable

from fastscreen.core import HistoryJudge
from fastscreen.history.archive import Archive
from fastscreen.history.day import COUNT_BITS
from fastscreen.history.filter import Query
from fastscreen.history.settings import HistorySettings
from fastscreen.tune.settings import description

WHOLE = (32, 128)
"""Bits of addresses, if history.mask is empty."""


def ends(archive: Archive, since: int, until: int) -> tuple[int, int] | None:
    """The beginning of the first minute and the end of the last one with sessions, in µs since 1970, within the period.
    None: there are no sessions."""
    first = last = None
    for minute in archive.minutes(since - since % 60_000_000, until):
        first = minute[0] if first is None else first
        last = minute[0]
    if first is None or last is None:
        return None
    return max(since, first * 60_000_000), min(until, (last + 1) * 60_000_000)


def judge(
    archive: Archive,
    since: int,
    until: int,
    settings: HistorySettings,
    hostname: str,
    advance: Callable[[int], None] = lambda count: None,
    *,
    detail: bool = False,
    collecting: bool = False,
    mask: tuple[int, int] = WHOLE,
) -> HistoryJudge:
    """Judge the sessions that ended in a period (µs since 1970) by these settings.

    advance: called with the number of sessions that were read. detail, collecting, mask: see HistoryJudge.
    """
    found = HistoryJudge(description(settings), hostname, COUNT_BITS, detail=detail, collecting=collecting, mask=mask)
    for number, had in archive.all_settings().items():
        found.add_settings(number, description(had))
    for page in archive.pages(Query(since, until), seen=advance):
        found.feed(page)
    found.finish()
    return found
