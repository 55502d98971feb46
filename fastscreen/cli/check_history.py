"""Checks of [history]: whether the daemon's user can write to the folder, which files are not read, and the space."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from fastscreen.config import Config
from fastscreen.escaping import escape_text
from fastscreen.format import plural, size
from fastscreen.history import day, folder, writer
from fastscreen.process.file_type import file_type

Found = tuple[str, bool, str] | tuple[str, bool, str, bool]
"""The fields of check.Check."""


def checked_history(config: Config, root: bool, user: str) -> Iterator[Found]:
    """As the daemon's user. root: whether `run` starts as root, and makes the folder. user: who this is."""
    if not config.history.path:
        return
    path = Path(config.history.path)
    name = escape_text(str(path))
    try:
        nearest = path
        while not file_type(nearest) and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            yield "history.path", False, f"{escape_text(str(nearest))} is not a directory"
        elif nearest != path and root:
            yield "history.path", True, f"{name} will be created"
        elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            yield "history.path", False, f"{name}: {user} may not write to {escape_text(str(nearest))}"
        elif nearest != path:
            yield "history.path", True, f"{name} will be created"
        else:
            yield from _checked_files(path)
        yield from _checked_space(config, nearest)
    except OSError as error:
        yield "history.path", False, f"{name}: {user}: {error.strerror}"


def _checked_files(path: Path) -> Iterator[Found]:
    if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        detail = f"{escape_text(str(path))}: others than its owner may use it; expected mode 0700"
        yield "history.path", True, detail, True
    found = folder.entries(path)
    for entry in found:
        name = escape_text(str(entry.path))
        if entry.is_damaged:
            yield "history.path", True, f"{name}: was damaged and set aside; its sessions are not shown", True
            continue
        try:
            day.check_version(entry.path)
        except day.VersionError as error:
            yield "history.path", True, f"{name}: {error}; its sessions are not shown", True
        except (OSError, sqlite3.DatabaseError) as error:
            yield "history.path", False, f"{name}: {escape_text(str(error), 300)}"
    total = sum(entry.size for entry in found)
    yield "history.path", True, f"{escape_text(str(path))}: {plural(len(found), 'file')}, {size(total)}"


def _checked_space(config: Config, nearest: Path) -> Iterator[Found]:
    """Whether the files may become as large as they are allowed to."""
    path = Path(config.history.path)
    used = sum(entry.size for entry in folder.entries(path)) if path.is_dir() and os.access(path, os.R_OK) else 0
    disk = os.statvfs(nearest)
    left = writer.left_free(disk.f_blocks * disk.f_frsize)
    free = max(0, disk.f_bavail * disk.f_frsize - left)
    wanted = max(0, config.history.max_size - used)
    if free < wanted:
        detail = f"the files may become {size(wanted)} larger, but only {size(free)} of the file system may be used"
        yield "history.max_size", False, f"{detail}, because {size(left)} is left to others; older files are deleted"
    else:
        yield "history.max_size", True, f"{size(free)} of the file system may be used; {size(left)} is left to others"
