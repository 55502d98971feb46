"""What `fastscreen check` says of [allowlist] and [denylist]."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fastscreen.allowlist.lists import is_refreshed, is_there, lists_of
from fastscreen.config import Config, ConfigError
from fastscreen.config.escape import escaped

Found = tuple[str, bool, str, bool]  # the key, whether it is well, what was found, whether it is told also when well


def check_tables_are_there(config: Config) -> None:
    """ConfigError: access.list names a list that was never written; without it nothing else can be tried."""
    for each in lists_of(config):
        if f"cidr:{each.path}" in config.access.list and not is_there(each.path):
            how = f"`fastscreen allowlist refresh -c {config.source}` makes it"
            raise ConfigError(f"{config.source}: {each.name}.path: {escaped(str(each.path))} is not there yet; {how}")


def checked_allowlists(config: Config) -> Iterator[Found]:
    """As the user that refreshes them."""
    for each in lists_of(config):
        key, path, folder = f"{each.name}.path", escaped(str(each.path)), escaped(str(each.path.parent))
        if is_refreshed(config) and not os.access(each.path.parent, os.W_OK | os.X_OK, effective_ids=True):
            yield key, False, f"{path}: no right to make files in {folder}, or there is no such folder", False
        elif f"cidr:{each.path}" not in config.access.list:
            yield key, True, f'{path}: access.list does not name it, as "cidr:{path}"', True
        else:
            yield key, True, path, False
