"""fastscreen bypass: hand every client off to the mail server untested, for a limited time."""

from __future__ import annotations

import argparse
import sys

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.config.kinds import Time
from fastscreen.control import client
from fastscreen.control.messages import BypassRequest
from fastscreen.format import moment, red, span

EXAMPLES = f"""\
examples:
  fastscreen bypass on --for 30m     every client is handed off untested; ends automatically
  fastscreen bypass off

Only root and fastscreen's user may do this. Clients that the access list rejects are still rejected. Meanwhile
`status` and the terminal view show a red warning, and the log has a line for each client.

{control_socket.EXIT_CODES}
"""

MAX_SECONDS = 24 * 3600  # s


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "bypass",
        help=COMMANDS["bypass"],
        description="An emergency switch: hand every client off to the mail server untested, for a limited time.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="on|off", required=True)
    on = ways.add_parser("on", help="switch the bypass on, or change when it ends")
    on.add_argument(
        "--for", dest="seconds", metavar="TIME", type=_time, required=True, help="how long, such as 30m; at most 24h"
    )
    off = ways.add_parser("off", help="test clients again")
    off.set_defaults(seconds=0)
    for way in (on, off):
        control_socket.add_socket(way)
        way.set_defaults(run=run)


def _time(text: str) -> int:
    try:
        seconds = Time().parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds > MAX_SECONDS:
        raise argparse.ArgumentTypeError("expected at most 24h")
    return seconds


@control_socket.guarded
def run(arguments: argparse.Namespace) -> int:
    """Switch, print the result, and return the exit code."""
    path = control_socket.socket_path(arguments)
    answer = client.ask(path, BypassRequest(arguments.seconds))
    if not arguments.seconds:
        print("The bypass is off: clients are tested.")
        return 0
    if answer.until is None:
        print("fastscreen: the answer lacks the end time", file=sys.stderr)
        return 1
    print(
        f"The bypass is on until {moment(answer.until)}, for {span(arguments.seconds)}. "
        "`fastscreen bypass off` ends it."
    )
    print(red("WARNING: until then every client reaches the mail server untested", sys.stderr), file=sys.stderr)
    return 0
