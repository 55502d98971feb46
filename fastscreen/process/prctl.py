"""prctl(2): what a process may change about itself. Each function raises OSError when the kernel refuses."""

from __future__ import annotations

import ctypes
import os

MAX_NAME = 15  # bytes; the kernel truncates what is longer

_SET_PDEATHSIG = 1
_GET_DUMPABLE = 3
_SET_DUMPABLE = 4
_SET_KEEPCAPS = 8
_SET_NAME = 15
_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def set_name(name: str) -> None:
    """Set the name that `ps` and `top` show."""
    _call(_SET_NAME, name.encode())


def die_with_parent(number: int) -> None:
    """Have the kernel send this signal when the parent ends. The caller checks that it has not ended before."""
    _call(_SET_PDEATHSIG, number)


def forbid_new_privileges() -> None:
    """No program that is executed from now on gains privileges, as by a set-user-ID bit."""
    _call(_SET_NO_NEW_PRIVS, 1)


def keep_capabilities() -> None:
    """Keep the permitted capabilities when the user ID changes."""
    _call(_SET_KEEPCAPS, 1)


def dumpable() -> int:
    """1 if other processes of the same user may trace this one; 0 or 2 if not."""
    return _call(_GET_DUMPABLE, 0)


def forbid_tracing() -> None:
    """No other process of the same user may read this one's memory."""
    _call(_SET_DUMPABLE, 0)


def _call(option: int, argument: int | bytes) -> int:
    result = int(_libc.prctl(option, argument, 0, 0, 0))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
    return result
