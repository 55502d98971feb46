"""fastscreen explain: what would happen to a client that connected now, and why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.control import client
from fastscreen.control.messages import (
    SCORERS,
    CachedTest,
    ClusterPass,
    ExplainedList,
    ExplainRequest,
    Explanation,
    HistorySession,
)
from fastscreen.format import expiry, moment

EXAMPLES = f"""\
examples:
  fastscreen explain 192.0.2.1
  fastscreen explain 192.0.2.1 --at 198.51.100.2            if it connects to the backup MX
  fastscreen explain 2001:db8::25 --json | jq -r .verdict

The DNSBLs are queried again, which may take as long as the greet wait. The client is assumed to behave correctly: its
behavior in the tests cannot be predicted. Verdicts and the keys of --json are listed in docs/glossary.md.

{control_socket.EXIT_CODES}
"""

VERDICTS = {
    "allowlisted": "handed off to the mail server at once, untested",
    "bypassed": "handed off to the mail server at once, untested: the bypass is on",
    "cached": "handed off to the mail server at once: all its passes are still valid",
    "untested": "handed off to the mail server: no test is due",
    "passed": "handed off to the mail server after the tests",
    "ignored": "handed off to the mail server after the tests, although it fails one",
    "reconnect": "deferred with 450 after the tests; handed off when it connects again",
    "continued": "continued with the mail server at its first recipient, in the same session",
    "vetoed": "deferred: it connects to an address where no client passes",
    "busy": "rejected by a limit",
    "denylisted": "rejected at once",
    "dropped": "rejected after the greet wait, with the connection closed",
    "rejected": "rejected",
    "deferred": "deferred",
}
"""Verdicts as people read them; an unknown one is shown as it is."""

OUTCOMES = {
    "left": "left without a verdict",
    "handed_off": "handed off",
    "relayed": "relayed to the mail server",
    "continued": "continued with the mail server",
    "busy": "rejected by a limit",
    "failed": "hand-off failed",
}
"""How recorded sessions ended; the other ones are words already."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help=COMMANDS["explain"],
        description="Show what would happen to a client that connected now, and why, in the order of decision.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", type=control_socket.address, metavar="IP")
    parser.add_argument(
        "--at", type=control_socket.address, metavar="IP", help="the server address that it connects to"
    )
    control_socket.add_socket(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


@control_socket.guarded
def run(arguments: argparse.Namespace) -> int:
    """Ask, show, and return the exit code."""
    wanted = ExplainRequest(arguments.address, arguments.at or "")
    answer = client.ask_raw(control_socket.socket_path(arguments), wanted)
    found: Explanation = client.record(Explanation, answer)
    print(control_socket.as_json(answer, indent=2) if arguments.json else "\n".join(lines(found, time.time())))
    return 0


def lines(found: Explanation, now: float) -> Iterator[str]:
    """The explanation for people: the verdict, then each step with its data below it."""
    name = f" ({found.name})" if found.name else ""
    yield f"{found.address}{name}: {VERDICTS.get(found.verdict, found.verdict)}"
    if found.reply:
        yield f"  final reply: {found.reply}"
    yield ""
    based = {
        "cache": list(_stamps(found.cache or {}, now)),
        "cluster": list(_shared(found.cluster, now)) if found.cluster is not None else [],
        "dnsbl": [_list(each) for each in found.lists],
    }
    for step in found.steps:
        yield f"{step.step:<9} {step.text}"
        yield from based.pop(step.step, ())
    for what, details in based.items():
        if details:
            yield f"{what:<9} not used in this case; its content:"
            yield from details
    if found.history is not None:
        what = "its latest recorded sessions:" if found.history else "no session of this client is recorded"
        yield f"{'history':<9} {what}"
        yield from map(_recorded, found.history)


def _stamps(cached: dict[str, CachedTest], now: float) -> Iterator[str]:
    for test, stamp in cached.items():
        disabled = "" if stamp.enabled else "; the test is disabled"
        yield f"          {test:<17} {expiry(stamp.until, now)}{disabled}"


def _shared(known: ClusterPass, now: float) -> Iterator[str]:
    """What the cluster has, if it has something; a problem is in the step's text."""
    if known.host:
        since = f" since {moment(known.stored)}" if known.stored is not None else ""
        yield f"          known at {known.host}{since}"
        for test, until in known.passed_until.items():
            if until not in ("new", "disabled"):
                yield f"          {test:<17} {expiry(until, now)}"


def _recorded(session: HistorySession) -> str:
    """A session of the client's past."""
    parts = [OUTCOMES.get(session.outcome, _words(session.outcome))]
    if session.verdict:
        parts[0] += f" with {session.verdict}"
    if session.score is not None:
        own = any(key != SCORERS[0].key for key in session.parts)
        of = ", ".join(f"{key} {part:+}" for key, part in session.parts.items()) if own else ""
        parts.append(f"score {session.score}" + (f" ({of})" if of else ""))
    if session.failed:
        parts.append(f"failed {', '.join(map(_words, session.failed))}")
    if session.mta_reply:
        parts.append(f"the mail server replied {session.mta_reply}")
    if session.helo:
        parts.append(f"HELO name {session.helo}")
    return f"          {moment(session.ended)}  {'; '.join(parts)}"


def _list(answer: ExplainedList) -> str:
    answers = f" {' '.join(answer.answers)}" if answer.answers else ""
    weight = f", {answer.weight:+d}" if answer.weight else ""
    note = ""
    if answer.suspect:
        note = "; the list is suspect: clients that it lists are deferred until it has been probed"
    elif not answer.counted:
        note = "; the list is disabled: it is not queried for clients, and ignored"
    elif answer.cached is not None and (answer.cached.state, answer.cached.answers) != (answer.state, answer.answers):
        note = (
            f"; fastscreen uses the earlier answer: {' '.join([_words(answer.cached.state), *answer.cached.answers])}"
        )
    return f"          {answer.zone:<27} {_words(answer.state)}{answers}{weight}{note}"


def _words(state: str) -> str:
    return state.replace("_", " ")
