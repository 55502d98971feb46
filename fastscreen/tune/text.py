"""The results of `fastscreen tune` for people."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from fastscreen.escaping import printable
from fastscreen.tune.labeled import Feature, Judged
from fastscreen.tune.settings import Tried
from fastscreen.tune.suggest import Share

REASONS = {
    "version": "the record was written by another version",
    "settings": "the settings that the session had are not in the history",
    "different": "the rules do not explain what was recorded",
    "test": "a test was not made, or not to its end",
    "list": "a list was not asked",
    "cut": "a list's answers or the HELO name are cut in the record",
    "ended": "the session ended before it showed what is needed",
    "order": "two things happened in an unknown order",
    "memory": "the memory of offenses was not asked, or by other settings",
    "pass": "whether the client still had a pass is unknown",
    "limit": "a limit rejected the client before it was tested",
    "room": "more clients than are followed",
}
RESULTS = {
    "handed_off": "handed off",
    "deferred": "deferred",
    "rejected": "rejected",
    "left": "left without a verdict",
    "busy": "rejected by a limit",
    "failed": "MTA not reached",
    "unknown": "cannot be judged",
}
KINDS = {
    "retried": "came back after a 450 and passed",
    "accepted": "message accepted by the MTA",
    "allowed": "on an allow list",
    "known": "handed off for 30 days",
    "mta": "rejected by the MTA",
    "listed": "listed within a day",
    "test": "failed a test",
}
_EXAMPLES = 10
_MAX_NAME = 27


def span(first: int, last: int) -> str:
    """A period in local time; µs since 1970."""
    return f"{_moment(first)} to {_moment(last)}"


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time / 1e6).astimezone().strftime("%Y-%m-%d %H:%M")


def number(value: int) -> str:
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """A share in percent, with two significant digits."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 1 or not part else f"{percent:.2g} %"


def changes(tried: Tried) -> Iterator[str]:
    """The keys that are tried."""
    if not tried.changed:
        yield f"Settings: those of {printable(tried.source)}, unchanged"
        return
    yield f"Settings: those of {printable(tried.source)}, with"
    for key, before, after in tried.changed:
        yield f"  {key} = {after}  (instead of {before})"


def summary(found: Mapping[str, Any], examples: Mapping[str, Sequence[tuple[bytes, Sequence[str]]]]) -> Iterator[str]:
    """All sections about the sessions of a history."""
    yield from _results(found)
    yield from _moved(found)
    yield from _collateral(found)
    yield from _misses(found)
    yield from _features(found["features"])
    yield from _unjudged(found)
    yield from _examples(examples)


def _row(name: str, *cells: str) -> str:
    """A line of at most 80 columns."""
    width = 11 if len(cells) < 5 else 10 if len(cells) < 6 else 9
    return (f"{name:<{80 - max(4, len(cells)) * width}}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip()


def _head(name: str, *cells: str) -> Iterator[str]:
    yield ""
    yield _row(name, *cells)


def _results(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield _row("", "happened", "", "would have", "")
    yield _row("Results", *("sessions", "clients") * 2)
    for key, name in RESULTS.items():
        before, after = found["happened"][key], found["would"][key]
        if any((*before, *after)):
            yield _row(f"  {name}", *(number(each) for each in (*before, *after)))


def _moved(found: Mapping[str, Any]) -> Iterator[str]:
    moved = {ends: count for ends, count in found["moved"].items() if ends[0] != ends[1] and ends[1] != "unknown"}
    yield from _head("Changes", "sessions")
    if not moved:
        yield "  none"
    for (before, after), count in sorted(moved.items(), key=lambda each: -each[1]):
        yield _row(f"  {RESULTS[before]} → {RESULTS[after]}", number(count))


def _collateral(found: Mapping[str, Any]) -> Iterator[str]:
    before, after = found["collateral"]["happened"], found["collateral"]["would"]
    good = found["good"]
    yield from _head(f"Collateral, of {number(good)} good clients", *("sessions", "clients") * 2)
    for key in ("rejected", "deferred"):
        yield _row(f"  {key}", *(number(each) for each in (*before[key], *after[key])))
        yield _row("    share of good clients", "", share(before[key][1], good), "", share(after[key][1], good))
        for kind, count in after[f"{key}_by_kind"].items():
            if count or before[f"{key}_by_kind"][kind]:
                yield _row(f"    {KINDS[kind]}", "", number(before[f"{key}_by_kind"][kind]), "", number(count))


def _misses(found: Mapping[str, Any]) -> Iterator[str]:
    before, after = found["misses"]["happened"], found["misses"]["would"]
    yield from _head("Misses: bad within a day", *("sessions", "clients") * 2)
    yield _row("  all", *(number(each[key]) for each in (before, after) for key in ("sessions", "clients")))
    for kind in ("mta", "listed", "test"):
        cells = [each[f"{key}_by_kind"][kind] for each in (before, after) for key in ("sessions", "clients")]
        if any(cells):
            yield _row(f"    {KINDS[kind]}", *map(number, cells))


def _features(features: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _head("Lists, scorers and tests", "sessions", "only this", "decisive", "clients", "good")
    shown = [each for each in features if each["sessions"]]
    if not shown:
        yield "  none of them found anything"
    for each in shown:
        cells = (each["sessions"], each["unique"], each["decisive"], each["clients"], each["good"])
        yield _row(f"  {_name(each['name'])}", *map(number, cells))
        with_others = sorted(each["both"].items(), key=lambda other: (-other[1], other[0]))[:2]
        if with_others:
            words = ", ".join(f"{_name(name)} {share(count, each['sessions'])}" for name, count in with_others)
            yield f"    together with {words}"


def _name(feature: str) -> str:
    """A list, scorer or test. Names of lists are whatever clients are told."""
    name = printable(feature.partition(":")[2])
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def _unjudged(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["reasons"]:
        return
    yield from _head("Cannot be judged", "sessions")
    for key, count in sorted(found["reasons"].items(), key=lambda each: -each[1]):
        yield f"  {number(count):>12}  {REASONS[key]}"


def _examples(examples: Mapping[str, Sequence[tuple[bytes, Sequence[str]]]]) -> Iterator[str]:
    titles = {
        "collateral": "Good clients that would only now be rejected",
        "missed": "Clients that would only now be missed",
        "saved": "Clients that would no longer be rejected",
    }
    for key, title in titles.items():
        if clients := examples.get(key):
            yield ""
            yield f"{title}, up to {_EXAMPLES} of them"
            for address, kinds in clients:
                about = "; ".join(KINDS[kind] for kind in kinds if kind in KINDS)
                yield f"  {ipaddress.ip_address(address)!s:<40}{about}".rstrip()


# ---- suggestions


def suggestion(
    same: bool,
    toml: Sequence[str],
    rows: Sequence[tuple[str, Share, Share]],
    head: str,
    what: str = "Clients that the score rejects",
) -> Iterator[str]:
    """same: nothing better was found. rows: a period, and what the weights before and the suggested ones reject in it.
    head: names those before."""
    yield ""
    if same:
        yield f"Suggestion: none; nothing better than the weights {head} was found within the limit"
    else:
        yield "Suggestion"
        yield from (f"  {line}".rstrip() for line in toml)
    yield ""
    yield _row(what, head, "", "suggested", "")
    yield _row("", *("bad", "good") * 2)
    for name, old, new in rows:
        yield _row(f"  {name}", *(cell for each in (old, new) for cell in (number(each.bad), number(each.good))))
        yield _row(
            f"    of {number(old.bad_of)} bad, {number(old.good_of)} good",
            *(cell for each in (old, new) for cell in (share(each.bad, each.bad_of), share(each.good, each.good_of))),
        )


# ---- labeled sessions


def labeled(found: Judged) -> Iterator[str]:
    """Catches and false positives by label."""
    yield ""
    yield _row("", "sessions", "caught", "", "addresses", "caught", "")
    for label in ("bad", "good"):
        cells = []
        for count, caught in (found.sessions[label], found.addresses[label]):
            cells += [number(count), number(caught), share(caught, count)]
        yield _row(f"  {label}", *cells)
    bad, good = found.addresses["bad"][0], found.addresses["good"][0]
    yield from _head("Addresses that show it", "", "", "", "", "decisive", "")
    yield _row("", "bad", "", "good", "", "bad", "good")
    features = {name: each for name, each in found.features.items() if name != "tls:unused"}
    if not features:
        yield "  nothing"
    for name, each in features.items():
        yield from _labeled_feature(name, each, good, bad)


def _labeled_feature(name: str, found: Feature, good: int, bad: int) -> Iterator[str]:
    yield _row(
        f"  {_name(name)}",
        number(found.addresses[1]),
        share(found.addresses[1], bad),
        number(found.addresses[0]),
        share(found.addresses[0], good),
        number(found.decisive[1]),
        number(found.decisive[0]),
    )
    others = {other: count for other, count in found.both.items() if other != "tls:unused"}
    with_others = sorted(others.items(), key=lambda other: (-other[1], other[0]))[:2]
    if with_others:
        words = ", ".join(f"{_name(other)} {share(count, sum(found.sessions))}" for other, count in with_others)
        yield f"    in sessions together with {words}"
