"""What a path leads to. Path.exists() and its relatives say "no" since Python 3.14 if this user may not look."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def file_type(path: Path, *, follow_symlinks: bool = True) -> int:
    """Return stat.S_IFREG, S_IFDIR, ..., or 0 if there is no such file. OSError: this user may not look."""
    try:
        return stat.S_IFMT(path.stat(follow_symlinks=follow_symlinks).st_mode)
    except OSError as error:
        if error.errno in _MISSING:
            return 0
        raise
