"""The memory as a worker reads it, for clients that it tests: in a transaction per batch of events, like the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.cache.file_check import DamagedError, LockError, OpenFile, ReplacedError
from fastscreen.offenses.size import map_size


class OffenseReader:
    """One worker's. All methods are called in the event loop's thread, and none waits for the writer.

    mark: of `use_mark.SIZE` bytes: which file this process reads right now. Without a usable file nothing is known of
    any client; `check` looks for one every second. What is wrong with a file is the writer's to say.
    """

    def __init__(self, path: Path, mark: memoryview | None = None) -> None:
        self._path = path
        self._mark = mark if mark is not None else memoryview(bytearray(use_mark.SIZE))
        self._file: OpenFile | None = None
        self._failed = False
        self._get: Callable[[bytes], bytes | None] | None = None
        self._transaction: Any = None

    @property
    def is_open(self) -> bool:
        """Whether there is a file that can be used."""
        return self._file is not None

    # ---- the core calls these two

    def record(self, key: bytes) -> bytes | None:
        """A record, or None. The first look-up of a batch opens its read transaction."""
        get = self._get
        if get is None and (get := self._begin_batch()) is None:
            return None
        mark = self._mark
        mark[0] = 1  # use_mark.LOOP
        try:
            value = get(key)
            mark[0] = 0
        except lmdb.Error:
            mark[0] = 0
            self._failed = True
            return None
        return value

    def end_batch(self) -> None:
        """End the read transaction, if a look-up opened one."""
        if self._get is not None:
            self._get = None
            transaction, self._transaction = self._transaction, None
            transaction.abort()

    def _begin_batch(self) -> Callable[[bytes], bytes | None] | None:
        if self._file is None or self._failed:
            return None
        self._mark[0] = 1
        try:
            self._transaction = self._file.environment.begin()
            self._get = self._transaction.get
        except lmdb.Error:  # another process has made the file larger, or something is wrong with it
            self._failed = True
        self._mark[0] = 0
        return self._get

    # ---- the worker calls these

    def check(self) -> None:
        """Open the file that is at the path now. Called every second."""
        if self._file is not None:
            try:
                self._file.check()
            except (ReplacedError, LockError, DamagedError):
                self._failed = True
            except OSError:
                pass  # the folder cannot be searched; the open file stays in use
            if self._failed:
                self.close()
        if self._file is None:
            self._open()

    def _open(self) -> None:
        self._mark[0] = 1
        try:
            self._file = lmdb_file.open_existing(
                self._path, map_size(0), lmdb_file.MEMORY, lambda inode: use_mark.name_file(self._mark, inode)
            )
            self._failed = False
        except (FileNotFoundError, lmdb_file.UnusableError, OSError):
            pass  # the writer creates it, moves it aside, or says what is wrong
        self._mark[0] = 0

    def close(self) -> None:
        """The process ends, or the memory is disabled."""
        self.end_batch()
        file, self._file = self._file, None
        if file is not None:
            file.close()
