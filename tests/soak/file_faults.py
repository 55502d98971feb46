"""Faults of files: cache, log, configuration, tables, certificates, and the disks that they are on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

from soak import settings
from soak.faults import fault
from soak.smtp import now
from soak.world import World

_CACHE = "the cache's file is damaged, replaced, foreign or cannot be opened"
_CACHE_DISK = "the cache's disk is full"
_LOG = "the log cannot be written"
_CONFIGURATION = "a new configuration is wrong"
_TABLES = "a table is edited or cannot be read"
_CERTIFICATE = "a renewed certificate cannot be read or used"


def _cache(world: World) -> Path:
    return world.folder / "cache/cache"


@fault(_CACHE, 1, 3)
async def cache_deleted(world: World) -> AsyncIterator[str]:
    """Half of the time the lock file, too."""
    _cache(world).unlink(missing_ok=True)
    if lock := world.chance.random() < 0.5:
        _cache(world).with_name("cache-lock").unlink(missing_ok=True)
    yield "deleted" + (", its lock file, too" if lock else "")


@fault(_CACHE, 1, 3)
async def cache_lock_lost(world: World) -> AsyncIterator[str]:
    """The lock file alone."""
    _cache(world).with_name("cache-lock").unlink(missing_ok=True)
    yield "deleted"


@fault(_CACHE, 1, 3)
async def cache_truncated(world: World) -> AsyncIterator[str]:
    """A worker may die, because the pages of its map are gone."""
    size = _cache(world).stat().st_size
    to = world.chance.choice((0, 4096, 8192, size // 2))
    os.truncate(_cache(world), to)
    yield f"{size} to {to} bytes"


@fault(_CACHE, 1, 3)
async def cache_overwritten(world: World) -> AsyncIterator[str]:
    """Meta pages, or all that is behind them."""
    size = _cache(world).stat().st_size
    first = world.chance.choice((0, 0, 4096, 8192))
    count = 8192 if world.chance.random() < 0.5 else max(4096, size - first)
    with _cache(world).open("r+b") as file:
        file.seek(first)
        file.write(world.chance.randbytes(count))
    yield f"{count} bytes from {first} on, of {size}"


@fault(_CACHE, 3, 8)
async def cache_directory(world: World) -> AsyncIterator[str]:
    """A directory in its place."""
    _cache(world).unlink(missing_ok=True)
    _cache(world).mkdir()
    yield "a directory"
    with contextlib.suppress(OSError):
        _cache(world).rmdir()


@fault(_CACHE, 5, 10)
async def cache_locked(world: World) -> AsyncIterator[str]:
    """Another process holds the lock on the folder while the workers start again."""
    folder = os.open(_cache(world).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for pid in world.processes("worker"):
            world.kill(pid)
        await world.greeted_within(15.0)
        yield "folder locked, workers killed"
    finally:
        os.close(folder)


@fault(_CACHE_DISK, 4, 10, name="cache_disk_full", which="cache")
@fault(_LOG, 4, 10, spares_known=True, name="log_disk_full", which="log")
async def _disk_full(world: World, which: str) -> AsyncIterator[str]:
    fillers = [world.folder / which / f"filler{size}" for size in (65536, 16)]
    for filler, size in zip(fillers, (65536, 16), strict=True):
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(size))
    yield "no byte left"
    for filler in fillers:
        filler.unlink(missing_ok=True)


def _set_log_aside(world: World) -> Path:
    """Keep the log for the check at the end; for fastscreen it is gone."""
    path = world.folder / "log/log"
    with contextlib.suppress(FileNotFoundError):
        path.rename(world.folder / f"log/log.{now():.3f}")
    return path


def _new_log(world: World) -> None:
    path = _set_log_aside(world)
    path.touch()
    os.chown(path, *world.owner)


@fault(_LOG, 1, 2, spares_known=True)
async def log_renamed(world: World) -> AsyncIterator[str]:
    """As logrotate does, five times."""
    for _ in range(5):
        _new_log(world)
        world.reload()
        await asyncio.sleep(0.4)
    yield "5 times"


@fault(_LOG, 2, 5, spares_known=True)
async def log_fifo(world: World) -> AsyncIterator[str]:
    """A FIFO that nobody reads, and a reload."""
    path = _set_log_aside(world)
    os.mkfifo(path)
    os.chown(path, *world.owner)
    world.reload()
    yield "no reader"
    path.unlink()
    _new_log(world)
    world.reload()


@fault(_CONFIGURATION, 1, 3, spares_known=True)
async def configuration_wrong(world: World) -> AsyncIterator[str]:
    """Wrong values, half a file, garbage, unknown names."""
    text = settings.text(world.options)
    cut = text[: text.index('wait = "2s"') + 6]  # a file that just ends earlier would be right, with other settings
    for wrong in (text.replace('wait = "2s"', 'wait = "soon"'), cut, "\0garbage", text + "[nonsense]\nx = 1\n"):
        world.configure(text=wrong)
        world.reload()
        await asyncio.sleep(0.5)
    yield "4 reloads"
    world.configure()
    world.reload()


@fault(_TABLES, 1, 3, spares_known=True)
async def table_broken(world: World) -> AsyncIterator[str]:
    """Edited, then broken, then missing."""
    path = world.folder / "access.cidr"
    for text in ("198.51.100.0/25 permit\n", "198.51.100.0/99 permit\n", None):
        path.unlink()
        if text is not None:
            path.write_text(text)
        world.reload()
        await asyncio.sleep(0.5)
    yield "edited, wrong, missing"
    path.write_text("198.51.100.0/24 permit\n")
    world.reload()


@fault(_CERTIFICATE, 1, 3, spares_known=True)
async def certificate_broken(world: World) -> AsyncIterator[str]:
    """Half a file; then a new one."""
    path = world.folder / "tls.pem"
    path.write_bytes(path.read_bytes()[:300])
    world.reload()
    yield "half a file"
    world.make_certificate()
    world.reload()
