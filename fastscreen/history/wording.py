"""What happened in a recorded session, in words."""

from __future__ import annotations

from collections.abc import Iterator

from fastscreen.core import TESTS
from fastscreen.escaping import escape_bytes, printable
from fastscreen.format import plural
from fastscreen.history.evidence import evidence_texts
from fastscreen.history.session import ListAnswer, Session

_LABELS = {test.key: test.label for test in TESTS}
_LIMITS = {
    "client_limit": "too many connections",
    "server_ports": "all server ports busy",
    "screening_ports": "all screening ports busy",
    "rate_limit": "connection rate limit exceeded",
}
_ENDS = {
    "time_limit": "exceeded the time limit for a command",
    "count_limit": "exceeded the limit of commands",
    "length_limit": "exceeded the limit of a command's length",
}


def result(session: Session) -> str:
    """How it ended: what the client was told."""
    marks = session.marks
    code = f" with {session.verdict}" if session.verdict else ""
    if session.outcome == "busy":
        limit = next((text for mark, text in _LIMITS.items() if mark in marks), "a limit on connections")
        return f"rejected{code}: {limit}"
    if session.outcome == "left":
        return "disconnected before there was a verdict" if "hung_up" in marks else "left without naming a recipient"
    return {
        "handed_off": "handed off to the MTA",
        "relayed": "relayed to the MTA",
        "continued": "continued with the MTA after the deep tests",
        "deferred": f"deferred{code}",
        "rejected": f"rejected{code}",
        "failed": f"could not be handed off to the MTA{code and f', and was rejected{code}'}",
    }.get(session.outcome, session.outcome)


def reasons(session: Session) -> Iterator[str]:
    """Why it ended so: what was found, and what was known."""
    marks = session.marks
    if "allowlisted" in marks:
        yield "permitted by the access list"
    if "denylisted" in marks:
        yield "rejected by the access list"
    if "bypassed" in marks:
        yield "not tested, because of the bypass"
    if "cached" in marks:
        yield "known (PASS OLD)"
    if "shared" in marks:
        yield "known to another host of the cluster"
    if "vetoed" in marks:
        yield "connected to an address where no client can pass"
    if "lists_allow" in marks:
        yield "passed by the lists (dnsbl.allowlist_threshold)"
    for key in session.found:
        ignored = "" if key in session.failed else ", which was ignored"
        yield f"failed the {_LABELS.get(key, key)} test{ignored}"
    if "new" in marks:
        yield "passed the tests (PASS NEW)"
    elif "passed" in marks and "cached" not in marks:
        yield "passed the tests that were due (PASS OLD)"
    if "spared" in marks or session.spared:
        yield f"would have been rejected{f' with {session.spared}' if session.spared else ''} without shadow mode"
    if "unsure" in marks:
        yield "the score was not certain"
    if "score_deferred" in marks:
        yield "deferred because of its score"
    if "doubtful" in marks:
        yield "passed to the MTA for doubtful clients"
    if "slowed" in marks:
        yield "its replies were delayed"
    for mark, text in _ENDS.items():
        if mark in marks:
            yield text


def details(session: Session, threshold: int | None) -> Iterator[str]:
    """What else is recorded, a line for each kind."""
    named = [listing(answer) for answer in session.lists if answer.state in ("listed", "doubtful")]
    if named:
        yield f"listed by {', '.join(named)}"
    silent = [printable(answer.name) for answer in session.lists if answer.state == "silent"]
    if silent:
        yield f"no answer from {', '.join(silent)}"
    if session.score:
        parts = ", ".join(f"{key} {part}" for key, part in session.parts.items() if part)
        of = f", threshold {threshold}" if threshold is not None else ""
        yield f"score {session.score}{of}" + (f" ({parts})" if parts else "")
    for key, text in evidence_texts(session).items():
        yield f"{key} {session.parts[key]:+}: {text}" if session.parts.get(key) else f"{key}: {text}"
    dialogue = [f"HELO {escape_bytes(session.helo)}"] if session.helo else []
    if session.tls in ("used", "1.2", "1.3"):
        dialogue.append(f"TLS {session.tls}" if session.tls != "used" else "TLS")
    if session.tls == "failed":
        dialogue.append("TLS handshake not completed")
    if session.commands:
        dialogue.append(plural(session.commands, "command"))
    if session.recipients:
        dialogue.append(plural(session.recipients, "recipient"))
    if dialogue:
        yield ", ".join(dialogue)
    if session.dialect:
        yield f"SMTP dialect: {session.dialect}"
    if session.syn:
        yield f"TCP SYN: {session.syn}"
    if session.mta_reply:
        parts_of = [f"the MTA's last reply {session.mta_reply}"]
        if session.mta_accepted:
            parts_of.append(f"{plural(session.mta_accepted, 'message')} accepted")
        if session.mta_rejected:
            parts_of.append(f"{session.mta_rejected} rejected with 5xx")
        if session.mta_refused:
            parts_of.append(f"{session.mta_refused} of {plural(session.mta_recipients, 'recipient')} rejected")
        yield ", ".join(parts_of)


def listing(answer: ListAnswer) -> str:
    """A list, and what it returned."""
    addresses = f" ({', '.join(answer.addresses)})" if answer.addresses else ""
    return f"{printable(answer.name)}{addresses}{', which was suspect' if answer.state == 'doubtful' else ''}"


def why(session: Session) -> str:
    """The same as `reasons` in a few words, for a column."""
    marks = session.marks
    words = list(session.failed) or [f"({key})" for key in session.found]
    words += [
        word
        for mark, word in (
            ("allowlisted", "allowlisted"), ("denylisted", "denylisted"), ("bypassed", "bypass"), ("cached", "known"),
            ("shared", "cluster"), ("vetoed", "vetoed"), ("new", "passed"), ("score_deferred", "score"),
            ("doubtful", "doubtful"), ("slowed", "slowed"), ("client_limit", "connections"),
            ("server_ports", "server busy"), ("screening_ports", "screening busy"), ("rate_limit", "rate"),
            ("time_limit", "time limit"), ("count_limit", "count limit"), ("length_limit", "length limit"),
            ("spared", "shadow"),
        )
        if mark in marks
    ]  # fmt: skip
    if not words and "hung_up" in marks:
        words.append("hung up")
    return ",".join(words)
