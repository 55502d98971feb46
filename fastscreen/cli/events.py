"""fastscreen events: what happens at the front door, as it happens."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from fastscreen.cli import control_socket
from fastscreen.control.client import Client
from fastscreen.control.messages import Event, record
from fastscreen.format import clock

EXAMPLES = f"""\
examples:
  fastscreen events                                          all of them; Ctrl-C ends it
  fastscreen events --filter='kind:pregreet 192.0.2.0/24'
  fastscreen events --recent 50 --count 50 --json | jq -r .address
  fastscreen events --filter='-kind:connect,disconnect score>=3'

Terms of a filter have blanks between them and must all hold; - in front of one: must not. All of them: docs/control.md.
A line "--- 17 events lost ---" says that so many that matched are missing there (--json: {{"lost": 17}}).

{control_socket.EXIT_CODES}
"""

_RATE = 2000  # events a second, the most that the protocol gives
_MAX_RECENT = 65536  # events; no ring of a worker's holds more
_TIMED = frozenset(("greet", "handed", "hangup", "disconnect"))


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "events",
        help="follow what happens",
        description="Show events as they happen. What clients sent is shown with C escapes, as in the log.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    control_socket.add_socket(parser)
    parser.add_argument("--filter", default="", metavar="TERMS", help="only events that match")
    parser.add_argument("--recent", type=_count, default=0, metavar="N", help="begin with the latest N (default: none)")
    parser.add_argument("--count", type=_count, default=0, metavar="N", help="end after N events")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_RECENT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_MAX_RECENT} is expected")
    return int(text)


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Follow, print, and return the exit code."""
    return asyncio.run(_follow(control_socket.socket_path(arguments), arguments))


async def _follow(path: str, arguments: argparse.Namespace) -> int:
    client = await Client.connect(path)
    printed = 0
    try:
        following = await client.subscribe(arguments.filter, _RATE, arguments.recent)
        async for events, lost in following:
            if lost:
                print(control_socket.as_json({"lost": lost}) if arguments.json else f"--- {lost:,} events lost ---")
            for event in events:
                print(control_socket.as_json(event) if arguments.json else line(event))
                printed += 1
                if printed == arguments.count:
                    return 0
            print(end="", flush=True)
    finally:
        await client.close()
    return 0


def line(octets: Any) -> str:
    """One event for people. Raises Malformed."""
    event = record(Event, octets)
    where = f"{event.address}:{event.port}" if event.port else event.address
    parts = [clock(event.time), f"{where or '-':<21}", f"{event.kind:<16}", _particulars(event)]
    if event.failed:
        parts.append(f"[{' '.join(event.failed)}]")
    return " ".join(filter(None, parts)).rstrip()


def _particulars(event: Event) -> str:
    """What the event itself tells: a time, a number, a list, the client's words."""
    parts = []
    if isinstance(event.number, str):
        parts.append(event.number)
    elif event.number is not None:
        if event.kind in _TIMED:
            parts.append(f"{event.number:.2f} s" if event.number >= 0.1 else f"{event.number * 1000:.1f} ms")
        elif event.kind == "pregreet":
            parts.append(f"{event.number:.0f} octets")
        elif event.kind in ("rank", "stress_on", "stress_off"):
            parts.append(f"{event.number:.0f}")
    if event.zone:
        parts.append(event.zone)
    if event.text:
        # Its own words, with the quotes in them as they came: whoever parses takes --json.
        parts.append(f'"{event.text}"')
    return " ".join(parts)
