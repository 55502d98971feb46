"""What an error of SQLite or of the file system means for the file that was written."""

from __future__ import annotations

import errno
import sqlite3
from enum import Enum, auto

from fastscreen.escaping import one_line, unexpected
from fastscreen.history.day import VersionError


class SuspendedError(Exception):
    """Nothing can be stored now; the text says why."""


class Failure(Enum):
    """DAMAGED: the file is set aside. SKIPPED: it stays as it is. LOCKED: another process holds it.

    SUSPENDED: no other file could be written either, as when the disk is full: all waits until it works again.
    """

    DAMAGED = auto()
    SKIPPED = auto()
    LOCKED = auto()
    SUSPENDED = auto()


_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_DISK = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_NOLFS,
)
_UNREADABLE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)


def failure_of(error: Exception) -> Failure:
    """What to do about an exception that opening a file or writing to it has raised."""
    if isinstance(error, VersionError):
        return Failure.SKIPPED
    if isinstance(error, OSError):
        return Failure.DAMAGED if error.errno == errno.EIO else Failure.SUSPENDED
    if not isinstance(error, sqlite3.DatabaseError):
        return Failure.SUSPENDED
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB)
    if code in _UNREADABLE:
        return Failure.DAMAGED
    if code & 0xFF in _LOCKED:
        return Failure.LOCKED
    return Failure.SUSPENDED if code & 0xFF in _DISK else Failure.DAMAGED


def is_of_file(error: Exception) -> bool:
    """Whether an error at opening is of that file only: another one in the folder may be usable."""
    if isinstance(error, OSError):
        return isinstance(error, PermissionError | IsADirectoryError)
    codes = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def described(error: Exception) -> str:
    """One line for the log."""
    if isinstance(error, OSError | sqlite3.DatabaseError | VersionError | SuspendedError):
        return one_line(error)
    return unexpected(error)
