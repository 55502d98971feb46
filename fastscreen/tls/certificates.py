"""The files of `tls.certificates`: read while root may, kept in memory of the kernel that no other process is given.

The supervisor never has a private key in its own memory, which every worker inherits: the kernel copies the files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

MAX_SIZE = 1 << 20  # bytes of one file
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Stamp = tuple[int, int, int, int]
"""Identifies a version of a file: device, inode, time of modification in ns, size in bytes."""


class Certificates:
    """The files, as memory of the kernel. `close` lets go of it."""

    def __init__(self, paths: Sequence[str], descriptors: Sequence[int], stamps: Sequence[Stamp] = ()) -> None:
        """descriptors: of the files' copies, in the order of `paths`; they are closed with this. stamps: the files'."""
        self.paths = tuple(paths)
        self.descriptors = tuple(descriptors)
        self.stamps = tuple(stamps)

    def unchanged(self, paths: Sequence[str]) -> bool:
        """Whether these are the same files, and still what they were. False as well: it cannot be told."""
        try:
            return self.paths == tuple(paths) and self.stamps == tuple(_stamp(Path(path).stat()) for path in paths)
        except OSError:
            return False

    def contents(self) -> list[tuple[str, bytes]]:
        """Each file's path and content. For the processes that use the keys, and no others."""
        return [
            (path, os.pread(descriptor, MAX_SIZE, 0))
            for path, descriptor in zip(self.paths, self.descriptors, strict=True)
        ]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


def read(paths: Sequence[str], open_file: Callable[[str], int] | None = None) -> Certificates:
    """Copy the files. OSError (with the file's name): one cannot be read, or is not a file.

    open_file: returns a descriptor for reading, without waiting; by default with this process's own rights.
    """
    copies: list[tuple[int, Stamp]] = []
    try:
        for path in paths:
            copies.append(_copy(path, open_file or _open))
    except BaseException:
        for copy, _ in copies:
            os.close(copy)
        raise
    return Certificates(paths, [copy for copy, _ in copies], [stamp for _, stamp in copies])


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _open(path: str) -> int:
    # O_NONBLOCK: a FIFO must not hold up the supervisor.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _copy(path: str, open_file: Callable[[str], int]) -> tuple[int, Stamp]:
    try:
        file = open_file(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        if found.st_size > MAX_SIZE:
            raise OSError(errno.EFBIG, f"larger than {MAX_SIZE} bytes", path)
        memory = os.memfd_create("fastscreen certificates", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            at = 0
            while at < MAX_SIZE and (copied := os.sendfile(memory, file, at, MAX_SIZE - at)):
                at += copied
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(memory)
            raise
        return memory, _stamp(found)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(file)
