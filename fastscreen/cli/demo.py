"""fastscreen demo: shows fastscreen with simulated clients, on loopback only."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from fastscreen.cli import control_socket
from fastscreen.control.messages import Status
from fastscreen.demo import summary
from fastscreen.demo.processes import ProcessError, Processes

EXAMPLES = """\
examples:
  fastscreen demo                            the live view; q ends the demo
  fastscreen demo --headless --seconds 20    for scripts: prints a summary

Starts fastscreen with two workers on a free port of 127.0.0.1, DNS lists, a mail server, and clients of every kind
with addresses from 127.5.0.0 to 127.99.255.255. Works as any user, uses only this machine, and removes its files.

exit codes: 0 all expected events were seen, 1 an expected event is missing or the demo failed, 2 wrong usage
"""

SECONDS = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="show fastscreen with simulated clients of every kind",
        description="Run fastscreen on loopback with simulated clients of every kind, and show it in the live view.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--headless", action="store_true", help="print a summary instead of the live view")
    parser.add_argument("--seconds", metavar="N", type=_seconds, help=f"duration with --headless (default: {SECONDS})")
    parser.set_defaults(run=run)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1 to 3600")
    return int(text)


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Run the demo, and return the exit code."""
    if arguments.seconds and not arguments.headless:
        print("fastscreen: --seconds can only be used with --headless", file=sys.stderr)
        return 2
    if not arguments.headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("fastscreen: the live view needs a terminal; without one, use --headless", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        with Processes() as processes:
            return headless(processes, arguments.seconds or SECONDS) if arguments.headless else view(processes)
    except ProcessError as error:
        print(f"fastscreen: demo: {error}", file=sys.stderr)
        return 1


def _ended(number: int, frame: FrameType | None) -> None:
    """End the demo as Ctrl-C does, with all clean-up."""
    raise SystemExit(128 + number)


def view(processes: Processes) -> int:
    """Show the live view until the user leaves it."""
    from fastscreen.tui.app import Viewer  # imported here, because Textual takes long to load

    Viewer([processes.control]).run()
    return 0


def headless(processes: Processes, seconds: int) -> int:
    """Run for some time, and print what was seen."""
    processes.watch(seconds)
    status = control_socket.asked(processes.control, "status", Status)
    print(f"{len(status.workers)} workers in {status.time - status.started:.0f} s:")
    print("\n".join(summary.lines(status.counts)))
    if missed := summary.missing(status.counts):
        print(f"fastscreen: demo: missing events: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0
