"""`mynetworks` in Postfix's notation, as a table that the core can ask."""

from __future__ import annotations

from collections.abc import Sequence

from fastscreen.config.values import Network
from fastscreen.core import NetworkTable
from fastscreen.tables.matchlist import expanded
from fastscreen.tables.table import TableError

PERMIT, NO = "permit", "no"


def read_networks(items: Sequence[str]) -> NetworkTable:
    """The networks as a table with the results PERMIT (a member) and NO (`!network`: none, whatever follows).

    Raises TableError: a file that cannot be read, what is no network, host bits that are not zero.
    """
    warnings: list[str] = []
    patterns = list(expanded(items, "mynetworks", warnings))
    text = "".join(f"{pattern} {NO if negated else PERMIT}\n" for negated, pattern in patterns)
    table = NetworkTable(text.encode("utf-8", "surrogateescape"), "mynetworks")
    if table.warnings or len(table) != len(patterns):
        # Only now, when something is wrong, at the cost of looking at each: which one, and what is allowed.
        for _, pattern in patterns:
            try:
                Network().parse(pattern)
            except ValueError as error:
                raise TableError(str(error)) from None
        raise TableError("; ".join(table.warnings) or "not a list of networks")
    return table
