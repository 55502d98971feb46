"""`mynetworks` in Postfix's notation, as a table that the core can ask."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fastscreen.config.kinds import Network
from fastscreen.core import NetworkTable
from fastscreen.escaping import quoted
from fastscreen.tables.matchlist import expanded
from fastscreen.tables.table import TableError

PERMIT, NO = "permit", "no"
MAX_WARNINGS = 100  # a file that is not a list of networks must not flood the log


class NetworkList(Struct, frozen=True):
    """table: with the results PERMIT (a member) and NO (`!network`: not a member, whatever follows).

    warnings: a line for each entry of a file that is not a network and was skipped.
    """

    table: NetworkTable
    warnings: tuple[str, ...] = ()


def read_networks(items: Sequence[str], key: str) -> NetworkList:
    """Read a list of networks and the files that it names. key: which list, for the messages.

    Raises TableError (without the key): a file that cannot be read, and one of `items` itself that is not a network.
    """
    warnings: list[str] = []
    patterns = list(expanded(items, key, warnings))
    warnings = [f"{key}: {each}" for each in warnings]
    text = "".join(_line(negated, pattern) for negated, pattern, _ in patterns)
    table = NetworkTable(text.encode("utf-8", "surrogateescape"), key)
    if not table.warnings and len(table) == len(patterns):
        return NetworkList(table, tuple(warnings))
    # Only now, when something is wrong, at the cost of looking at each: which ones, and what is expected.
    kept: list[tuple[bool, str]] = []
    for negated, pattern, place in patterns:
        try:
            _check(pattern, key)
        except ValueError as error:
            if not place:
                raise TableError(str(error)) from None
            warnings.append(f"{key}: {place}: {error}; entry skipped")
        else:
            kept.append((negated, pattern))
    table = NetworkTable("".join(_line(*each) for each in kept).encode("utf-8", "surrogateescape"), key)
    more = len(warnings) - MAX_WARNINGS
    if more > 0:
        warnings = [*warnings[:MAX_WARNINGS], f"{key}: {more} more such warnings"]
    return NetworkList(table, (*warnings, *table.warnings))


def _line(negated: bool, pattern: str) -> str:
    return f"{pattern} {NO if negated else PERMIT}\n"


def _check(pattern: str, key: str) -> None:
    """Whether the core reads it as one network. Raises ValueError."""
    Network().parse(pattern)
    table = NetworkTable(_line(False, pattern).encode("utf-8", "surrogateescape"), key)
    if table.warnings or len(table) != 1:
        raise ValueError(f"bad network {quoted(pattern)}; expected {Network.expected}")
