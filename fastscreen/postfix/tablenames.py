"""Lookup tables: those that fastscreen reads stay where they are, others become what it reads, or are named."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from fastscreen.config.kinds import TABLE_TYPES, TableName
from fastscreen.escaping import escape_text

_INDEXED = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")  # made by postmap from a text file


class Renamed(Struct, frozen=True):
    """spec: as fastscreen reads it, empty when it cannot. note: what is to be known. todo: whether there is work."""

    spec: str
    note: str = ""
    todo: bool = False


def renamed(spec: str) -> Renamed:
    """What becomes of `TYPE:TABLE`."""
    shown = escape_text(spec, 300)
    bare = spec.removeprefix("proxy:")
    kind, _, name = bare.partition(":")
    if kind in TABLE_TYPES:
        try:
            TableName().parse(bare)
        except ValueError as error:
            return Renamed("", f"{shown} is omitted: {error}", todo=True)
        return Renamed(bare, f"{shown}: read without proxymap" if bare != spec else "")
    if kind in _INDEXED:
        if _is_file(name):
            return Renamed(
                f"texthash:{name}",
                f"{shown}: the text that postmap makes it of is read itself; after a change SIGHUP instead of postmap",
            )
        return Renamed(
            f"texthash:{name}.txt",
            f"{shown}: make the file first: postmap -s {escape_text(bare)} > {escape_text(name)}.txt",
            todo=True,
        )
    return Renamed(
        "",
        f"{shown} is omitted, as tables of type {escape_text(kind)} are not read: keep what it answers in a cidr: or "
        "texthash: file and name that",
        todo=True,
    )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
