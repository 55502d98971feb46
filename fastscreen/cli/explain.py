"""fastscreen explain: what would happen to a client that came now, and why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from fastscreen.cli import control_socket
from fastscreen.cli.cache import expiry
from fastscreen.control import client
from fastscreen.control.messages import Explanation, ListSaid, Remembered, record

EXAMPLES = f"""\
examples:
  fastscreen explain 192.0.2.1
  fastscreen explain 192.0.2.1 --at 198.51.100.2            at the address of the backup MX
  fastscreen explain 2001:db8::25 --json | jq -r .verdict

The DNSBL lists are asked anew, which may take as long as the greet wait. The client is taken for one that behaves:
whether it would talk too soon, nobody can say. Verdicts and fields of --json: docs/commands.md.

{control_socket.EXIT_CODES}
"""

VERDICTS = {
    "allowlisted": "handed on at once, untested",
    "bypassed": "handed on at once, untested: the bypass is on",
    "cached": "handed on at once: every pass is still valid",
    "untested": "handed on: no test is to be made",
    "passed": "handed on after the tests",
    "ignored": "handed on after the tests, though it failed",
    "deep": "told to come again, and then handed on",
    "continued": "handed on at its first recipient, in the same session",
    "vetoed": "refused for now: it came in where nobody passes",
    "busy": "turned away by a limit",
    "denylisted": "turned away at once",
    "dropped": "turned away after the greet wait",
    "rejected": "refused for good",
    "deferred": "refused for now",
}
"""Verdicts as people read them; one that is not here stands for itself."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="what would happen to a client now, and why",
        description="Say what would happen to a client that came now, and why, in the order of decision.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", type=control_socket.address, metavar="IP")
    parser.add_argument(
        "--at", type=control_socket.address, metavar="IP", help="where it comes in, one of the server's addresses"
    )
    control_socket.add_socket(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Ask, show, and return the exit code."""
    wanted = {"address": arguments.address} | ({"server": arguments.at} if arguments.at else {})
    answer = client.ask(control_socket.socket_path(arguments), "explain", **wanted)
    found = record(Explanation, answer)
    print(control_socket.as_json(answer, indent=2) if arguments.json else "\n".join(lines(found, time.time())))
    return 0


def lines(found: Explanation, now: float) -> Iterator[str]:
    """The explanation for people: the verdict, then each step, with what it was based on below it."""
    name = f" ({found.name})" if found.name else ""
    yield f"{found.address}{name}: {VERDICTS.get(found.verdict, found.verdict)}"
    if found.reply:
        yield f"  it is told: {found.reply}"
    yield ""
    based = {"cache": list(_stamps(found.cache or {}, now)), "dnsbl": [_said(each) for each in found.lists]}
    for step in found.steps:
        yield f"{step.step:<9} {step.text}"
        yield from based.pop(step.step, ())
    for what, details in based.items():
        if details:
            yield f"{what:<9} not looked at in this case; it would be:"
            yield from details


def _stamps(remembered: dict[str, Remembered], now: float) -> Iterator[str]:
    for test, stamp in remembered.items():
        off = "" if stamp.on else "; the test is off"
        yield f"          {test:<17} {expiry(stamp.until, now)}{off}"


def _said(said: ListSaid) -> str:
    answers = f" {' '.join(said.answers)}" if said.answers else ""
    weight = f", {said.weight:+d}" if said.weight else ""
    kept = ""
    if said.kept is not None and (said.kept.state, said.kept.answers) != (said.state, said.answers):
        was = " ".join([said.kept.state, *said.kept.answers])
        kept = f"; what counts is the answer still kept: {was}"
    out = ""
    if said.suspect:
        out = "; the list is suspect: clients that it lists are deferred until it has been probed"
    elif not said.counts:
        out = "; the list is out: it is not asked for clients and ignored"
    return f"          {said.zone:<27} {said.state}{answers}{weight}{out or kept}"
