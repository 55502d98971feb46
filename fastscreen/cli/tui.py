"""fastscreen tui: watch a running fastscreen in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.control import client
from fastscreen.control.client import Absent, ControlError

EXAMPLES = f"""\
examples:
  fastscreen tui                                              the fastscreen of this machine
  fastscreen tui -c /etc/fastscreen/mx1.toml -c /etc/fastscreen/mx2.toml        two, as tabs
  ssh -t mx.example.com fastscreen tui

Without an option, the socket is that of {control_socket.USUAL_FILE}, or {client.DEFAULT_PATH}. Members of
control.group may watch; root and fastscreen's user may also delete cache entries. Press ? for the keys. The view never
slows fastscreen down. When the daemon ends, the view waits and connects again.

{control_socket.EXIT_CODES}
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "tui",
        help=COMMANDS["tui"],
        description="Watch a running fastscreen in a terminal: which clients connect, what happens to them, and why.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    control_socket.add_socket(parser, several=True)
    parser.set_defaults(run=run)


@control_socket.guarded
def run(arguments: argparse.Namespace) -> int:
    """Exit code 0; 1 when no fastscreen answers; 2 without a terminal (Textual draws on stderr)."""
    paths = control_socket.socket_paths(arguments)
    look(paths)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("fastscreen: tui needs a terminal; scripts can use `status --json` and `events --json`", file=sys.stderr)
        return 2
    from fastscreen.tui.app import Viewer  # here, so that other commands do not import Textual

    Viewer(paths).run()
    return 0


def look(paths: Sequence[str]) -> None:
    """Raises Absent when no fastscreen answers at any of the paths, which is probably a mistake."""
    absent: list[Absent] = []
    for path in paths:
        try:
            client.look(path)
        except Absent as error:
            absent.append(error)
        except ControlError:
            pass  # the view shows it
    if len(absent) == len(paths):
        raise absent[0]
