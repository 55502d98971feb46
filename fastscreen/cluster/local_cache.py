"""The cache's file and the memory of offenses as the cluster process reads and changes them: in a thread, which may
wait for a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from fastscreen.cache.interfaces import CacheAdmin, Entry, Network
from fastscreen.cache.stamps import Stamps
from fastscreen.escaping import one_line

SLICE = 1000  # records
SETTLED_SECONDS = 3.0  # a worker writes its records within a second or two: after that they are deleted again
RETRY_SECONDS = 5.0
MOST = 20_000  # networks that wait

Result = TypeVar("Result")


class Deleter(Protocol):
    """What changes a file; as in CacheAdmin."""

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool] | None = None) -> tuple[int, bool]:
        """Delete a network's records, but for those that stay; return how many, and whether there may be more."""

    def close(self) -> None:
        """Close what is open."""


class LocalDeletions:
    """Deletes from a file. admin: None: there is none. warn: logs one line. clock: s, monotonic."""

    def __init__(self, admin: Deleter | None, warn: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._admin = admin
        self._warn = warn
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "cluster cache")
        self._due: dict[Network, list[float]] = {}  # s, monotonic
        self._kept: dict[Network, Callable[[Stamps], bool]] = {}
        self._wanted = asyncio.Event()
        self._trouble = ""

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool]) -> None:
        """Delete a network's records soon, and once more when workers have written what they still had.

        is_kept: of a record, whether it stays; called in the thread.
        """
        if self._admin is not None and len(self._due) < MOST:
            now = self._clock()
            self._due[network] = [now, now + SETTLED_SECONDS]
            self._kept[network] = is_kept
            self._wanted.set()

    async def run(self) -> None:
        """Delete what is to be deleted, until it is cancelled."""
        while True:
            if self._due:
                await self._delete_due()
                next_at = min((times[0] for times in self._due.values()), default=0.0)
                timeout = max(0.0, next_at - self._clock()) if self._due else None
            else:
                timeout = None
            try:
                async with asyncio.timeout(timeout):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            self._wanted.clear()

    async def _delete_due(self) -> None:
        now = self._clock()
        for network in [network for network, times in self._due.items() if times[0] <= now]:
            try:
                await self._in_thread(partial(self._delete, network, self._kept[network]))
            except Exception as error:
                self._failed(network, one_line(error))
            else:
                self._trouble = ""
                times = self._due[network]
                times[:] = [time for time in times if time > now]
                if not times:
                    del self._due[network], self._kept[network]

    def _failed(self, network: Network, text: str) -> None:
        if text != self._trouble:
            self._trouble = text
            self._warn(f"cluster: {network}, which another host deleted, is not deleted here yet: {text}; retried")
        self._due[network] = [self._clock() + RETRY_SECONDS]

    def _delete(self, network: Network, is_kept: Callable[[Stamps], bool]) -> None:
        assert self._admin is not None
        while self._admin.delete(network, is_kept)[1]:
            pass

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread, without waiting for what it does."""
        if self._admin is not None:
            self._thread.submit(self._admin.close)
        self._thread.shutdown(wait=False, cancel_futures=False)


class LocalCache(LocalDeletions):
    """The cache's file. admin: None: caching is disabled."""

    def __init__(self, admin: CacheAdmin | None, warn: Callable[[str], object], clock: Callable[[], float]) -> None:
        super().__init__(admin, warn, clock)
        self._cache = admin

    async def read(self, after: bytes) -> tuple[list[Entry], bool]:
        """Records after this key, and whether there may be more. Exception: the cache cannot be used; one line."""
        cache = self._cache
        if cache is None:
            return [], False
        return await self._in_thread(lambda: cache.entries(None, after, SLICE))
