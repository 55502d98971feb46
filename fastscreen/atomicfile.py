"""Replace a file so that every reader gets all of the old one or all of the new one, also after a power failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

MODE = 0o644  # Postfix and the operator's tools read these files as other users


def replace_file(
    path: Path, data: bytes, *, mode: int = MODE, owner: tuple[int, int] | None = None, overwrite: bool = True
) -> None:
    """Write a new file next to the path and rename it. OSError with the path: it cannot be written, nothing changed.

    owner: user and group IDs; ignored where this process may not give files away. overwrite: if False, raise
    FileExistsError when there is a file at the path, even one that appeared meanwhile.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        new = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if owner is not None:
                    with contextlib.suppress(PermissionError):
                        os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            if overwrite:
                new.replace(path)
            else:
                path.hardlink_to(new)  # unlike rename(2), link(2) never replaces a file
                new.unlink()
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def default_mode() -> int:
    """The mode that `open` would give a new file."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder. BlockingIOError: another process has locked it. OSError: the folder cannot be opened."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
