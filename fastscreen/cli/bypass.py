"""fastscreen bypass: the panic switch, which hands every client on untested for a time."""

from __future__ import annotations

import argparse
import sys

from fastscreen.cli import control_socket
from fastscreen.config.kinds import Time
from fastscreen.control.messages import Until
from fastscreen.format import moment, red, span

EXAMPLES = f"""\
examples:
  fastscreen bypass on --for 30m     every client goes to the mail server, untested; ends by itself
  fastscreen bypass off

Only root and the user that screens may do this. Clients that the access list rejects are still turned away.
Everything that shows fastscreen shows it in red meanwhile, and the log has a line for each client.

{control_socket.EXIT_CODES}
"""

MAX_SECONDS = 24 * 3600  # s


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "bypass",
        help="hand every client on untested, for a time",
        description="The panic switch: hand every client on to the mail server untested, for a time.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="on|off", required=True)
    on = ways.add_parser("on", help="begin, or change when it ends")
    on.add_argument("--for", dest="seconds", metavar="TIME", type=_time, required=True, help="such as 30m; at most 24h")
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
        raise argparse.ArgumentTypeError("at most 24h")
    return seconds


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Switch, say what was done, and return the exit code."""
    path = control_socket.socket_path(arguments)
    answer = control_socket.asked(path, "bypass", Until, seconds=arguments.seconds)
    if not arguments.seconds:
        print("bypass is off: clients are tested")
        return 0
    if answer.until is None:
        print("fastscreen: the answer does not say until when", file=sys.stderr)
        return 1
    print(f"bypass is on until {moment(answer.until)}, for {span(arguments.seconds)}; `fastscreen bypass off` ends it")
    print(red("WARNING: every client reaches the mail server untested until then", sys.stderr), file=sys.stderr)
    return 0
