"""fastscreen reopen: have a running fastscreen open its log again."""

from __future__ import annotations

import argparse
import functools

from fastscreen.cli import COMMANDS, orders
from fastscreen.control.messages import ReopenRequest

ORDER = orders.Order(
    name="reopen",
    help=COMMANDS["reopen"],
    description="""\
Have a running fastscreen open its log again, as after its rotation. The
configuration is not read.""",
    examples="""\
  mv /var/log/fastscreen/fastscreen.log /var/log/fastscreen/fastscreen.log.1 && fastscreen reopen""",
    without="systemctl kill -s USR1 --kill-whom=main fastscreen, or SIGUSR1 to the process of `fastscreen run`",
    seconds=30,
    run=functools.partial(orders.attempt, ReopenRequest()),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    orders.add_parser(subparsers, ORDER)
