"""What every lookup table offers, whatever its type."""

from __future__ import annotations

from typing import Protocol


class TableError(Exception):
    """A table that cannot be opened; its text is one printable line that names the table."""


class Table(Protocol):
    """A lookup table that is read once and then only asked.

    spec: `TYPE:NAME`, as it was asked for.
    warnings: one line for each rule that was skipped and why, with file and line number, as Postfix words them. A
        lookup may add to it (a pattern that took too long, once for each rule); who logs the lines clears the list.
    """

    spec: str
    warnings: list[str]

    @property
    def results(self) -> list[str]:
        """The distinct results, in file order; without those that are put together from what a pattern matched."""
        ...

    def lookup(self, key: str) -> str | None:
        """The value for a key, or None. Octets of a key that are not UTF-8 are surrogate escapes."""
        ...
