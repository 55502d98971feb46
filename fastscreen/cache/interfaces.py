"""What a cache of passes offers: to the core and the workers, and to commands. `lmdb_cache` and the control server's
`cache_store` implement it; another backend would implement the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from fastscreen.cache.stamps import Stamps

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Entry = tuple[bytes, Stamps]
"""A record's key (`cache.keys`) and stamps."""


class StampCache(Protocol):
    """What a worker needs. All calls come from the event loop's thread, and none waits for a disk or a network. A
    problem is a warning and a condition; until it is over every client is new.
    """

    # The core calls these four.

    def record(self, key: bytes) -> bytes | None:
        """A client's record, as it was kept; None: the client is new."""

    def lookup(self, key: bytes) -> Stamps | None:
        """The same as stamps, whatever is in the record."""

    def keep(self, key: bytes, record: bytes) -> None:
        """Remember a client's record. Look-ups of this process see it at once."""

    def end_batch(self) -> None:
        """A batch of events is over: release what look-ups hold."""

    # The worker calls the others.

    def open(self) -> None:
        """Called once, after fork."""

    def start(self) -> None:
        """Begin to write."""

    def write_through(self) -> None:
        """A restart begins: for a minute, other processes have to see each record at once."""

    def close(self) -> None:
        """Write what is pending, and end."""

    def configure(
        self,
        enabled: tuple[bool, ...],
        cleanup_interval: int,
        retention: int,
        max_size: int | None = None,
        keep_free: int | None = None,
    ) -> None:
        """Take over the settings of a reload."""

    def pending(self, key: bytes) -> Stamps | None:
        """Stamps that `CacheAdmin` perhaps does not see yet."""

    def forget(self, first: bytes, last: bytes) -> int:
        """`CacheAdmin.delete` deletes the records of these addresses: pending ones must not come back. How many."""

    def replace(self, records: Iterable[Entry]) -> int:
        """`CacheAdmin.put` has stored these: pending ones must not undo that. Return how many were pending."""


class CacheAdmin(Protocol):
    """What the control server, and so the commands, need. All calls come from one thread and take a bounded time.

    Each raises an exception whose text is one line for the operator when the cache cannot be used.
    """

    def get(self, key: bytes) -> Stamps | None:
        """A record, or None."""

    def entries(self, network: Network | None, after: bytes, limit: int) -> tuple[list[Entry], bool]:
        """Records after the key `after`, at most `limit`, and whether there may be more. network: only of these."""

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool] | None = None) -> tuple[int, bool]:
        """Delete a network's records, but for those that stay; return how many, and whether there may be more."""

    def put(self, entries: Iterable[Entry]) -> None:
        """Store these."""

    def stats(self, enabled: tuple[int, ...], now: float) -> Any:
        """How large the cache is, and when records expire. enabled: the tests that are on, by index."""

    def close(self) -> None:
        """Close what is open."""
