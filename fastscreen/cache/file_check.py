"""Looks at the cache's file from outside its memory map, where damage is an error and not a signal.

A process that has the file open keeps a descriptor of each of the two files (data and lock) next to LMDB's own. A check
costs a few microseconds and needs no transaction: are these still the files at the path, are the meta pages sound, does
the file hold as many pages as they promise, is the lock file one of LMDB's?
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any, NamedTuple

# LMDB 0.9 on a 64-bit machine (mdb.c: MDB_page, MDB_meta, MDB_txbody). Two meta pages begin the data file.
_META = struct.Struct("=16x I I Q Q I 44x 48x Q Q")  # magic, version, address, map size, page size, last page, ID
_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_LOCK_HEAD = struct.Struct("=I")
_IS_64_BIT = struct.calcsize("N") == 8
_PAGE_SIZES = frozenset(1 << bits for bits in range(8, 17))
_MAX_PAGES = 1 << 40
_NOT_META = "not an LMDB file, or its meta pages are overwritten"


class DamagedError(Exception):
    """The file is not a sound cache file of ours; the text says why."""


class ReplacedError(Exception):
    """Another file, or none, is at the path now; the text says which of the two files."""


class LockError(Exception):
    """The lock file is gone, replaced or overwritten: nothing keeps two writers apart any more."""


class Inode(NamedTuple):
    """Which file it is, whatever its name."""

    device: int
    number: int


def inode_of(found: os.stat_result) -> Inode:
    return Inode(found.st_dev, found.st_ino)


def lock_path(path: Path) -> Path:
    """LMDB's lock file."""
    return path.with_name(path.name + "-lock")


def check_data(descriptor: int) -> None:
    """Raise `DamagedError` unless the meta pages are sound and the file is as long as they say. OSError."""
    if not _IS_64_BIT:
        return
    size = os.fstat(descriptor).st_size
    first = os.pread(descriptor, _META.size, 0)
    if len(first) < _META.size:
        raise DamagedError(f"truncated to {size} bytes")
    page_size = _META.unpack(first)[4]
    if page_size not in _PAGE_SIZES:
        raise DamagedError(_NOT_META)
    newest = (-1, 0)
    for page in (first, os.pread(descriptor, _META.size, page_size)):
        if len(page) < _META.size:
            raise DamagedError(f"truncated to {size} bytes")
        magic, version, _, _, own_size, last, transaction = _META.unpack(page)
        if magic != _MAGIC or version != _DATA_VERSION or own_size != page_size or last >= _MAX_PAGES:
            raise DamagedError(_NOT_META)
        newest = max(newest, (transaction, last))
    # A new file (transaction 0) only has these two pages.
    needed = (newest[1] + 1) * page_size
    if newest[0] > 0 and size < needed:
        raise DamagedError(f"truncated to {size} of {needed} bytes")


class OpenFile:
    """An LMDB environment and the descriptors by which it is checked.

    POSIX locks are per process: closing any descriptor of the lock file drops LMDB's lock on it. So `lock` is closed
    after the environment, and never two of these may be open on one path in one process.
    """

    def __init__(self, path: Path, environment: Any, data: int, lock: int) -> None:
        self.path = path
        self.environment = environment
        self.inode = inode_of(os.fstat(data))
        self._data = data
        self._lock = lock
        self._lock_inode = inode_of(os.fstat(lock))

    def check(self) -> None:
        """Raise `ReplacedError`, `LockError`, `DamagedError`, or OSError when the path cannot be looked at."""
        if _inode_at(self.path) != self.inode:
            raise ReplacedError(f"another file is at {self.path}")
        check_data(self._data)
        if _inode_at(lock_path(self.path)) != self._lock_inode:
            raise LockError("its lock file was removed or replaced")
        if os.pread(self._lock, _LOCK_HEAD.size, 0) != _LOCK_HEAD.pack(_MAGIC):
            raise LockError("its lock file is damaged")

    @property
    def size(self) -> int:
        """Bytes in the file; it never shrinks."""
        return os.fstat(self._data).st_size

    def close(self) -> None:
        """Close it. No transaction may be open."""
        if self.environment is not None:
            self.environment.close()
            self.environment = None
            os.close(self._lock)
            os.close(self._data)


def identity(path: Path) -> tuple[object, ...]:
    """Changes when something else is at the path, or when rights or owner of it or of its folder change."""
    return _state(path.parent)[:-1], _state(path), _state(lock_path(path))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = os.lstat(path)
    except OSError as error:
        return (error.errno or 0, 0)
    return (*inode_of(found), found.st_mode, found.st_uid, found.st_gid, stat.S_ISREG(found.st_mode) and found.st_size)


def _inode_at(path: Path) -> Inode | None:
    try:
        return inode_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
