"""Describes the result of a refresh, for the log and the command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from fastscreen.allowlist.lists import Renewal
from fastscreen.allowlist.refresh import Change

_MAX_NAMED = 5  # providers per log line


def sum_of(renewal: Renewal) -> str:
    """One line about added and removed networks; empty without any."""
    changed = [change for change in renewal.changes if change.added or change.removed]
    if not changed:
        return ""
    added, removed = sum(len(each.added) for each in changed), sum(len(each.removed) for each in changed)
    return (
        f"{renewal.of.name}: {_networks(added)} added, {removed:,} removed: "
        f"{_some([f'{each.name} +{len(each.added)} -{len(each.removed)}' for each in changed])}"
    )


def problems_of(renewal: Renewal) -> str:
    """One line about the providers that keep their last result, and why; empty without any."""
    failed = [change for change in renewal.changes if change.problem]
    if not failed:
        return ""
    how_many = f"{len(failed)} of {len(renewal.of.sources)} providers"
    why = _some([problem_of(change) for change in failed])
    return f"{renewal.of.name}: no new result of {how_many}, the last one stays in use: {why}"


def problem_of(change: Change) -> str:
    """The problem of one provider."""
    remedy = f"; to accept it: fastscreen allowlist refresh --accept {change.name}" if change.sudden else ""
    return f"{change.name} ({kept(change.good)}): {change.problem}{remedy}"


def kept(good: float) -> str:
    """The date of the result that is kept."""
    return f"of {time.strftime('%Y-%m-%d', time.gmtime(good))}" if good else "none yet"


def notes_of(renewal: Renewal) -> Iterator[str]:
    """Lines about items that were refused or omitted, if the last refresh did not have them."""
    for change in renewal.changes:
        if change.refused:
            yield f"{renewal.of.name}: {change.name}: refused: {_some(change.refused)}"
        if change.omitted:
            yield f"{renewal.of.name}: {change.name}: omitted, it depends on the client: {_some(change.omitted)}"


def _networks(count: int) -> str:
    return "1 network" if count == 1 else f"{count:,} networks"


def _some(items: Sequence[str]) -> str:
    more = f", and {len(items) - _MAX_NAMED} more" if len(items) > _MAX_NAMED else ""
    return ", ".join(items[:_MAX_NAMED]) + more
