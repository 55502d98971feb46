"""The report as text, in the style of pflogsumm (Postfix log summaries, by James S. Seymour)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from fastscreen.format import span
from fastscreen.report.summary import NetworkFigures, Period, Span, Summary
from fastscreen.report.tally import DEFERRED
from fastscreen.report.what_if import Rejudged, WhatIf

_MAX_REPLY = 60  # characters, except with --verbose-msg-detail
_BAR = 40

POSSIBLY_WRONG = {
    "passed later": "rejected, but passed later",
    "network passes": "rejected, although other addresses of the network pass",
    "lowest rank": "listed by only one list, with the lowest rejected rank",
}
"""The meaning of Suspect.why."""


def label(test: str) -> str:
    """The label of a test or another reason, as in Summary.refusals."""
    return "deferred" if test == DEFERRED else test


class Style(Struct, frozen=True):
    """The values of pflogsumm's options. hosts, users, details: whether to include the section."""

    quiet: bool = False
    problems_first: bool = False
    verbose: bool = False
    iso_dates: bool = False
    zero_fill: bool = False
    hosts: bool = True
    users: bool = True
    details: bool = True


def as_text(summary: Summary, style: Style) -> str:
    """The whole report."""
    title = f"Screening log summary for {summary.period}" if summary.period else "Screening log summary"
    blocks = ["\n".join([f"{title} ({summary.host})", *_times(summary, style)])]
    problems = [_rejects(summary, style), _suspects(summary, style), _warnings(summary, style)]
    figures = [
        _totals(summary),
        _refusals(summary, style),
        _days(summary, style),
        _hours(summary, style),
        _lists(summary, style),
        _evidence(summary),
        _networks(summary, style),
        _away(summary, style),
        _users(summary, style),
        _said(summary, style),
        _shadow(summary, style),
        _what_if(summary, style),
    ]
    # As in pflogsumm, the problems then come after the totals.
    blocks += [figures[0], *problems, *figures[1:]] if style.problems_first else [*figures, *problems]
    if summary.notes:
        blocks.append(_headed("Notes", [f"  {note}" for note in summary.notes]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _times(summary: Summary, style: Style) -> Iterator[str]:
    if summary.first:
        form = "%Y-%m-%d %H:%M:%S" if style.iso_dates else "%b %e %H:%M:%S"
        first, last = (time.strftime(form, time.localtime(when)) for when in (summary.first, summary.last))
        yield f"{'log lines' if summary.source == 'log' else 'sessions'} from {first} to {last}"


def _headed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "-" * len(title), *lines])


def _section(title: str, lines: Sequence[str], style: Style) -> str:
    """An empty section is shown as `title: none`, or omitted with -q."""
    if lines:
        return _headed(title, lines)
    return "" if style.quiet else f"{title}: none"


def _row(count: int, what: str) -> str:
    return f"{count:9d}   {what}"


def _totals(summary: Summary) -> str:
    totals, outcomes = summary.totals, summary.outcomes
    rows = [
        _row(totals.get("connect", 0), "connections"),
        _row(outcomes["handed"], "handed off to the mail server"),
        _row(totals.get("pass_old", 0), "   known (PASS OLD)"),
        _row(totals.get("allowlisted", 0), "   on the access list"),
        _row(totals.get("pass_new", 0), "   passed the tests (PASS NEW; some are handed off only when they reconnect)"),
        _row(outcomes["continued"], "   continued after the deep tests"),
        *(
            _row(count, f"   {what}")
            for count, what in (
                (totals.get("bypassed", 0), "not tested, because of a bypass"),
                (sum(summary.in_spite.values()), "failed a test (with action ignore, or in shadow mode)"),
            )
            if count
        ),
        _row(outcomes["away"], "deferred with 450"),
        _row(outcomes["refused"], "rejected"),
        _row(outcomes["hung up"], "hung up before a verdict"),
        _row(outcomes["left"], "left after the tests without a recipient"),
        _row(totals.get("reject_rcpt", 0), "recipients rejected"),
        "",
        _row(summary.clients, "clients"),
        _row(summary.networks, "networks (/24, /64)"),
    ]
    for count, what in (
        (outcomes["not taken"], "could not be handed off"),
        (outcomes.get("continue failed", 0), "could not continue, and were deferred with 450"),
        (outcomes["open"], "sessions not finished"),
        (totals.get("score_deferred", 0), "deferred once because of their score"),
        (totals.get("doubtful", 0), "passed to the MTA for doubtful clients"),
        (totals.get("slowed", 0), "got slow replies because of their score"),
        (totals.get("relay_limit", 0), "relayed sessions ended by a time limit"),
        (totals.get("tls_connect", 0), "sessions with TLS"),
        (totals.get("tls_failed", 0), "failed TLS handshakes"),
        (totals.get("stress", 0), "changes to stress mode and back"),
        (totals.get("warning", 0), "warnings"),
    ):
        if count:
            rows.append(_row(count, what))
    return _headed("Grand Totals", rows)


def _refusals(summary: Summary, style: Style) -> str:
    rows = [_row(count, label(test)) for test, count in summary.refusals.items()]
    rows += [_row(count, f"failed {label(test)}, but handed off anyway") for test, count in summary.in_spite.items()]
    return _section("Rejections by test", rows, style)


def _evidence(summary: Summary) -> str:
    if not summary.evidence:
        return ""
    rows = [f"  {'sessions':>9}{'clients':>9}{'failed':>9}   scorer"]
    rows += [f"  {each.count:9d}{each.clients:9d}{each.failed:9d}   {each.name}" for each in summary.evidence]
    return _headed("Evidence for the score", rows)


def _days(summary: Summary, style: Style) -> str:
    if len(summary.days) < 2:
        return ""
    names = {
        period.name: period.name if style.iso_dates else time.strftime("%b %e", time.strptime(period.name, "%Y-%m-%d"))
        for period in summary.days
    }
    return _periods("Per-Day Traffic Summary", summary.days, names, style)


def _hours(summary: Summary, style: Style) -> str:
    names = {period.name: f"{period.name}00-{int(period.name) + 1:02d}00" for period in summary.hours}
    used = summary.hours if style.zero_fill else [period for period in summary.hours if period.connections]
    return _periods("Per-Hour Traffic Summary", used, names, style)


def _periods(title: str, periods: Sequence[Period], names: dict[str, str], style: Style) -> str:
    if not periods:
        return _section(title, [], style)
    tests = sorted({test for period in periods for test in period.turned})
    shown = [test for test in ("denylist", "pregreet", "dnsbl", DEFERRED) if test in tests]
    others = [test for test in tests if test not in shown]
    heads = ["time", "connections", "handed off", *map(label, shown), *(["other"] if others else [])]
    rows = ["  " + "".join(f"{head:>12}" for head in heads)]
    for period in periods:
        counts = [period.connections, period.handed, *(period.turned.get(test, 0) for test in shown)]
        if others:
            counts.append(sum(period.turned.get(test, 0) for test in others))
        rows.append("  " + f"{names[period.name]:>12}" + "".join(f"{count:12d}" for count in counts))
    return _headed(title, rows)


def _lists(summary: Summary, style: Style) -> str:
    if not summary.lists:
        return _section("DNS lists", [], style)
    rows = [f"  {'answers':>9}{'clients':>9}{'only':>9}   list"]
    for figures in summary.lists:
        rows.append(f"  {figures.answers:9d}{figures.clients:9d}{figures.alone:9d}   {figures.name}")
        for other, count in list(figures.with_others.items())[: None if style.verbose else 3]:
            rows.append(f"  {'':9}{count:9d}{'':9}      also in {other}")
        if style.verbose:
            rows += [f"  {count:9d}{'':18}      as {value}" for value, count in sorted(figures.replies.items())]
    if summary.ranks:
        rows += ["", "  " + f"{'sessions':>9}   rank"]
        rows += [f"  {count:9d}   {rank}" for rank, count in summary.ranks.items()]
    return _headed("DNS lists", rows)


def _network_rows(networks: Sequence[NetworkFigures]) -> list[str]:
    rows = [f"  {'connections':>11}{'clients':>9}{'handed off':>11}{'rejected':>9}{'deferred':>10}   network"]
    for each in networks:
        counts = f"{each.connections:11d}{each.clients:9d}{each.handed:11d}{each.refused:9d}{each.away:10d}"
        rows.append(f"  {counts}   {each.name}")
    return rows


def _networks(summary: Summary, style: Style) -> str:
    if not style.hosts:
        return ""
    return _section("Networks", _network_rows(summary.top_networks) if summary.top_networks else [], style)


def _away(summary: Summary, style: Style) -> str:
    away = summary.away
    title = "Deferred with 450"
    if not away.times:
        return _section(title, [], style)
    median = f", half of them within {span(away.median)}" if away.median is not None else ""
    rows = [
        _row(away.times, "deferrals"),
        _row(away.back, f"came back from the same address{median}"),
        *_columns(away.delays),
        _row(away.neighbour, "came back only from another address of the network"),
        *_columns(away.neighbour_delays),
    ]
    if summary.source == "log":
        what = "came from another network, and were deferred for the same sender and recipient"
        rows += [_row(away.elsewhere, what), *_columns(away.elsewhere_delays)]
    rows += [
        _row(away.never, f"never came back ({away.recent} of them were deferred within the last hour, and may still)"),
    ]
    if style.hosts and away.networks:
        rows += ["", f"  {'deferred':>9}{'came back':>12}   network"]
        rows += [f"  {each.away:9d}{each.back:12d}   {each.name}" for each in away.networks]
    if style.hosts and away.instead:
        rows += ["", "  came back from another address:"]
        rows += [f"    {each.client}: {each.by} after {span(each.after)}" for each in away.instead]
    if style.hosts and away.lost:
        rows += ["", "  never came back:", *(f"    {address}" for address in away.lost)]
    return _headed(title, rows)


def _columns(spans: Sequence[Span]) -> Iterator[str]:
    most = max((span.count for span in spans), default=0)
    for each in spans:
        if most:
            yield f"{'':9}   {each.name:>13} {each.count:9d} {'#' * round(_BAR * each.count / most)}".rstrip()


def _rejects(summary: Summary, style: Style) -> str:
    title = "Rejected recipients by reply"
    if not style.details:
        return ""
    rows: list[str] = []
    for reject in summary.rejects:
        reply = (
            reject.reply if style.verbose or len(reject.reply) <= _MAX_REPLY else reject.reply[: _MAX_REPLY - 3] + "..."
        )
        rows.append(f"  {reply} (total: {reject.total})")
        for client, sender, count in reject.who:
            rows.append(f"{count:9d}   {client}{f' ({sender})' if sender else ''}")
    return _section(title, rows, style)


def _suspects(summary: Summary, style: Style) -> str:
    if not style.hosts:
        return ""
    rows: list[str] = []
    for why, count in summary.suspect_counts.items():
        if not count:
            continue
        rows.append(f"  {POSSIBLY_WRONG[why]} (total: {count})")
        for each in summary.suspects:
            if each.why == why:
                rank = f" rank {each.rank}" if each.rank else ""
                after = f", passed {span(each.after)} later" if each.after is not None else ""
                passing = f"{each.network.handed} of {each.network.connections} sessions of {each.network.name} passed"
                rows.append(f"            {each.client}: {each.test}{rank}{after} ({passing})")
    return _section("Possibly wrong rejections", rows, style)


def _users(summary: Summary, style: Style) -> str:
    if not style.users or summary.source != "log":
        return ""
    sections = (
        ("Senders of rejected recipients", summary.senders),
        ("Rejected recipients", summary.recipients),
    )
    blocks = [_section(title, [_row(each.count, each.name) for each in named], style) for title, named in sections]
    return "\n\n".join(block for block in blocks if block)


def _said(summary: Summary, style: Style) -> str:
    if not style.details:
        return ""
    titles = {"pregreet": "Sent before the greeting", "non-SMTP command": "Non-SMTP commands"}
    blocks = [
        _section(titles[test], [_row(each.count, each.name) for each in named], style)
        for test, named in summary.said.items()
    ]
    return "\n\n".join(block for block in blocks if block)


def _warnings(summary: Summary, style: Style) -> str:
    if summary.source != "log":
        return ""
    return _section("Warnings", [_row(each.count, each.name) for each in summary.warnings], style)


def _shadow(summary: Summary, style: Style) -> str:
    if not summary.shadow:
        return ""
    rows = [f"  {'times':>9}{'handed off':>11}   would have been rejected by"]
    rows += [f"  {each.times:9d}{each.handed:11d}   {label(each.test)}" for each in summary.shadow]
    if style.details and summary.shadow_replies:
        rows += ["", "  would have replied:"]
        rows += [f"  {each.count:9d}   {each.name}" for each in summary.shadow_replies]
    return _headed("Shadow mode: would-be rejections", rows)


def _what_if(summary: Summary, style: Style) -> str:
    found = summary.what_if
    if found is None:
        return ""
    rows = [
        f"  threshold {found.threshold}, sites: {' '.join(found.sites) or 'none'}",
        "",
        _row(found.still, "rejected then and with these settings"),
        _row(found.no_longer, "rejected then, but not with these settings"),
        _row(found.newly, "not rejected then, but with these settings"),
        _row(found.neither, "not rejected then, nor with these settings"),
        _row(found.unknown, "rejected then, but cannot be judged, because list answers are missing in the log"),
    ]
    if found.allowlist_threshold < 0:
        rows.append(
            _row(found.allowed, f"would pass all tests, because their rank is at most {found.allowlist_threshold}")
        )
    rows += _rejudged("no longer rejected", found.no_longer_clients) if style.hosts else ()
    rows += _rejudged("newly rejected", found.newly_clients) if style.hosts else ()
    rows += ["", *(f"  {line}" for line in unknowns(found))]
    return _headed("What if", rows)


def unknowns(found: WhatIf) -> Iterator[str]:
    """What cannot be known from a log."""
    if found.without_site:
        yield f"Lists in the log that are not in these settings, and count 0: {' '.join(found.without_site)}."
    if found.without_answers:
        missing = " ".join(found.without_answers)
        yield f"Lists without an answer in the log, which count 0: {missing}. Not queried, or without listed clients."
    yield "Clients that were rejected or handed off before the lists were queried are not included in these figures."


def _rejudged(what: str, clients: Sequence[Rejudged]) -> Iterator[str]:
    if clients:
        yield ""
        yield f"  {what}:"
        for each in clients:
            yield f"    {each.client}: rank {each.rank}: {', '.join(each.answers)}"
