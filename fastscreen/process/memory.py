"""Memory of the daemon's processes: what is there before a fork is shared, as long as none of them writes to it."""

from __future__ import annotations

import ctypes
import gc


def freeze() -> None:
    """Before a fork: keep what is there now out of garbage collection, which writes to each object that it visits."""
    gc.freeze()


def clean_up_and_freeze() -> None:
    """The same once everything has been imported, with what that no longer needs given back to the system."""
    gc.collect()
    trim()
    gc.freeze()


def trim() -> None:
    """Give freed memory back to the system, where the C library can do that (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
