"""Tables are read again when their files change, as after `postmap` or an edit, and when a list refresh has ended."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from fastscreen.allowlist import lists
from fastscreen.config import ConfigError
from fastscreen.daemon.resources import Resources, warnings_of
from fastscreen.daemon.tasks import Steps
from fastscreen.daemon.worker_settings import send_to_workers, time_limit, try_in_child
from fastscreen.escaping import escape_text, one_line
from fastscreen.process import ipc
from fastscreen.process.conditions import Kind
from fastscreen.screening import policy
from fastscreen.tables.file_watch import TableWatch

MAX_NAMED = 5  # changed files that a log line names


def changed_tables(resources: Resources, watch: TableWatch, now: float) -> list[str]:
    """The table files that have changed since they were read, and no longer change. now: s, monotonic."""
    files = resources.tables.files
    if resources.refresher.pid:  # its lists are read when it has ended
        files = {path: version for path, version in files.items() if Path(path) not in resources.list_versions}
    return watch.look(now, files)


def follow_tables(resources: Resources, watch: TableWatch, changed: Sequence[str]) -> Steps[None]:
    """Read the tables again, since these files have changed."""
    if (yield from read_tables_again(resources, changed)):
        watch.read()
    else:
        watch.refused(time.monotonic())


def read_tables_again(resources: Resources, changed: Sequence[str] = ()) -> Steps[bool]:
    """Read the tables of the current configuration, without reading the configuration file.

    changed: files that are known to have changed. False: the old tables stay, and condition TABLES says why.
    """
    count = len(resources.children)
    settings = resources.config
    memory = -1
    try:
        for path in map(Path, changed):
            if path.exists() and not path.is_file():
                raise ConfigError(f"{escape_text(str(path))}: not a regular file")  # a FIFO may never end
        yield from try_in_child(resources, settings.source, lambda: settings)
        with time_limit("a table"):
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings = warnings_of(tables, count)
        memory = ipc.settings_memory(settings, ())
    except Exception as error:  # whatever it is: the old ones stay
        text = f"tables not read again: {one_line(error)}; the previous ones stay in use"
        if text not in (one.text for one in resources.conditions.read()):  # it is tried again and again
            resources.warn(text)
        resources.conditions.begin(Kind.TABLES, text)
        return False
    try:
        resources.tables, resources.list_versions = tables, versions
        for warning in warnings:
            resources.target.log.warning(warning)
        yield from send_to_workers(resources, memory, {})
    finally:
        os.close(memory)
    resources.conditions.end(Kind.TABLES)
    names = ", ".join(escape_text(path) for path in changed[:MAX_NAMED]) + (", ..." if len(changed) > MAX_NAMED else "")
    resources.info(f"tables read again{': ' if names else ''}{names}")
    return True
