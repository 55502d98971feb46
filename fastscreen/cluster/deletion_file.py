"""Deletions that the server does not have yet, in a small file next to the cache's: a restart does not lose them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
import time as clock
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from fastscreen.atomicfile import replace_file, sync_folder
from fastscreen.cache.interfaces import Network
from fastscreen.cluster.records import SKEW, TIME_MAX

MOST = 10_000
"""Deletions in a file; then the oldest ones are dropped."""
SIZE_MAX = 1 << 20  # bytes of the file; a deletion takes up to 80
_MODE = 0o600
_VERSION = 1
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class DamagedError(Exception):
    """The file is not one of these; one line. It has been renamed."""


class _Deletion(Struct):
    network: str
    time: int


class _File(Struct):
    version: int
    deletions: list[_Deletion]


Deletion = tuple[Network, int]
"""A network, and when its passes were deleted (s since 1970, by the server's clock)."""


class DeletionFile:
    """The file. Other processes of this host change it, too, after a restart: each change reads it again.

    It is changed in a thread, which may wait for a disk. `read`, `add` and `remove` raise OSError.
    """

    def __init__(self, cache: Path) -> None:
        """cache: path of the cache's file."""
        self.path = cache.with_name(f"{cache.name}.deletions")
        self._thread = ThreadPoolExecutor(1, "cluster deletions")

    def read(self) -> dict[Network, int]:
        """What is in the file, the oldest first. DamagedError."""
        try:
            content = self._content()
        except FileNotFoundError:
            return {}
        try:
            if content is None:
                raise ValueError(f"not a file of at most {SIZE_MAX} bytes")
            return _parse(content)
        except (ValueError, msgspec.MsgspecError) as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self.path.replace(aside)
            sync_folder(self.path.parent)
            raise DamagedError(f"{self.path} is damaged, and now named {aside.name}: {error}") from None

    async def add(self, deletion: Deletion) -> None:
        """Add a deletion; it is on the disk afterwards. DamagedError: the same, but what was there is lost."""
        await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._add, *deletion))

    async def remove(self, deletions: Iterable[Deletion]) -> None:
        """Remove what the server has now, but not what has been added since. DamagedError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._remove, list(deletions))

    def close(self) -> None:
        """End the thread, without waiting for what it does."""
        self._thread.shutdown(wait=False)

    def _add(self, network: Network, time: int) -> None:
        damage: DamagedError | None = None
        found: dict[Network, int] = {}
        try:
            found = self.read()
        except DamagedError as error:
            damage = error
        time = max(time, found.pop(network, 0))
        found[network] = time
        for oldest in list(found)[: max(0, len(found) - MOST)]:
            del found[oldest]
        self._write(found)
        if damage is not None:
            raise damage

    def _remove(self, deletions: Iterable[Deletion]) -> None:
        found = self.read()
        left = dict(found)
        latest = clock.time() + SKEW  # one that is later has been sent as one of the present
        for network, time in deletions:
            if network in left and (left[network] <= time or left[network] > latest):
                del left[network]
        if len(left) < len(found):
            self._write(left)

    def _content(self) -> bytes | None:
        """None: it cannot be such a file."""
        try:
            descriptor = os.open(self.path, _READ)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(SIZE_MAX + 1)
        return content if len(content) <= SIZE_MAX else None

    def _write(self, deletions: dict[Network, int]) -> None:
        if not deletions:
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)
            return
        entries = [_Deletion(str(network), time) for network, time in deletions.items()]
        content = msgspec.json.encode(_File(_VERSION, entries))
        replace_file(self.path, content + b"\n", mode=_MODE)


def _parse(content: bytes) -> dict[Network, int]:
    """ValueError, MsgspecError: it is something else."""
    file = msgspec.json.decode(content, type=_File)
    if file.version != _VERSION:
        raise ValueError(f"version {file.version}; expected {_VERSION}")
    if len(file.deletions) > MOST:
        raise ValueError(f"{len(file.deletions)} deletions; expected at most {MOST}")
    found: dict[Network, int] = {}
    for each in file.deletions:
        if not 0 < each.time <= TIME_MAX:
            raise ValueError(f"{each.time} is not a time")
        found[ipaddress.ip_network(each.network)] = each.time
    return found
