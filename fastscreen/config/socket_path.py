"""control.path of a configuration with errors: commands for a running daemon must work when its file does not.

The daemon goes on with the settings it has. What an operator does then (look, explain, switch the bypass on) needs the
path of the socket and nothing else.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path

SIZE_MAX = 1 << 20  # bytes that are read of a file

_TABLE = re.compile(r"\s*\[\s*(.*?)\s*\]\s*(?:#.*)?")
_PATH = re.compile(r"""\s*(?P<key>control\s*\.\s*path|path)\s*=\s*(?:"(?P<double>[^"\\]*)"|'(?P<single>[^']*)')""")
_INLINE = re.compile(r"""\s*control\s*=\s*\{(?:[^}]*,)?\s*path\s*=\s*(?:"(?P<double>[^"\\]*)"|'(?P<single>[^']*)')""")


def lenient_path(file: Path) -> str | None:
    """control.path, as far as the file can be understood; None: it does not say, or cannot be read."""
    text = _content(file)
    if text is None:
        return None
    try:
        control = tomllib.loads(text).get("control", {})
    except (tomllib.TOMLDecodeError, RecursionError):
        return _usable(_scanned(text))
    found = control.get("path") if isinstance(control, dict) else None
    return _usable(found) if isinstance(found, str) else None


def _content(file: Path) -> str | None:
    """A regular file's text. A FIFO or a device is not waited for."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as opened:
            return opened.read(SIZE_MAX).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _scanned(text: str) -> str | None:
    """Line by line, whatever stands in the others; the first one counts."""
    table = ""
    for line in text.splitlines():
        if header := _TABLE.fullmatch(line):
            table = header[1].strip("\"' ")
            continue
        found = _PATH.match(line)
        if found is not None and (found["key"] == "path") == (table == "control") and table in ("", "control"):
            return _value(found)
        if table == "" and (found := _INLINE.match(line)):
            return _value(found)
    return None


def _value(found: re.Match[str]) -> str:
    return found["double"] if found["double"] is not None else found["single"]


def _usable(path: str | None) -> str | None:
    """An empty path is valid: it disables the control socket."""
    return path if path is not None and "\0" not in path and (path == "" or path.startswith("/")) else None
