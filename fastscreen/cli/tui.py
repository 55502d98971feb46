"""fastscreen tui: see what the front door does, in a terminal."""

from __future__ import annotations

import argparse
import sys

from fastscreen.client import DEFAULT_PATH

EXAMPLES = f"""\
examples:
  fastscreen tui                                              the fastscreen of this machine
  fastscreen tui --socket /run/fastscreen/control --socket /tmp/mx2/control     two, as tabs
  ssh -t mx.example.com fastscreen tui

The socket is {DEFAULT_PATH} unless one is named. Members of its group may look; root and the screening user may
also delete from the cache. ? shows the keys. Nothing that is looked at slows the front door down.

exit codes: 0 all is well, 2 wrong usage
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "tui",
        help="watch it in a terminal",
        description="Watch a running fastscreen in a terminal: who connects, what becomes of them, and why.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket", metavar="PATH", action="append", default=[], help="a control socket; more than once: one a tab"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 2 without a terminal (which Textual draws on by way of stderr)."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("fastscreen: tui needs a terminal; for scripts there is the control socket itself", file=sys.stderr)
        return 2
    from fastscreen.tui.app import Viewer  # here: other commands do not wait for Textual

    Viewer(arguments.socket or [DEFAULT_PATH]).run()
    return 0
