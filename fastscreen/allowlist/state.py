"""The last good result of each provider, in a file next to the table, from one refresh to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fastscreen.allowlist import networks
from fastscreen.atomicfile import replace_file
from fastscreen.escaping import escape_text

VERSION = 1
Moment = Annotated[float, Meta(ge=0, le=1e11)]
_MAX_SIZE = 64 << 20  # bytes


class Entry(Struct, frozen=True):
    """One provider. Times are s since 1970.

    networks: the last good result, aggregated. good: when it was looked up; 0 if never.
    tried: time of the last look-up. problem: why this look-up failed; empty if it did not.
    omitted: mechanisms that cannot be evaluated in advance. refused: networks that are not accepted, and why.
    """

    group: str
    domains: tuple[str, ...]
    networks: tuple[str, ...] = ()
    good: Moment = 0.0
    tried: Moment = 0.0
    problem: str = ""
    omitted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class State(Struct, frozen=True):
    """configuration: the file with the list. refreshed: time of the last refresh, s since 1970. providers: by name."""

    version: int = VERSION
    configuration: str = ""
    refreshed: Moment = 0.0
    providers: dict[str, Entry] = {}


def path_of(table: Path) -> Path:
    """Where the state of a table is."""
    return table.with_name(f"{table.name}.state")


def load(table: Path) -> tuple[State, str]:
    """The state, and a warning if the file exists but is not used. OSError: the file cannot be read."""
    path = path_of(table)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE)
    except FileNotFoundError:
        return State(), ""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            return (
                State(),
                f"{escape_text(str(path))}: version {version} is not read by this version; starting without it",
            )
        state = msgspec.json.decode(data, type=State)
        for entry in state.providers.values():
            networks.parsed(entry.networks)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return State(), f"{escape_text(str(path))}: damaged; starting without it"
    return state, ""


def is_of(table: Path, configuration: str) -> bool:
    """Whether there is a state, and of this configuration's list."""
    path = path_of(table)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_SIZE), type=_Owned).configuration == configuration
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def save(table: Path, state: State) -> None:
    """OSError: it cannot be written; the one before is whole."""
    replace_file(path_of(table), msgspec.json.format(msgspec.json.encode(state), indent=1))


class _Version(Struct, frozen=True):
    version: int


class _Owned(Struct, frozen=True):
    configuration: str = ""
