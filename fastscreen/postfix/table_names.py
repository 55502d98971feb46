"""Converts the names of lookup tables to types that fastscreen can read, or says what the operator has to do."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from fastscreen.config.kinds import TABLE_TYPES, TableName
from fastscreen.escaping import escape_text

_INDEXED = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")  # built by postmap from a text file


class ConvertedTable(Struct, frozen=True):
    """spec: the table for fastscreen; empty if it cannot be read. note: for the operator. todo: whether the note asks
    for action."""

    spec: str
    note: str = ""
    todo: bool = False


def convert(spec: str) -> ConvertedTable:
    """Convert `TYPE:TABLE`."""
    shown = escape_text(spec, 300)
    bare = spec.removeprefix("proxy:")
    kind, _, name = bare.partition(":")
    if kind in TABLE_TYPES:
        try:
            TableName().parse(bare)
        except ValueError as error:
            return ConvertedTable("", f"{shown} is omitted: {error}", todo=True)
        return ConvertedTable(bare, f"{shown}: read without proxymap" if bare != spec else "")
    if kind in _INDEXED:
        if _is_file(name):
            return ConvertedTable(
                f"texthash:{name}",
                f"{shown}: fastscreen reads the text file; after a change, send SIGHUP instead of running postmap",
            )
        return ConvertedTable(
            f"texthash:{name}.txt",
            f"{shown}: create the text file first: postmap -s {escape_text(bare)} > {escape_text(name)}.txt",
            todo=True,
        )
    return ConvertedTable(
        "",
        f"{shown} is omitted: tables of type {escape_text(kind)} are not supported; write the entries to a cidr: or "
        "texthash: file and use that",
        todo=True,
    )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
