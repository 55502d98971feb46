"""Notices that table files have changed on disk, so that they are read again without a reload by hand.

It only calls stat(2), which never waits for a FIFO or a writer. A file that is still being written is left alone until
two looks in a row find it the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

LOOK_SECONDS = 2.0  # between two looks
RESTLESS_SECONDS = 30.0  # a file that is always found changed is read after all: it may be replaced every second
RETRY_SECONDS = 60.0  # after tables that could not be read: a file that one of them names may be what was mended

Version = tuple[int, int, int, int]
"""Inode, size, time of the last change of the content and of the inode (chmod) in ns."""


def version_of(status: os.stat_result) -> Version:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def look_at(path: str) -> Version | None:
    """None: the file does not exist, or this user cannot access it."""
    try:
        return version_of(Path(path).stat())
    except (OSError, ValueError):
        return None


class TableWatch:
    """One daemon's. due: when `look` wants to be called next (s, monotonic)."""

    def __init__(self, look_at: Callable[[str], Version | None] = look_at) -> None:
        self._look_at = look_at
        self._before: dict[str, Version | None] = {}
        """What the last look found of files that differ from what was read."""
        self._restless_since = math.inf
        """When the looks began to find something else each time."""
        self._refused: dict[str, Version | None] = {}
        """The files that differed when they could not be read."""
        self._retry_at = math.inf
        self.due = 0.0

    def look(self, now: float, files: Mapping[str, Version]) -> list[str]:
        """The files to be read again now. files: with their versions as they were read."""
        if now < self.due:
            return []
        self.due = now + LOOK_SECONDS
        differ = {path: found for path, version in files.items() if (found := self._look_at(path)) != version}
        settled = differ == self._before
        self._before = differ
        if settled:
            self._restless_since = math.inf
        else:
            self._restless_since = min(self._restless_since, now)
            if now < self._restless_since + RESTLESS_SECONDS:
                return []
        if differ == self._refused and now < self._retry_at:
            return []
        return sorted({**self._refused, **differ})

    def read(self) -> None:
        """They were read: all is new."""
        self._before = self._refused = {}
        self._restless_since = self._retry_at = math.inf

    def refused(self, now: float) -> None:
        """They could not be read: not again until one of them changes, or after a while."""
        self._refused = dict(self._before)
        self._restless_since = math.inf
        self._retry_at = now + RETRY_SECONDS
