"""fastscreen restart: have a running fastscreen replace itself, as after an upgrade."""

from __future__ import annotations

import argparse

from fastscreen.cli import COMMANDS, orders

ORDER = orders.Order(
    name="restart",
    help=COMMANDS["restart"],
    description="""\
Have a running fastscreen replace itself by a new process, as after an upgrade.
The new one takes over the listening sockets, so no connection is refused;
clients of the old one finish there.""",
    examples="""\
  pip install --upgrade fastscreen && fastscreen restart""",
    without="systemctl restart fastscreen, or SIGUSR2 to the process of `fastscreen run`",
    seconds=90,
    run=orders.restarted,
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    orders.add_parser(subparsers, ORDER)
