"""fastscreen reload: have a running fastscreen read its configuration and tables again."""

from __future__ import annotations

import argparse
import functools

from fastscreen.cli import COMMANDS, orders
from fastscreen.control.messages import ReloadRequest

ORDER = orders.Order(
    name="reload",
    help=COMMANDS["reload"],
    description="""\
Have a running fastscreen read its configuration and tables again, and open its
log again. Clients notice nothing. A configuration with a mistake is refused,
and the previous one stays in use.""",
    examples="""\
  fastscreen check -c /etc/fastscreen/fastscreen.toml && fastscreen reload
  fastscreen reload --json | jq -r .text        why it was refused""",
    without="systemctl reload fastscreen, or SIGHUP to the process of `fastscreen run`",
    seconds=90,
    run=functools.partial(orders.attempt, ReloadRequest()),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    orders.add_parser(subparsers, ORDER)
