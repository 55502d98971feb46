"""Checks of [allowlist] and [denylist]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fastscreen.allowlist.lists import List, is_refreshed, is_there, lists_of
from fastscreen.allowlist.table import REJECT
from fastscreen.config import Config, ConfigError
from fastscreen.escaping import escape_text

Found = tuple[str, bool, str, bool]  # the fields of check.Check


def without_missing_tables(config: Config) -> Config:
    """The configuration without missing tables that the daemon creates at start. Raises ConfigError for other ones."""
    missing = [f"cidr:{each.path}" for each in lists_of(config) if _is_missing(each, config)]
    if missing and not is_refreshed(config):
        key, path = next((each.name, str(each.path)) for each in lists_of(config) if f"cidr:{each.path}" == missing[0])
        how = f"create it with `fastscreen allowlist refresh -c {config.source}`"
        raise ConfigError(f"{config.source}: {key}.path: {escape_text(path)} is missing; {how}")
    left = tuple(item for item in config.access.list if item not in missing)
    return msgspec.structs.replace(config, access=msgspec.structs.replace(config.access, list=left))


def checked_allowlists(config: Config, root: bool) -> Iterator[Found]:
    """The configuration without missing tables that the daemon creates at start. Raises ConfigError for others."""
    for each in lists_of(config):
        key, path, folder = f"{each.name}.path", escape_text(str(each.path)), escape_text(str(each.path.parent))
        if is_refreshed(config) and not _may_write(each.path.parent, root):
            yield key, False, f"{path}: cannot create files in {folder}, or the folder does not exist", False
        elif f"cidr:{each.path}" not in config.access.list:
            yield key, True, f'{path}: not used; access.list does not contain "cidr:{path}"', True
        elif each.result == REJECT and _denylist_is_first(config):
            yield (
                key,
                True,
                f"{path}: before the allowlist in access.list, so it may reject clients that are on the allowlist",
                True,
            )
        elif _is_missing(each, config):
            yield key, True, f"{path}: does not exist yet; fastscreen creates it at start", True
        else:
            yield key, True, path, False


def _denylist_is_first(config: Config) -> bool:
    """A denied domain controls its own SPF record, and could add the networks of an allowed provider."""
    order = [
        item for item in config.access.list if item in (f"cidr:{config.allowlist.path}", f"cidr:{config.denylist.path}")
    ]
    return len(order) == 2 and order[0] == f"cidr:{config.denylist.path}"


def _is_missing(each: List, config: Config) -> bool:
    return f"cidr:{each.path}" in config.access.list and not is_there(each.path)


def _may_write(folder: Path, root: bool) -> bool:
    """Whether this user can write to the folder, or create it."""
    nearest = folder
    while not is_there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    rights = os.X_OK if root and nearest != folder else os.W_OK | os.X_OK
    return nearest.is_dir() and os.access(nearest, rights, effective_ids=True)
