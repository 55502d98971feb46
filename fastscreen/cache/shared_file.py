"""The cache's open file, as both threads of a process see it: the loop's reads, the writer's opens and replaces it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import lmdb

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.file_check import Inode, OpenFile


class SharedFile:
    """file, environment: None while the file cannot be used; then every client is new (reference 7.6)."""

    def __init__(self, path: Path, mark: memoryview | None) -> None:
        """mark: shared memory of `use_mark.SIZE` bytes; None: nobody looks."""
        self.path = path
        self.mark = mark if mark is not None else memoryview(bytearray(use_mark.SIZE))
        self.file: OpenFile | None = None
        self.environment: Any = None
        self.was_open = False
        """Whether the file could be opened once: from then on passes are kept while it cannot be used."""
        self.reading = threading.Lock()
        """Held while a batch reads, and while the file is replaced or its map changes."""
        self.damage: tuple[Inode, str] | None = None
        """What is known to be wrong with a file."""
        self.failure: str | None = None
        """An error in a look-up that is not due to the file's content."""
        self.was_resized = False
        """Another process resized the file: the map has to follow as soon as the writer is not in a transaction."""

    def note(self, error: lmdb.Error) -> None:
        """Leave an error in a look-up to the writer thread."""
        if lmdb_file.is_damage(error) and self.file is not None:
            self.damage = (self.file.inode, lmdb_file.reason(error))
        else:
            self.failure = lmdb_file.reason(error)

    def use(self, file: OpenFile) -> None:
        """From now on this file is read and written."""
        with self.reading:
            self.file, self.environment = file, file.environment
        self.was_open = True

    def close(self) -> None:
        """Close the file, when no batch reads."""
        with self.reading:
            file, self.file, self.environment = self.file, None, None
            if file is not None:
                file.close()
