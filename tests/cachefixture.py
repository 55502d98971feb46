"""Caches for unit tests, with a simulated clock, disk and conditions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.stamps import DISABLED, Stamps
from fastscreen.core import TESTS
from fastscreen.process.conditions import SIZE as CONDITIONS_SIZE
from fastscreen.process.conditions import Conditions

NOW = 1_800_000_000
DAY = 86400
WEEK = 7 * DAY
CLIENT = bytes([192, 0, 2, 1])
CLIENT6 = bytes.fromhex("20010db8000000000000000000000001")


class Fixture:
    """Caches on one path, the lines they said, and the time they believe in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.warnings: list[str] = []
        self.lines: list[str] = []
        self.conditions = Conditions(memoryview(bytearray(CONDITIONS_SIZE)), lambda: self.now)
        self.free = 50  # percent of the file system, as `keep_free` sees it
        self._made: list[LmdbCache] = []

    def disk(self, path: Path) -> os.statvfs_result:
        """A file system of 100 blocks."""
        assert path == self.path.parent
        return os.statvfs_result((4096, 4096, 100, self.free, self.free, 0, 0, 0, 0, 255))

    def cache(
        self,
        *,
        enabled: tuple[bool, ...] = (True, False, False, False, False),
        cleanup_interval: int = 0,
        retention: int = WEEK,
        max_size: int = 1 << 30,
        keep_free: int = 0,
        first: bool = True,
    ) -> LmdbCache:
        def run(callback: Callable[[], None]) -> None:
            callback()

        cache = LmdbCache(
            self.path,
            warn=self.warnings.append,
            log=self.lines.append,
            wake=run,
            enabled=enabled,
            cleanup_interval=cleanup_interval,
            retention=retention,
            clock=lambda: self.now,
            max_size=max_size,
            keep_free=keep_free,
            first=first,
            conditions=self.conditions,
            disk=self.disk,
        )
        self._made.append(cache)
        cache.open()
        return cache

    def close(self) -> None:
        for cache in self._made:
            cache.close()

    def lookup(self, key: bytes) -> Stamps | None:
        """What a new process finds."""
        cache = self.cache()
        found = cache.lookup(key)
        cache.close()
        return found

    def write(self, records: Mapping[bytes, Stamps]) -> None:
        cache = self.cache()
        for key, stamps in records.items():
            cache.store(key, stamps)
        cache.close()

    def aside(self) -> list[Path]:
        return sorted(path for path in self.path.parent.glob("*.damaged-*") if not path.name.endswith("-lock"))


def stamps(*values: int) -> Stamps:
    """A stamp for each test, as it is read where some are missing."""
    return (*values, *(DISABLED,) * (len(TESTS) - len(values)))
