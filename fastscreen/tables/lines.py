"""Logical lines of a table file, as cidr_table(5), pcre_table(5) and postmap(1) have them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from fastscreen.escaping import escape_text, quoted
from fastscreen.tables.file_watch import Version, version_of
from fastscreen.tables.table import TableError

_SPACE = " \t\n\v\f\r"

_recorded: ContextVar[dict[str, Version] | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def recorded_files() -> Iterator[dict[str, Version]]:
    """Collect every regular file that is read meanwhile, with its version as it was read (see `file_watch`)."""
    files: dict[str, Version] = {}
    before = _recorded.set(files)
    try:
        yield files
    finally:
        _recorded.reset(before)


def read_text(spec: str, path: str) -> str:
    """The file's text; bytes that are not UTF-8 become surrogate escapes. Raises TableError."""
    return read_bytes(spec, path).decode("utf-8", "surrogateescape")


def read_bytes(spec: str, path: str) -> bytes:
    """The file's content. Raises TableError."""
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                note_read(path, version_of(status))
            return file.read()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a file name"
        raise TableError(f"{escape_text(spec)}: cannot be read: {why}") from None


def note_read(path: str, version: Version) -> None:
    """A regular file is read by other means."""
    files = _recorded.get()
    if files is not None:
        files[path] = version


def logical_lines(text: str, where: str, warnings: list[str]) -> Iterator[tuple[int, str]]:
    """Number (of the first line, from 1) and text of each logical line, without white space at its end.

    A line that starts with white space continues the line before; empty lines and comments are skipped, even in the
    middle of a logical line.
    """
    first = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.lstrip(_SPACE)
        if not bare or bare.startswith("#"):
            continue
        if line[0] in _SPACE:
            if parts:
                parts.append(line)
            else:
                warnings.append(f"{where}: logical line must not start with whitespace: {quoted(line)}")
            continue
        if parts:
            yield first, "".join(parts).rstrip(_SPACE)
        first, parts = number, [line]
    if parts:
        yield first, "".join(parts).rstrip(_SPACE)
