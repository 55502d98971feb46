"""Postfix lookup tables of the types that need no database: cidr, texthash, inline, static, regexp, pcre.

`open_table(spec)` reads a table once, `lookup(key)` asks it. What each type means is Postfix's: cidr_table(5),
regexp_table(5), pcre_table(5), DATABASE_README.
"""

from __future__ import annotations

from fastscreen.config.kinds import check_table_type
from fastscreen.escaping import escape_text
from fastscreen.tables.cidr import Cidr
from fastscreen.tables.patterns import Patterns
from fastscreen.tables.plain import Inline, Static, TextHash
from fastscreen.tables.table import Table, TableError

__all__ = ["Cidr", "Table", "TableError", "open_table"]


def open_table(spec: str, key: str = "") -> Table:
    """Open `TYPE:NAME` or `TYPE:{...}`. Skipped rules are in the table's `warnings`.

    key: the key of the configuration that names the table, for the error. Raises TableError, one line.
    """
    try:
        return _open(spec)
    except TableError as error:
        raise TableError(f"{key}: {error}" if key else str(error)) from None


def _open(spec: str) -> Table:
    kind, _, name = spec.partition(":")
    try:
        check_table_type(spec)
    except ValueError as error:
        raise TableError(f"{escape_text(spec)}: {error}") from None
    if not name:
        raise TableError(f"{escape_text(spec)}: no name after the type; expected TYPE:NAME")
    match kind:
        case "cidr":
            return Cidr(spec, name)
        case "texthash":
            return TextHash(spec, name)
        case "inline":
            return Inline(spec, name)
        case "static":
            return Static(spec, name)
        case _:
            return Patterns(spec, name)
