"""The report as text, in the manner of pflogsumm (Postfix log summaries, by James S. Seymour)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from fastscreen.format import span
from fastscreen.report.summary import NetworkFigures, Period, Span, Summary
from fastscreen.report.whatif import Rejudged, WhatIf

_REASON = 60  # characters of a reply, unless all is asked for
_BAR = 40


class Style(Struct, frozen=True):
    """What pflogsumm's options of these names say. hosts, users, details: 0 leaves the section out."""

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
    title = f"Front door log summaries for {summary.period}" if summary.period else "Front door log summaries"
    blocks = ["\n".join([f"{title} ({summary.host})", *_times(summary, style)])]
    problems = [_rejects(summary, style), _suspects(summary, style), _warnings(summary, style)]
    figures = [
        _totals(summary),
        _refusals(summary, style),
        _days(summary, style),
        _hours(summary, style),
        _lists(summary, style),
        _networks(summary, style),
        _away(summary, style),
        _users(summary, style),
        _said(summary, style),
        _shadow(summary, style),
        _what_if(summary, style),
    ]
    # As in pflogsumm: the problems come behind the totals then.
    blocks += [figures[0], *problems, *figures[1:]] if style.problems_first else [*figures, *problems]
    if summary.notes:
        blocks.append(_headed("Notes", [f"  {note}" for note in summary.notes]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _times(summary: Summary, style: Style) -> Iterator[str]:
    if summary.first:
        form = "%Y-%m-%d %H:%M:%S" if style.iso_dates else "%b %e %H:%M:%S"
        first, last = (time.strftime(form, time.localtime(when)) for when in (summary.first, summary.last))
        yield f"log lines from {first} to {last}"


def _headed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "-" * len(title), *lines])


def _section(title: str, lines: Sequence[str], style: Style) -> str:
    """Without anything to show: `title: none`, or with quiet nothing."""
    if lines:
        return _headed(title, lines)
    return "" if style.quiet else f"{title}: none"


def _row(count: int, what: str) -> str:
    return f"{count:9d}   {what}"


def _totals(summary: Summary) -> str:
    totals, outcomes = summary.totals, summary.outcomes
    rows = [
        _row(totals.get("connect", 0), "connections"),
        _row(outcomes["handed"], "handed on to the mail server"),
        _row(totals.get("pass_old", 0), "   known (PASS OLD)"),
        _row(totals.get("allowlisted", 0), "   on the access list"),
        _row(totals.get("pass_new", 0), "   passed the tests (PASS NEW; some of them at their next visit only)"),
        _row(outcomes["continued"], "   continued after the deep tests"),
        *(
            _row(count, f"   {what}")
            for count, what in (
                (totals.get("bypassed", 0), "untested: the bypass was on"),
                (sum(summary.in_spite.values()), "though a test found something (action ignore, or shadow mode)"),
            )
            if count
        ),
        _row(outcomes["away"], "turned away for now (450)"),
        _row(outcomes["refused"], "turned away"),
        _row(outcomes["hung up"], "hung up before a verdict"),
        _row(outcomes["left"], "left after the tests without a recipient"),
        _row(totals.get("reject_rcpt", 0), "recipients refused"),
        "",
        _row(summary.clients, "clients"),
        _row(summary.networks, "networks (/24, /64)"),
    ]
    for count, what in (
        (outcomes["not taken"], "could not be handed on"),
        (outcomes["continue failed"], "could not be continued: told 450 after all"),
        (outcomes["open"], "sessions without an end yet"),
        (totals.get("relay_limit", 0), "relayed sessions ended by a time limit"),
        (totals.get("tls_connect", 0), "sessions in TLS"),
        (totals.get("tls_failed", 0), "failed TLS handshakes"),
        (totals.get("stress", 0), "changes to stress mode and back"),
        (totals.get("warning", 0), "warnings"),
    ):
        if count:
            rows.append(_row(count, what))
    return _headed("Grand Totals", rows)


def _refusals(summary: Summary, style: Style) -> str:
    rows = [_row(count, test) for test, count in summary.refusals.items()]
    rows += [_row(count, f"found by {test}, and handed on all the same") for test, count in summary.in_spite.items()]
    return _section("Turned away, by test", rows, style)


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
    shown = [test for test in ("denylist", "pregreet", "dnsbl", "come again") if test in tests]
    others = [test for test in tests if test not in shown]
    heads = ["time", "connections", "handed on", *shown, *(["other"] if others else [])]
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
    rows = [f"  {'answers':>9}{'clients':>9}{'alone':>9}   list"]
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
    rows = [f"  {'connections':>11}{'clients':>9}{'handed on':>11}{'refused':>9}{'told 450':>10}   network"]
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
    title = "Told to come again (450)"
    if not away.times:
        return _section(title, [], style)
    median = f", half of them within {span(away.median)}" if away.median is not None else ""
    rows = [
        _row(away.times, "times a client was told 450"),
        _row(away.back, f"came again from the same address{median}"),
        *_columns(away.delays),
        _row(away.neighbour, "came from another address of their network only"),
        *_columns(away.neighbour_delays),
        _row(away.elsewhere, "came from another network: told 450 there, too, for the same sender and recipient"),
        *_columns(away.elsewhere_delays),
        _row(away.never, f"never came again ({away.recent} of them may still: told within the last hour)"),
    ]
    if style.hosts and away.networks:
        rows += ["", f"  {'told 450':>9}{'came again':>12}   network"]
        rows += [f"  {each.away:9d}{each.back:12d}   {each.name}" for each in away.networks]
    if style.hosts and away.instead:
        rows += ["", "  came from another address:"]
        rows += [f"    {each.client}: {each.by} after {span(each.after)}" for each in away.instead]
    if style.hosts and away.lost:
        rows += ["", "  never came again:", *(f"    {address}" for address in away.lost)]
    return _headed(title, rows)


def _columns(spans: Sequence[Span]) -> Iterator[str]:
    most = max((span.count for span in spans), default=0)
    for each in spans:
        if most:
            yield f"{'':9}   {each.name:>13} {each.count:9d} {'#' * round(_BAR * each.count / most)}".rstrip()


def _rejects(summary: Summary, style: Style) -> str:
    title = "Recipients refused, by reply"
    if not style.details:
        return ""
    rows: list[str] = []
    for reject in summary.rejects:
        reply = reject.reply if style.verbose or len(reject.reply) <= _REASON else reject.reply[: _REASON - 3] + "..."
        rows.append(f"  {reply} (total: {reject.total})")
        for client, sender, count in reject.who:
            rows.append(f"{count:9d}   {client}{f' ({sender})' if sender else ''}")
    return _section(title, rows, style)


def _suspects(summary: Summary, style: Style) -> str:
    words = {
        "passed later": "turned away, and later passed",
        "network passes": "turned away, while other addresses of its network pass",
        "lowest rank": "listed by one list only, and just so much as to be refused",
    }
    if not style.hosts:
        return ""
    rows: list[str] = []
    for why, count in summary.suspect_counts.items():
        if not count:
            continue
        rows.append(f"  {words[why]} (total: {count})")
        for each in summary.suspects:
            if each.why == why:
                rank = f" rank {each.rank}" if each.rank else ""
                after = f", passed {span(each.after)} later" if each.after is not None else ""
                passing = f"{each.network.handed} of {each.network.connections} sessions of {each.network.name} passed"
                rows.append(f"            {each.client}: {each.test}{rank}{after} ({passing})")
    return _section("Turned away by mistake, perhaps", rows, style)


def _users(summary: Summary, style: Style) -> str:
    if not style.users:
        return ""
    sections = (
        ("Senders of refused recipients", summary.senders),
        ("Refused recipients", summary.recipients),
    )
    blocks = [_section(title, [_row(each.count, each.name) for each in named], style) for title, named in sections]
    return "\n\n".join(block for block in blocks if block)


def _said(summary: Summary, style: Style) -> str:
    if not style.details:
        return ""
    titles = {"pregreet": "Said too soon", "non-SMTP command": "Said that is no SMTP"}
    blocks = [
        _section(titles[test], [_row(each.count, each.name) for each in named], style)
        for test, named in summary.said.items()
    ]
    return "\n\n".join(block for block in blocks if block)


def _warnings(summary: Summary, style: Style) -> str:
    return _section("Warnings", [_row(each.count, each.name) for each in summary.warnings], style)


def _shadow(summary: Summary, style: Style) -> str:
    if not summary.shadow:
        return ""
    rows = [f"  {'times':>9}{'handed on':>11}   would have been turned away by"]
    rows += [f"  {each.times:9d}{each.handed:11d}   {each.test}" for each in summary.shadow]
    if style.details and summary.shadow_replies:
        rows += ["", "  would have replied:"]
        rows += [f"  {each.count:9d}   {each.name}" for each in summary.shadow_replies]
    return _headed("Shadow mode: what would have happened", rows)


def _what_if(summary: Summary, style: Style) -> str:
    found = summary.what_if
    if found is None:
        return ""
    rows = [
        f"  threshold {found.threshold}, sites: {' '.join(found.sites) or 'none'}",
        "",
        _row(found.still, "refused then and with these settings"),
        _row(found.no_longer, "refused then, and no longer with these"),
        _row(found.newly, "not refused then, but with these"),
        _row(found.neither, "refused neither then nor now"),
        _row(found.unknown, "refused then; the log has no answers of lists for them: cannot be judged"),
    ]
    if found.allowlist_threshold < 0:
        rows.append(_row(found.allowed, f"would pass all tests: {found.allowlist_threshold} or less by allow lists"))
    rows += _rejudged("no longer refused", found.no_longer_clients) if style.hosts else ()
    rows += _rejudged("newly refused", found.newly_clients) if style.hosts else ()
    rows += ["", *(f"  {line}" for line in unknowns(found))]
    return _headed("What if", rows)


def unknowns(found: WhatIf) -> Iterator[str]:
    """What other settings cannot tell from a log."""
    if found.without_site:
        yield f"Lists in the log that are in no site here and so count 0: {' '.join(found.without_site)}."
    if found.without_answers:
        silent = " ".join(found.without_answers)
        yield f"No answer is in the log of: {silent}. Not asked then, or it listed nobody: it counts 0."
    yield "Clients that were turned away or handed on before their lists were asked are not in these figures."


def _rejudged(what: str, clients: Sequence[Rejudged]) -> Iterator[str]:
    if clients:
        yield ""
        yield f"  {what}:"
        for each in clients:
            yield f"    {each.client}: rank {each.rank}: {', '.join(each.answers)}"
