"""The records of a report: made from a tally, and shown as text, JSON or an HTML page."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from msgspec import Struct

from fastscreen.report.lines import KIND_NAMES, Kind
from fastscreen.report.networks import network_name, prefix_of
from fastscreen.report.tally import HOUR, SLOT, TESTS, Client, Network, Tally, text_of
from fastscreen.report.what_if import WhatIf

Item = TypeVar("Item")
Order = TypeVar("Order", bound=tuple[object, ...])

RECENT = HOUR
"""s: clients that were deferred so shortly before the end of the log may still come back."""

SPANS = ((60, "under 1 min"), (300, "1–5 min"), (1800, "5–30 min"), (7200, "30 min–2 h"), (21600, "2–6 h"),
         (86400, "6–24 h"), (float("inf"), "over 24 h"))  # fmt: skip
"""The columns of the histograms of delays: upper limit in seconds, and label."""


JSON_KEYS: dict[str, dict[str, str]] = {
    "Period": {"handed": "handed_off", "turned": "rejected"},
    "ListFigures": {"alone": "unique", "with_others": "also_listed_by"},
    "NetworkFigures": {"handed": "handed_off", "refused": "rejected", "away": "deferred", "back": "returned"},
    "Away": {
        "times": "deferrals",
        "back": "returned",
        "neighbour": "same_network",
        "neighbour_delays": "same_network_delays",
        "elsewhere": "other_network",
        "elsewhere_delays": "other_network_delays",
        "never": "never_returned",
        "recent": "recently_deferred",
        "instead": "returned_as",
        "lost": "lost_clients",
    },
    "Reject": {"who": "clients"},
    "Shadow": {"times": "sessions", "handed": "handed_off"},
    "Summary": {
        "refusals": "rejected",
        "in_spite": "failed_but_handed_off",
        "away": "deferred",
        "said": "client_texts",
    },
}
"""Of --json, where they differ from a record's fields."""


class Period(Struct, frozen=True, rename=JSON_KEYS["Period"]):
    """An hour or a day. name: `14` (an hour, of all days) or `2026-11-22`. handed: sessions that began in it and were
    handed off. turned: sessions that were rejected in it, by reason."""

    name: str
    connections: int
    handed: int
    turned: dict[str, int]


class ListFigures(Struct, frozen=True, rename=JSON_KEYS["ListFigures"]):
    """A DNS list. answers: number of log lines. clients: listed clients. alone: those that no other list had listed.
    with_others: those that another list had listed as well. replies: log lines by answer."""

    name: str
    answers: int
    clients: int
    alone: int
    with_others: dict[str, int]
    replies: dict[str, int]


class NetworkFigures(Struct, frozen=True, rename=JSON_KEYS["NetworkFigures"]):
    """A network: sessions of its clients by result. away: deferred. back: how many of these came back."""

    name: str
    clients: int
    connections: int
    handed: int
    refused: int
    away: int
    back: int


class Span(Struct, frozen=True):
    """A column of a histogram."""

    name: str
    count: int


class Instead(Struct, frozen=True):
    """A deferred client, the other address that came back instead, and after how many seconds."""

    client: str
    by: str
    after: int


class Away(Struct, frozen=True, rename=JSON_KEYS["Away"]):
    """Clients that were deferred with 450 at a recipient. A client counts again after it came back.

    back: the same address came back; median: of the delays, in seconds. neighbour: only another address of its network
    came back. elsewhere: a client of another network was deferred for the same sender and recipient. never: none of
    these; recent: those that were deferred within the last hour of the log.
    """

    times: int
    back: int
    median: float | None
    delays: tuple[Span, ...]
    neighbour: int
    neighbour_delays: tuple[Span, ...]
    elsewhere: int
    elsewhere_delays: tuple[Span, ...]
    never: int
    recent: int
    networks: tuple[NetworkFigures, ...]
    instead: tuple[Instead, ...]
    lost: tuple[str, ...]


class Suspect(Struct, frozen=True):
    """A client that may have been rejected wrongly. why: `passed later`, `lowest rank` or `network passes`.
    after: seconds until it passed; null if it did not."""

    client: str
    why: str
    test: str
    rank: int
    when: int
    after: int | None
    network: NetworkFigures


class Reject(Struct, frozen=True, rename=JSON_KEYS["Reject"]):
    """Recipients rejected with the same reply. who: client, sender (if requested), how often; only the first ones."""

    reply: str
    total: int
    who: tuple[tuple[str, str, int], ...]


class EvidenceFigures(Struct, frozen=True):
    """A scorer: how often it found something, for how many clients, and in how many sessions that failed the score
    test it was a part of the score.
    """

    name: str
    count: int
    clients: int
    failed: int


class Named(Struct, frozen=True):
    """A text and how often it was counted."""

    name: str
    count: int


class Shadow(Struct, frozen=True, rename=JSON_KEYS["Shadow"]):
    """Sessions that would have been rejected without shadow mode. handed: those that were handed off to the MTA."""

    test: str
    times: int
    handed: int


class Summary(Struct, frozen=True, rename=JSON_KEYS["Summary"]):
    """The whole report. first, last: times of the first and last counted line, s since 1970; 0 without such lines.
    source: `log` or `history`. A history lacks some of what a log has: then lines are sessions."""

    host: str
    period: str
    first: int
    last: int
    lines: int
    totals: dict[str, int]
    clients: int
    networks: int
    outcomes: dict[str, int]
    refusals: dict[str, int]
    in_spite: dict[str, int]
    hours: tuple[Period, ...]
    days: tuple[Period, ...]
    ranks: dict[str, int]
    evidence: tuple[EvidenceFigures, ...]
    lists: tuple[ListFigures, ...]
    top_networks: tuple[NetworkFigures, ...]
    away: Away
    suspects: tuple[Suspect, ...]
    suspect_counts: dict[str, int]
    reject_codes: dict[str, int]
    rejects: tuple[Reject, ...]
    senders: tuple[Named, ...]
    recipients: tuple[Named, ...]
    said: dict[str, tuple[Named, ...]]
    warnings: tuple[Named, ...]
    shadow: tuple[Shadow, ...]
    shadow_replies: tuple[Named, ...]
    notes: tuple[str, ...]
    what_if: WhatIf | None = None
    source: str = "log"

    @property
    def empty(self) -> bool:
        """Whether the log contains no events."""
        return not any(self.totals.values())


def summarize(
    tally: Tally,
    *,
    host: str,
    period: str,
    hosts: int | None = 20,
    users: int | None = 20,
    details: int | None = 20,
    what_if: WhatIf | None = None,
    failed: Iterable[str] = (),
    missing: Iterable[int] | None = None,
) -> Summary:
    """Make records from a finished tally. hosts, users, details: maximum number of clients, mailboxes, details; None
    for all. failed: files that could not be read to their end, with the reason, or other notes. missing: kinds of lines
    that a history does not know; None: the tally is that of a log."""
    totals = Counter[str]()
    for slot in tally.slots.values():
        for kind, count in zip(KIND_NAMES, slot, strict=True):
            totals[kind] += count
    for number in missing or ():
        del totals[KIND_NAMES[number]]
    outcomes = _outcomes(tally)
    if missing is not None:
        del outcomes["continue failed"]
    lists, ranks = _lists(tally), dict(sorted(tally.ranks.items()))
    suspects, suspect_counts = _suspects(tally, hosts)
    return Summary(
        host=host,
        period=period,
        first=tally.first,
        last=tally.last,
        lines=tally.lines,
        totals=dict(totals),
        clients=len(tally.clients),
        networks=len(tally.networks),
        outcomes=outcomes,
        refusals=_by_test(tally.refusals),
        in_spite=_by_test(tally.spite),
        hours=_periods(tally, "%H"),
        days=_periods(tally, "%Y-%m-%d"),
        ranks={str(rank): count for rank, count in ranks.items()},
        evidence=tuple(
            EvidenceFigures(text_of(name), number, tally.evidence_clients[name], tally.evidence_failed[name])
            for name, number in tally.evidence.top()
        ),
        lists=lists,
        top_networks=_networks(tally, hosts),
        away=_away(tally, hosts),
        suspects=suspects,
        suspect_counts=suspect_counts,
        reject_codes={str(code): count for code, count in sorted(tally.reject_codes.items())},
        rejects=_rejects(tally, details),
        senders=_named(tally.senders.top(users)),
        recipients=_named(tally.recipients.top(users)),
        said=_said(tally, details) if missing is None else {},
        warnings=tuple(Named(text, count) for text, count in tally.warnings.top(details)),
        shadow=tuple(
            Shadow(test, times, tally.shadow_handed[test])
            for test, times in sorted(tally.shadow.items(), key=lambda item: (-item[1], item[0]))
        ),
        shadow_replies=_named(tally.shadow_replies.top(details)),
        notes=(*failed, *_notes(tally, of_log=missing is None)),
        what_if=what_if,
        source="log" if missing is None else "history",
    )


def _outcomes(tally: Tally) -> dict[str, int]:
    names = ("handed", "continued", "continue failed", "not taken", "away", "refused", "hung up", "left")
    return {**{name: tally.outcomes[name] for name in names}, "open": tally.cut_short}


def _by_test(counts: Counter[str]) -> dict[str, int]:
    order = {test: at for at, test in enumerate(TESTS)}
    return {test: counts[test] for test in sorted(counts, key=lambda test: (order.get(test, len(order)), test))}


def _periods(tally: Tally, form: str) -> tuple[Period, ...]:
    names: dict[str, list[int]] = {}
    for number in sorted(tally.slots):
        names.setdefault(time.strftime(form, time.localtime(number * SLOT)), []).append(number)
    if form == "%H":
        names = {f"{hour:02d}": names.get(f"{hour:02d}", []) for hour in range(24)}
    made = []
    for name, numbers in names.items():
        turned = Counter[str]()
        for number in numbers:
            turned.update(tally.turned.get(number, {}))
        slots = [tally.slots[number] for number in numbers]
        made.append(
            Period(
                name,
                sum(slot[Kind.CONNECT] for slot in slots),
                sum(tally.handed[number] for number in numbers),
                _by_test(turned),
            )
        )
    return tuple(made)


def _lists(tally: Tally) -> tuple[ListFigures, ...]:
    names = list(tally.list_ids)
    answers: Counter[str] = Counter()
    replies: dict[str, dict[str, int]] = {name: {} for name in names}
    for (name, value), count in zip(tally.answer_texts, tally.answer_counts, strict=True):
        answers[name] += count
        replies[name][value] = replies[name].get(value, 0) + count
    together = Counter(client.lists for client in tally.clients.values() if client.lists)
    clients: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    shared: dict[str, Counter[str]] = {name: Counter() for name in names}
    for bits, count in together.items():
        members = [name for at, name in enumerate(names) if bits >> at & 1]
        for name in members:
            clients[name] += count
            for other in members:
                if other != name:
                    shared[name][other] += count
        if len(members) == 1:
            alone[members[0]] += count
    made = [
        ListFigures(name, answers[name], clients[name], alone[name], dict(shared[name].most_common()), replies[name])
        for name in names
    ]
    return tuple(sorted(made, key=lambda figures: (-figures.clients, figures.name)))


def _figures(prefix: bytes, network: Network) -> NetworkFigures:
    return NetworkFigures(
        network_name(prefix),
        network.clients,
        network.connections,
        network.handed,
        network.refused,
        network.away,
        network.back,
    )


def _networks(tally: Tally, number: int | None) -> tuple[NetworkFigures, ...]:
    """The networks with the most connections."""

    def order(item: tuple[bytes, Network]) -> tuple[int, bytes]:
        return -item[1].connections, item[0]

    return tuple(_figures(*item) for item in _smallest(number, tally.networks.items(), order))


def _away(tally: Tally, number: int | None) -> Away:
    back = sum(tally.returns.values())
    neighbours: Counter[int] = Counter()
    elsewhere: Counter[int] = Counter()
    others: list[Client] = []
    never: list[Client] = []
    recent = 0
    for client in tally.clients.values():
        if client.away:
            if client.neighbour >= 0:
                neighbours[client.neighbour] += 1
                others.append(client)
            elif client.elsewhere >= 0:
                elsewhere[client.elsewhere] += 1
                others.append(client)
            else:
                never.append(client)
                recent += client.away > tally.last - RECENT

    def order(item: tuple[bytes, Network]) -> tuple[int, bytes]:
        return -item[1].away, item[0]

    told = ((prefix, network) for prefix, network in tally.networks.items() if network.away)
    lost = _smallest(number, never, _by_time)
    instead = _smallest(number, others, _by_time)
    return Away(
        times=tally.times_away,
        back=back,
        median=_median(tally.returns),
        delays=_histogram(tally.returns),
        neighbour=neighbours.total(),
        neighbour_delays=_histogram(neighbours),
        elsewhere=elsewhere.total(),
        elsewhere_delays=_histogram(elsewhere),
        never=len(never),
        recent=recent,
        networks=tuple(_figures(*item) for item in _smallest(number, told, order)),
        instead=tuple(
            Instead(
                client.address.decode(),
                client.instead.decode(),
                client.neighbour if client.neighbour >= 0 else client.elsewhere,
            )
            for client in instead
        ),
        lost=tuple(client.address.decode() for client in lost),
    )


def _by_time(client: Client) -> tuple[int, bytes]:
    return client.away, client.address


def _histogram(delays: Counter[int]) -> tuple[Span, ...]:
    counts = [0] * len(SPANS)
    for delay, count in delays.items():
        counts[next(at for at, (most, _) in enumerate(SPANS) if delay < most)] += count
    return tuple(Span(name, count) for (_, name), count in zip(SPANS, counts, strict=True))


def _median(delays: Counter[int]) -> float | None:
    half = delays.total() / 2
    for delay in sorted(delays):
        half -= delays[delay]
        if half <= 0:
            return delay
    return None


def _suspects(tally: Tally, number: int | None) -> tuple[tuple[Suspect, ...], dict[str, int]]:
    """Rejected clients that may be legitimate, the most likely ones first."""
    lowest = min(tally.ranks, default=0)
    found: dict[str, list[Client]] = {"passed later": [], "network passes": [], "lowest rank": []}
    for client in tally.clients.values():
        if not client.failed:
            continue
        if client.passed_after >= 0:
            found["passed later"].append(client)
        elif client.network.handed > client.handed:
            found["network passes"].append(client)
        elif client.failed == "dnsbl" and client.rank == lowest and client.lists.bit_count() == 1:
            found["lowest rank"].append(client)

    def order(client: Client) -> tuple[int, int, bytes]:
        return -client.network.handed, client.network.refused, client.address

    shown: list[Suspect] = []
    for why, clients in found.items():
        for client in _smallest(number, clients, order):
            after = client.passed_after if client.passed_after >= 0 else None
            prefix = prefix_of(client.address) or b""
            network = _figures(prefix, client.network)
            shown.append(
                Suspect(client.address.decode(), why, client.failed, client.rank, client.failed_at, after, network)
            )
    return tuple(shown), {why: len(clients) for why, clients in found.items()}


def _rejects(tally: Tally, number: int | None) -> tuple[Reject, ...]:
    by_reply: dict[bytes, list[tuple[int, bytes, bytes]]] = {}
    for (reply, client, sender), count in tally.details:
        by_reply.setdefault(reply, []).append((-count, client, sender))
    made = [
        Reject(
            text_of(reply),
            -sum(count for count, _, _ in who),
            tuple(
                (client.decode(), text_of(sender), -count) for count, client, sender in _smallest(number, who, _same)
            ),
        )
        for reply, who in by_reply.items()
    ]
    return tuple(sorted(made, key=lambda reject: (-reject.total, reject.reply)))


def _same(item: tuple[int, bytes, bytes]) -> tuple[int, bytes, bytes]:
    return item


def _smallest(number: int | None, items: Iterable[Item], key: Callable[[Item], Order]) -> list[Item]:
    """The first `number` items in order; None for all."""
    if number is None:
        return sorted(items, key=key)
    return heapq.nsmallest(number, items, key=key)


def _named(counted: Iterable[tuple[bytes, int]]) -> tuple[Named, ...]:
    return tuple(Named(text_of(text), count) for text, count in counted)


def _said(tally: Tally, number: int | None) -> dict[str, tuple[Named, ...]]:
    """What clients sent before the greeting, and non-SMTP commands."""
    made: dict[str, list[Named]] = {}
    for (test, text), count in tally.words.top():
        named = made.setdefault(test, [])
        if number is None or len(named) < number:
            named.append(Named(text_of(text), count))
    return {test: tuple(named) for test, named in sorted(made.items())}


def _notes(tally: Tally, *, of_log: bool) -> Iterator[str]:
    """What the figures do not include, and why."""
    if of_log and tally.lines and not tally.slots and not tally.undated:
        if tally.other_days:
            yield f"from other days: {_counted(tally.other_days, 'line')} of postscreen or fastscreen"
        else:
            yield (
                f"not from postscreen or fastscreen: {_counted(tally.lines, 'line')}; is --syslog-name needed, or "
                "is the format not supported (docs/report.md)?"
            )
    if tally.beyond:
        known = f"{len(tally.clients):,}"
        yield f"in totals and hours only: {_counted(tally.beyond, 'connection')} of clients after the first {known}"
    if tally.begun_before:
        before = "the log" if of_log else "the period"
        yield f"in totals only: {_counted(tally.begun_before, 'session')} that began before {before}"
    if tally.cut_short and of_log:
        yield f"not finished at the end of the log: {_counted(tally.cut_short, 'session')}"
    if tally.undated:
        yield f"ignored: {_counted(tally.undated, 'line')} with a date that does not exist"
    for what, others in (
        ("rejected recipients by client", tally.details.others),
        ("pairs of sender and recipient that were deferred", tally.unnamed_mails),
        ("senders", tally.senders.others),
        ("recipients", tally.recipients.others),
        ("warnings", tally.warnings.others),
        ("texts from clients", tally.words.others),
        ("answers of lists", tally.unnamed_answers),
        ("sets of answers", tally.judgements.others),
    ):
        if others:
            yield f"too many different {what}: {others:,} not listed"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
