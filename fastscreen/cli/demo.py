"""fastscreen demo: all of it at work on loopback, with nothing else installed."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from fastscreen.cli import control_socket
from fastscreen.control.messages import Status
from fastscreen.demo import summary
from fastscreen.demo.stage import ProcessError, Processes

EXAMPLES = """\
examples:
  fastscreen demo                            the live view of a screener under visit; q ends it
  fastscreen demo --headless --seconds 20    for scripts: a summary

A screener with two workers on a free port of 127.0.0.1, DNSBL lists and a mail server of its own, and clients of every
kind from 127.5.0.0 to 127.99.255.255. Works as any user, talks to nobody else, and leaves nothing behind.

exit codes: 0 all that was expected was seen, 1 something was not, or it failed, 2 wrong usage
"""

SECONDS = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="see it at work, with clients of every kind",
        description="Show a screener at work on loopback, with clients of every kind, in the live view.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--headless", action="store_true", help="without the view: print a summary")
    parser.add_argument("--seconds", metavar="N", type=_seconds, help=f"with --headless: how long ({SECONDS})")
    parser.set_defaults(run=run)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 3600:
        raise argparse.ArgumentTypeError("a number from 1 to 3600 is expected")
    return int(text)


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Play, and return the exit code."""
    if arguments.seconds and not arguments.headless:
        print("fastscreen: --seconds goes with --headless", file=sys.stderr)
        return 2
    if not arguments.headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("fastscreen: the view needs a terminal; see --headless", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        with Processes() as stage:
            return headless(stage, arguments.seconds or SECONDS) if arguments.headless else view(stage)
    except ProcessError as error:
        print(f"fastscreen: demo: {error}", file=sys.stderr)
        return 1


def _ended(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: out of whatever is under way, and everything is tidied up."""
    raise SystemExit(128 + number)


def view(stage: Processes) -> int:
    """The live view, until the user leaves it."""
    from fastscreen.tui.app import Viewer  # here: Textual takes long to import

    Viewer([stage.control]).run()
    return 0


def headless(stage: Processes, seconds: int) -> int:
    """Let it run, and tell what was seen."""
    stage.watch(seconds)
    status = control_socket.asked(stage.control, "status", Status)
    print(f"{len(status.workers)} workers in {status.time - status.started:.0f} s:")
    print("\n".join(summary.lines(status.counts)))
    if missed := summary.missing(status.counts):
        print(f"fastscreen: demo: not seen: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0
