"""Workers that crash in the cache, or in the memory of offenses: a file in which two have crashed is moved aside, since
it may be damaged."""

from __future__ import annotations

import functools
import socket
import time
from pathlib import Path

from fastscreen.cache import lmdb_file
from fastscreen.cache.file_check import Inode
from fastscreen.cache.lmdb_file import Format
from fastscreen.daemon import spawn
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.tasks import Steps, TaskQueue
from fastscreen.escaping import one_line
from fastscreen.process import ipc
from fastscreen.process.ipc import Failed, Ready

WINDOW_SECONDS = 600.0  # two crashes in this time
MOVE_SECONDS = 30.0  # for moving the file aside: other processes may have locked its folder


class CacheCrashes:
    """Counts the crashes by file."""

    def __init__(self, resources: Resources, tasks: TaskQueue) -> None:
        self._resources = resources
        self._tasks = tasks
        self._times: dict[Inode, list[float]] = {}

    def add(self, file: Inode | None, kind: Format = lmdb_file.CACHE) -> None:
        """A worker crashed while it used this file; None: while it used none."""
        resources, now = self._resources, time.monotonic()
        config = resources.config
        path = config.cache.path if kind is lmdb_file.CACHE else config.score.memory
        if file is None or not path:
            return
        recent = {each: [at for at in times if at > now - WINDOW_SECONDS] for each, times in self._times.items()}
        recent.setdefault(file, []).append(now)
        self._times = {each: times for each, times in recent.items() if times}
        if len(self._times[file]) >= 2:
            del self._times[file]
            self._tasks.add(kind.name, functools.partial(move_aside, resources, Path(path), file, kind))


def move_aside(resources: Resources, path: Path, file: Inode, kind: Format = lmdb_file.CACHE) -> Steps[None]:
    """Let a child do it, which may have to wait for other processes."""
    report = yield from spawn.run_in_child(
        resources, functools.partial(_move, resources, path, file, kind), MOVE_SECONDS
    )
    match report:
        case Failed(why):
            resources.warn(f"{kind.name} lmdb:{path}: {why}")
        case Ready():
            pass
        case _:
            resources.warn(f"{kind.name} lmdb:{path}: cannot be moved aside: no answer within {MOVE_SECONDS:g} s")


def _move(resources: Resources, path: Path, file: Inode, kind: Format, channel: socket.socket) -> int:
    """In the child."""
    log = resources.target.for_child().log
    try:
        aside = lmdb_file.move_aside(path, file)
    except OSError as error:
        ipc.send(channel, Failed(f"cannot be moved aside: {one_line(error)}"[:1000]))
        return 1
    if aside is not None:
        then = "clients are tested again" if kind is lmdb_file.CACHE else "nothing is known of any client"
        log.warning(
            f"{kind.name} lmdb:{path}: two workers crashed while they used it: moved to {aside}, a new file is created "
            f"and {then}"
        )
        log.flush()
    ipc.send(channel, Ready())
    return 0
