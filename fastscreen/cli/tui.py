"""fastscreen tui: see what the front door does, in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastscreen.cli import control_socket
from fastscreen.control import client
from fastscreen.control.client import Absent, ControlError

EXAMPLES = f"""\
examples:
  fastscreen tui                                              the fastscreen of this machine
  fastscreen tui -c /etc/fastscreen/mx1.toml -c /etc/fastscreen/mx2.toml        two, as tabs
  ssh -t mx.example.com fastscreen tui

Without an option: the socket that {control_socket.USUAL_FILE} names, or {client.DEFAULT_PATH}. Members of its
group may look; root and the screening user may also delete from the cache. ? shows the keys. Nothing that is looked at
slows the front door down. When a fastscreen ends while it is watched, the view waits for it.

{control_socket.EXIT_CODES}
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
    control_socket.add_socket(parser, several=True)
    parser.set_defaults(run=run)


@control_socket.told
def run(arguments: argparse.Namespace) -> int:
    """Exit code 0; 1 when nobody is there; 2 without a terminal (which Textual draws on by way of stderr)."""
    paths = control_socket.socket_paths(arguments)
    look(paths)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("fastscreen: tui needs a terminal; for scripts there is the control socket itself", file=sys.stderr)
        return 2
    from fastscreen.tui.app import Viewer  # here: other commands do not wait for Textual

    Viewer(paths).run()
    return 0


def look(paths: Sequence[str]) -> None:
    """Raises Absent when there is nobody at any of them: then it is a mistake, and not a daemon that is away."""
    absent: list[Absent] = []
    for path in paths:
        try:
            client.look(path)
        except Absent as error:
            absent.append(error)
        except ControlError:
            pass  # the view says so
    if len(absent) == len(paths):
        raise absent[0]
