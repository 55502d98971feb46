"""What `fastscreen check` says of [allowlist] and [denylist]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fastscreen.allowlist.lists import List, is_refreshed, is_there, lists_of
from fastscreen.allowlist.table import REJECT
from fastscreen.config import Config, ConfigError
from fastscreen.escaping import escape_text

Found = tuple[str, bool, str, bool]  # the key, whether it is well, what was found, whether it is told also when well


def without_tables_to_come(config: Config) -> Config:
    """The configuration without the tables that the daemon makes at its start. ConfigError: one that nobody makes."""
    missing = [f"cidr:{each.path}" for each in lists_of(config) if _is_missing(each, config)]
    if missing and not is_refreshed(config):
        key, path = next((each.name, str(each.path)) for each in lists_of(config) if f"cidr:{each.path}" == missing[0])
        how = f"`fastscreen allowlist refresh -c {config.source}` makes it"
        raise ConfigError(f"{config.source}: {key}.path: {escape_text(path)} is not there yet; {how}")
    left = tuple(item for item in config.access.list if item not in missing)
    return msgspec.structs.replace(config, access=msgspec.structs.replace(config.access, list=left))


def checked_allowlists(config: Config, root: bool) -> Iterator[Found]:
    """As the user that refreshes them. root: the daemon starts as root, and makes their folders for the user."""
    for each in lists_of(config):
        key, path, folder = f"{each.name}.path", escape_text(str(each.path)), escape_text(str(each.path.parent))
        if is_refreshed(config) and not _may_write(each.path.parent, root):
            yield key, False, f"{path}: no right to make files in {folder}, or there is no such folder", False
        elif f"cidr:{each.path}" not in config.access.list:
            yield key, True, f'{path}: access.list does not name it, as "cidr:{path}"', True
        elif each.result == REJECT and _is_above_the_other(config):
            yield key, True, f"{path}: above the allowlist in access.list: it may turn away whom that lets in", True
        elif _is_missing(each, config):
            yield key, True, f"{path}: not there yet: fastscreen makes it at its start", True
        else:
            yield key, True, path, False


def _is_above_the_other(config: Config) -> bool:
    """Whoever is denied writes the record himself, and may name the networks of a provider that is allowed."""
    order = [
        item for item in config.access.list if item in (f"cidr:{config.allowlist.path}", f"cidr:{config.denylist.path}")
    ]
    return len(order) == 2 and order[0] == f"cidr:{config.denylist.path}"


def _is_missing(each: List, config: Config) -> bool:
    return f"cidr:{each.path}" in config.access.list and not is_there(each.path)


def _may_write(folder: Path, root: bool) -> bool:
    """In the folder, or where it will be made."""
    nearest = folder
    while not is_there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    rights = os.X_OK if root and nearest != folder else os.W_OK | os.X_OK
    return nearest.is_dir() and os.access(nearest, rights, effective_ids=True)
