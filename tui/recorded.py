"""A recorded session: in one line, and in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from fastscreen.control.messages import SCORERS, TESTS, HistorySession, ListAnswer
from fastscreen.tui.figures import clock, date, duration
from fastscreen.tui.palette import BAD, HEADING, MUTED, OK, PLAIN, SELECTED, WARN
from fastscreen.tui.view import Export
from fastscreen.tui.wording import outcome, wrapped

TEST_LABELS = {test.key: test.label for test in TESTS}
SCORER_LABELS = {scorer.key: scorer.label for scorer in SCORERS} | {SCORERS[0].key: "DNSBLs"}
LIST_ROLES = {"listed": BAD, "doubtful": WARN, "silent": WARN, "unasked": MUTED}
LIST_STATES = {"doubtful": "listed, but the list was suspect", "silent": "no answer", "unasked": "not queried"}
TLS = {
    "none": ("not announced", MUTED),
    "unused": ("announced, not used", MUTED),
    "used": ("used", OK),
    "1.2": ("TLS 1.2", OK),
    "1.3": ("TLS 1.3", OK),
    "failed": ("handshake not completed", WARN),
}
MARKS = {
    "allowlisted": "access.list permits the client",
    "denylisted": "access.list rejects the client",
    "cached": "PASS OLD: every pass was still valid",
    "shared": "another host of the cluster knew the client",
    "bypassed": "the bypass was on",
    "vetoed": "connected to an address where no client passes",
    "spared": "shadow mode prevented a rejection",
    "unsure": "the score could still have changed, so the client was deferred",
    "new": "PASS NEW",
    "passed": "passed the tests",
    "hung_up": "the client hung up",
    "esmtp": "EHLO",
    "lists_allow": "the lists' score reached dnsbl.allowlist_threshold",
    "lists_judged": "the lists' score was complete at the end of the greet wait",
    "unsettled": "a list was not asked or suspect: the pass was not kept",
    "answers_cut": "lists returned more addresses than are recorded",
    "lists_cut": "more lists are configured than are recorded",
    "time_limit": "exceeded the time limit of a command",
    "count_limit": "exceeded the number of commands",
    "length_limit": "exceeded the length of a command",
    "client_limit": "too many connections of the client",
    "server_ports": "all server ports were busy",
    "screening_ports": "all screening ports were busy",
    "rate_limit": "too many connections per minute",
    "turned_away": "",  # the verdict says so
    "stress": "stress mode",
    "score_deferred": "deferred because of its score",
    "doubtful": "passed to the MTA for doubtful clients",
    "slowed": "the replies were delayed",
}
"""What is noted about a session. Empty: other lines say it."""
WIDE = 13  # of the words in front of each line


def brief(session: HistorySession, width: int, chosen: bool = False) -> Text:
    """A session in one line."""
    label, _, role = outcome(session.outcome)
    line = Text(" > " if chosen else "   ").append(f"{date(session.ended)}:{clock(session.ended)[6:]} ", MUTED)
    line.append(f"{label}", role)
    if code := session.verdict or session.reply:
        line.append(f" {code}", role)
    if session.score is not None:
        line.append(f", score {session.score}", WARN if session.score > 0 else MUTED)
    if session.failed:
        line.append(f", failed {names(session.failed, TEST_LABELS)}", BAD)
    if session.mta_reply:
        line.append(f", MTA {session.mta_reply}", BAD if session.mta_reply >= 500 else MUTED)
    if session.helo:
        line.append(f", {session.helo}", MUTED)
    line.truncate(width, overflow="ellipsis")
    if chosen:
        line.stylize(SELECTED)
    return line


def record(session: HistorySession, width: int) -> list[Text]:
    """All that is recorded of a session."""
    label, _, role = outcome(session.outcome)
    what = label + (f", replied {session.verdict}" if session.verdict else "")
    lines = _line("Verdict", what, width, role)
    lines += _line("Time", _time(session), width)
    lines += _line("Connection", _connection(session), width)
    if session.helo or "esmtp" in session.marks:
        greeting = "EHLO" if "esmtp" in session.marks else "HELO"
        lines += _line("HELO name", f"{session.helo or '-'} ({greeting})", width)
    tls, tls_role = TLS.get(session.tls, (session.tls or "-", PLAIN))
    lines += _line("TLS", tls, width, tls_role)
    lines += _tests(session, width)
    lines += _score(session, width)
    if session.lists:
        lines.append(_head("DNSBLs"))
        lines += [_list(answer) for answer in session.lists]
    lines += _dialogue(session, width)
    notes = [MARKS.get(mark, mark.replace("_", " ")) for mark in session.marks if mark != "esmtp"]
    lines += _line("Notes", "; ".join(note for note in notes if note), width)
    if session.weight > 1:
        lines += _line("Sample", f"stands for {session.weight} sessions of known clients", width)
    return lines


def names(keys: Iterable[str], labels: dict[str, str]) -> str:
    """Keys of tests or scorers in words."""
    return ", ".join(labels.get(key, key.replace("_", " ")) for key in keys)


def _head(title: str) -> Text:
    return Text(" ").append(title, HEADING)


def _line(title: str, text: str, width: int, role: str = PLAIN) -> list[Text]:
    """A title, and text behind it, on several lines if it is long. Nothing without text."""
    if not text:
        return []
    pieces = wrapped(text, width - WIDE - 1)
    first = Text(" ").append(f"{title:<{WIDE}}", HEADING).append(pieces[0], role)
    return [first, *(Text(" " * (WIDE + 1)).append(piece, role) for piece in pieces[1:])]


def _time(session: HistorySession) -> str:
    begin, end = clock(session.began, fraction=True), clock(session.ended, fraction=True)
    return f"{date(session.began)[:6]} {begin} to {end}, {duration(session.lasted)}; ended in stage {session.stage}"


def _connection(session: HistorySession) -> str:
    proxied = ", announced by a PROXY header" if session.proxied else ""
    return (
        f"[{session.address}]:{session.port} to [{session.server}]:{session.server_port}, "
        f"worker {session.worker}{proxied}"
    )


def _tests(session: HistorySession, width: int) -> list[Text]:
    missing = [test for test in session.needed if test not in session.made]
    lines = _line("Tests", f"made: {names(session.made, TEST_LABELS)}" if session.made else "none was made", width)
    if missing:
        lines += _line("", f"needed, but not made: {names(missing, TEST_LABELS)}", width, MUTED)
    if session.found:
        lines += _line("", f"found something: {names(session.found, TEST_LABELS)}", width, WARN)
    if session.failed:
        lines += _line("", f"failed: {names(session.failed, TEST_LABELS)}", width, BAD)
    return lines


def _score(session: HistorySession, width: int) -> list[Text]:
    if session.score is None:
        return _line("Score", "not known", width, MUTED)
    limit = f", threshold {session.threshold}" if session.threshold is not None else ""
    reached = session.threshold is not None and session.score >= session.threshold
    lines = _line("Score", f"{session.score}{limit}", width, BAD if reached else WARN if session.score > 0 else OK)
    for key in dict.fromkeys((*session.parts, *session.evidence)):
        text = session.texts.get(key) or SCORER_LABELS.get(key, "")
        lines += part(key, session.parts.get(key), text, width, WIDE + 1)
    return lines


def part(key: str, weight: int | None, text: str, width: int, indent: int) -> list[Text]:
    """A part of the score, with its evidence: `seen_network +2: 192.0.2.0/24: 7 of 9 addresses bad in 28 days`."""
    role = MUTED if not weight else BAD if weight > 0 else OK
    head = key if weight is None else f"{key} {weight:+}"
    pieces = wrapped(f"{head}: {text}" if text else head, width - indent)
    first = Text(" " * indent).append(pieces[0][: len(head)], role).append(pieces[0][len(head) :])
    return [first, *(Text(" " * (indent + 2)).append(piece) for piece in pieces[1:])]


def _list(answer: ListAnswer) -> Text:
    line = Text("   ").append(f"{answer.zone:<32} ")
    line.append(LIST_STATES.get(answer.state, answer.state.replace("_", " ")), LIST_ROLES.get(answer.state, MUTED))
    if answer.state == "listed" and answer.weight:
        line.append(f" {answer.weight:>+3} ", BAD if answer.weight > 0 else OK)
    return line.append(" " + " ".join(answer.answers) if answer.answers else "", PLAIN)


def _dialogue(session: HistorySession, width: int) -> list[Text]:
    lines = []
    if session.commands or session.recipients or session.reply:
        said = f"{_count(session.commands, 'command')}, {_count(session.recipients, 'recipient')}"
        lines += _line("Dialogue", said + (f", last reply {session.reply}" if session.reply else ""), width)
    if session.shadow_reply:
        lines += _line("Shadow mode", f"would have been replied {session.shadow_reply}", width, WARN)
    if session.mta_reply or session.mta_accepted or session.mta_rejected:
        text = f"last reply {session.mta_reply or '-'}, {_count(session.mta_accepted, 'message')} accepted, "
        text += f"{session.mta_rejected} rejected"
        lines += _line("MTA", text, width, BAD if session.mta_rejected else OK)
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def recorded(sessions: Sequence[HistorySession], chosen: int, width: int, most: int) -> list[Text]:
    """Some of a client's sessions around the one that is shown in full, the newest first."""
    first = max(min(chosen - most // 2, len(sessions) - most), 0)
    shown = sessions[first : first + most]
    return [brief(session, width, first + at == chosen) for at, session in enumerate(shown)]


def exported_sessions(sessions: Sequence[HistorySession]) -> Export:
    """Recorded sessions as data."""
    return Export(
        (
            *("ended", "lasted", "address", "port", "server", "server_port", "worker", "stage", "outcome", "verdict"),
            *("reply", "tls", "failed", "evidence", "lists", "score", "helo", "commands", "recipients", "mta_reply"),
        ),
        [
            (
                *(s.ended, s.lasted, s.address, s.port, s.server, s.server_port, s.worker, s.stage, s.outcome),
                *(s.verdict, s.reply, s.tls, ",".join(s.failed), ",".join(s.evidence)),
                *(",".join(answer.zone for answer in s.lists if answer.state == "listed"), s.score, s.helo),
                *(s.commands, s.recipients, s.mta_reply),
            )
            for s in sessions
        ],
    )
