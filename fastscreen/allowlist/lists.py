"""The lists of a configuration, and a refresh of one: looked up, written, and what has changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec import Struct, structs

from fastscreen.allowlist import state, table
from fastscreen.allowlist.flatten import Questions
from fastscreen.allowlist.refresh import Change, refresh
from fastscreen.allowlist.state import State
from fastscreen.allowlist.table import PERMIT, REJECT
from fastscreen.atomicfile import replace_file, sole_writer
from fastscreen.config.model import Config
from fastscreen.config.providers import Source, chosen


class List(Struct, frozen=True):
    """name: as the configuration has it. result: what its table says of each network. configuration: its file."""

    name: str
    path: Path
    result: str
    sources: Sequence[Source]
    configuration: str = ""


class Renewal(Struct, frozen=True):
    """What a refresh did to a list. warning: why the last state was not used. written: the rules changed, or would."""

    of: List
    state: State
    changes: list[Change]
    warning: str
    written: bool


def lists_of(config: Config) -> list[List]:
    """The lists that contain providers, or that did at the last refresh and have to be emptied.

    A list is skipped if its file belongs to another configuration.
    """
    configuration = str(Path(config.source).resolve())
    allow, deny = config.allowlist, config.denylist
    both = (
        ("allowlist", allow.path, PERMIT, chosen(allow.groups, allow.providers, allow.domains, allow.exclude)),
        ("denylist", deny.path, REJECT, chosen((), (), deny.domains)),
    )
    return [
        List(name, Path(path), result, sources, configuration)
        for name, path, result, sources in both
        if path and (sources or state.is_of(Path(path), configuration))
    ]


def is_there(path: Path) -> bool:
    """Whether the file exists. A file in a folder that this user cannot access counts as missing."""
    try:
        return path.exists()
    except OSError:
        return False


def is_refreshed(config: Config) -> bool:
    """Whether a running daemon has something to refresh."""
    return config.allowlist.interval > 0 and bool(lists_of(config))


def versions(config: Config) -> dict[Path, tuple[int, int, int]]:
    """Values by which each list's table differs from the one that replaces it. Missing tables are omitted."""
    found = {}
    for each in lists_of(config):
        with contextlib.suppress(OSError):
            status = each.path.stat()
            found[each.path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def begin(config: Config) -> None:
    """Create the missing tables of a daemon that refreshes them, because the access list opens them.

    They contain what is known already, which is nothing at the first start. A failure is reported when the access list
    opens the table.
    """
    if not is_refreshed(config):
        return
    for each in lists_of(config):
        if not is_there(each.path):
            with contextlib.suppress(OSError):
                known, _ = state.load(each.path)
                text = table.rendered(each.sources, known, each.result, time.time())
                replace_file(each.path, text.encode())


async def renew(each: List, ask: Questions, now: float, accept: Collection[str] = (), *, write: bool = True) -> Renewal:
    """Refresh a list. write: False = only tell what would change.

    now: s since 1970. OSError: a file cannot be read or written; BlockingIOError: another refresh is under way.
    """
    with sole_writer(each.path.parent) if write else contextlib.nullcontext():
        before, warning = state.load(each.path)
        after, changes = await refresh(each.sources, before, ask, now, accept, denied=each.result == REJECT)
        after = structs.replace(after, configuration=each.configuration)
        text = table.rendered(each.sources, after, each.result, now)
        if write:
            # In this order: a last good result is never lost, and the next refresh writes what this one did not.
            state.save(each.path, after)
            written = table.write(each.path, text)
        else:
            written = not table.has(each.path, text)
        return Renewal(each, after, changes, warning, written)
