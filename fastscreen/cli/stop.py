"""fastscreen stop: have a running fastscreen stop."""

from __future__ import annotations

import argparse

from fastscreen.cli import COMMANDS, orders

ORDER = orders.Order(
    name="stop",
    help=COMMANDS["stop"],
    description="""\
Stop a running fastscreen, and wait until it has ended. Clients on their way to
the MTA may finish, which takes at most 30 s; to end them at once, run it again.""",
    examples="""\
  fastscreen stop
  fastscreen stop --timeout 5 || fastscreen stop        do not wait for clients for longer than that""",
    without="systemctl stop fastscreen, or SIGTERM to the process of `fastscreen run`",
    seconds=60,
    run=orders.stopped,
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    orders.add_parser(subparsers, ORDER)
