"""`mynetworks` in Postfix's notation, as a table that the core can ask."""

from __future__ import annotations

import re
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
    lines = []
    for negated, pattern in expanded(items, "mynetworks", warnings):
        try:
            Network().parse(pattern)
        except ValueError as error:
            raise TableError(str(error)) from None
        network = re.sub(r"\A\[([^]]*)\]", r"\1", pattern)
        lines.append(f"{network} {NO if negated else PERMIT}\n")
    return NetworkTable("".join(lines).encode("ascii"), "mynetworks")
