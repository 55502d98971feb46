"""fastscreen events: show events as they happen."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.control import client
from fastscreen.control.client import Client
from fastscreen.control.messages import MAX_RATE, Event, EventsRequest
from fastscreen.format import clock, plural

EXAMPLES = f"""\
examples:
  fastscreen events                                          all events; Ctrl-C ends it
  fastscreen events --filter='kind:pregreet 192.0.2.0/24'
  fastscreen events --recent 50 --count 50 --json | jq -r .address
  fastscreen events --filter='-kind:connect,disconnect score>=3'

The terms of a filter are separated by spaces, and all must match; - before a term negates it. docs/control.md lists
all terms. A line "--- 17 events lost ---" (--json: {{"lost": 17}}) shows where matching events are missing.

{control_socket.EXIT_CODES}
"""

_MAX_RECENT = 65536  # events; a worker's ring holds no more
_TIMED = frozenset(("greet", "handed_off", "hangup", "disconnect"))
_SHOWN = {"rank", "score", "score_deferred", "doubtful", "slowed", "stress_on", "stress_off"}  # numbers as they are


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "events",
        help=COMMANDS["events"],
        description="Show events as they happen. Text of clients is shown with C escapes, as in the log.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    control_socket.add_socket(parser)
    parser.add_argument("--filter", default="", metavar="TERMS", help="only events that match")
    parser.add_argument(
        "--recent", type=_count, default=0, metavar="N", help="begin with the latest N events (default: none)"
    )
    parser.add_argument("--count", type=_count, default=0, metavar="N", help="stop after N events")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_RECENT:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MAX_RECENT}")
    return int(text)


@control_socket.guarded
def run(arguments: argparse.Namespace) -> int:
    """Follow, print, and return the exit code."""
    return asyncio.run(_follow(control_socket.socket_path(arguments), arguments))


async def _follow(path: str, arguments: argparse.Namespace) -> int:
    control = await Client.connect(path)
    printed = 0
    try:
        following = await control.subscribe(EventsRequest(arguments.filter, MAX_RATE, arguments.recent))
        async for events, lost in following:
            if lost:
                print(
                    control_socket.as_json({"lost": lost})
                    if arguments.json
                    else f"--- {plural(lost, 'event')} lost ---"
                )
            for event in events:
                print(control_socket.as_json(event) if arguments.json else line(event))
                printed += 1
                if printed == arguments.count:
                    return 0
            print(end="", flush=True)
    finally:
        await control.close()
    return 0


def line(answer: Any) -> str:
    """One event for people. Raises Malformed."""
    event = client.event(answer)
    where = f"{event.address}:{event.port}" if event.port else event.address
    parts = [clock(event.time), f"{where or '-':<21}", f"{event.kind:<16}", _details(event)]
    if event.failed:
        parts.append(f"[{' '.join(event.failed)}]")
    return " ".join(filter(None, parts)).rstrip()


def _details(event: Event) -> str:
    """The event's own data: a time, a number, a list, the client's text."""
    if event.kind == "relayed" and event.number is not None:
        return f"{event.number} bytes in, {event.text} out"
    parts = []
    if isinstance(event.number, str):
        parts.append(event.number)
    elif event.number is not None:
        if event.kind in _TIMED:
            parts.append(f"{event.number:.2f} s" if event.number >= 0.1 else f"{event.number * 1000:.1f} ms")
        elif event.kind == "pregreet":
            parts.append(f"{event.number:.0f} bytes")
        elif event.kind == "evidence":
            parts.append(f"{event.number:+.0f}")
        elif event.kind in _SHOWN:
            parts.append(f"{event.number:.0f}")
    if event.zone:
        parts.append(event.zone)
    if event.text:
        # Quotes inside the text are not escaped: scripts use --json.
        parts.append(f'"{event.text}"')
    return " ".join(parts)
