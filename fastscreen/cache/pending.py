"""Records that are not in the cache's file yet. The loop's thread adds them; the writer's thread takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

MAX_PENDING = 100_000
"""Maximum number of records that are kept while the file cannot be written."""
DELETED = b"\xc0"
"""Stands for a record that the writer has to delete from the file."""


class PendingRecords:
    """By key. A look-up asks `unwritten`, then `being_written`, then the file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for one operation on a dict
        self.unwritten: dict[bytes, bytes] = {}
        self.being_written: dict[bytes, bytes] = {}
        """What the last turn has written. A batch that began before the commit cannot see it in the file."""

    def find(self, key: bytes) -> bytes | None:
        """A record, or DELETED."""
        return self.unwritten.get(key) or self.being_written.get(key)

    # ---- the loop's thread

    def add(self, key: bytes, record: bytes) -> None:
        """Have a record written. One of a further client is dropped when there are too many."""
        if len(self.unwritten) >= MAX_PENDING and key not in self.unwritten:
            return
        with self._lock:
            self.unwritten[key] = record

    def delete(self, keys: Iterable[bytes]) -> None:
        """Have records deleted from the file, too: the writer may be writing them just now."""
        with self._lock:
            self.unwritten.update(dict.fromkeys(keys, DELETED))

    def replace(self, records: dict[bytes, bytes]) -> None:
        """Have these written instead."""
        with self._lock:
            self.unwritten.update(records)

    # ---- the writer's thread

    def take(self) -> dict[bytes, bytes]:
        """What is to be written now."""
        with self._lock:
            taken = self.unwritten
            self.being_written = taken  # before the other is emptied: a look-up asks in the opposite order
            self.unwritten = {}
        return taken

    def put_back(self, records: dict[bytes, bytes]) -> None:
        """They could not be written."""
        with self._lock:
            self.unwritten = records | self.unwritten

    def write_again(self) -> None:
        """Another file comes next: what the last turn has written is perhaps not in it."""
        with self._lock:
            if len(self.being_written) + len(self.unwritten) <= MAX_PENDING:
                self.unwritten = self.being_written | self.unwritten

    def forget_written(self) -> None:
        """Somebody took the file away: what was in it is not wanted any more."""
        with self._lock:
            self.being_written = {}
