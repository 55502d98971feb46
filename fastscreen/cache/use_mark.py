"""Shared memory that says which cache file a worker is using right now, so that its death there can be held against
that file, and never against the sound one that replaced it."""

from __future__ import annotations

import struct

from fastscreen.cache.file_check import Inode

SIZE = 24
"""Bytes for each worker: one for the event loop's thread, one for the writer's (not 0: in the file), device, inode."""

LOOP = 0
WRITER = 1
_INODE = struct.Struct("=QQ")
_AT = 8


def clear(mark: memoryview) -> None:
    """For a worker that starts."""
    mark[:] = bytes(SIZE)


def name_file(mark: memoryview, inode: Inode) -> None:
    """From now on the flags are about this file."""
    _INODE.pack_into(mark, _AT, inode.device, inode.number)


def file_in_use(mark: memoryview) -> Inode | None:
    """The file that the worker was using when it ended, or None when it was not in the cache.

    `Inode(0, 0)`: it was about to open a file that no process has named yet.
    """
    if not mark[LOOP] and not mark[WRITER]:
        return None
    return Inode(*_INODE.unpack_from(mark, _AT))
