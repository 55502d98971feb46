"""The imported configuration as a commented fastscreen.toml."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import stat
import tempfile
import textwrap
from itertools import groupby
from pathlib import Path

from fastscreen.atomicfile import sync_folder
from fastscreen.escaping import escape_text
from fastscreen.postfix.settings import Parameter
from fastscreen.postfix.translate import Entry, Toml, Translated

MODE = 0o640
_WIDTH = 118
_CONTINUE = (
    "If an smtpd service accepts the PROXY protocol on this port, a new client that passes the deep tests continues in "
    "the same session instead of getting a 450 reply (docs/continue.md):"
)


def toml(translated: Translated, origin: str, deep: bool) -> str:
    """The whole file. origin: what it was made from. deep: whether deep tests are enabled."""
    lines = _comment(f"Written by fastscreen import-postfix from {origin}.")
    lines += _comment("A key with # in front has fastscreen's default. fastscreen check -c FILE tests this file.")
    for table, entries in groupby(translated.entries, lambda entry: entry.key.table):
        if table:
            lines += ["", f"[{table}]"]
        for entry in entries:
            lines += ["", *_entry(entry, deep)]
    if translated.without:
        lines += ["", "# Set in Postfix, without a counterpart in fastscreen:"]
        for source, why in translated.without:
            lines += _comment(f"{shown(source)}: {why}")
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, deep: bool) -> list[str]:
    key = entry.key
    lines: list[str] = []
    for source in entry.sources:
        lines += _comment(shown(source))
    if not entry.sources and entry.value is not None:
        lines += _comment(f"{key.parameters[0] if key.parameters else key.key}: Postfix's default")
    elif not entry.sources:
        named = f"{key.parameters[0]}: not set" if key.parameters else "not in postscreen"
        lines += _comment(named)
    for note in entry.notes:
        lines += _comment(f"{'TO DO: ' if note.todo else ''}{note.text}")
    if key.key == "handoff.continue_to" and deep:
        return [*lines, *_comment(_CONTINUE), '#continue_to = "proxy:127.0.0.1:10025"']
    lines.append(f"#{key.name} = {key.default}" if entry.value is None else f"{key.name} = {value(entry.value)}")
    return lines


def shown(source: Parameter) -> str:
    """`postscreen_greet_wait = 3s (main.cf)`."""
    return f"{source.name} = {escape_text(' '.join(source.text.split()), 300)} ({source.where})"


def _comment(text: str) -> list[str]:
    printable = escape_text(text, 2000)
    wrapped = textwrap.wrap(printable, _WIDTH - 2, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"# {wrapped[0]}", *(f"#   {line}" for line in wrapped[1:])]


def value(item: Toml | object) -> str:
    """A value as TOML; a long list has one item per line."""
    match item:
        case bool():
            return "true" if item else "false"
        case int():
            return str(item)
        case str():
            return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            items = [value(each) for each in item]
            line = f"[{', '.join(items)}]"
            return line if len(line) < _WIDTH - 30 else "".join(["[\n", *(f"  {each},\n" for each in items), "]"])
        case dict():
            return "{ " + ", ".join(f"{name} = {value(each)}" for name, each in item.items()) + " }"
    raise TypeError(type(item))


def write(path: Path, text: str, *, force: bool, user: str = "") -> None:
    """Write the file atomically, and keep it private: a domain in it may contain the key of a DNS list.

    A file that is replaced keeps its owner and group. A new file belongs to root and to the group of the daemon, which
    reads it at SIGHUP. force: replace an existing file. user: the daemon's user; empty for the current one.
    Raises FileExistsError, OSError.
    """
    before = path.lstat() if os.path.lexists(path) else None
    if before is not None and not force:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if before is not None and not stat.S_ISREG(before.st_mode):
        what = "a symbolic link; name the file itself" if stat.S_ISLNK(before.st_mode) else "not a regular file"
        raise OSError(errno.EINVAL, what, str(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if before is not None:
                with contextlib.suppress(PermissionError):  # only root may change the owner
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            elif user and os.geteuid() == 0:
                os.fchown(file.fileno(), 0, pwd.getpwnam(user).pw_gid)
            os.fchmod(file.fileno(), MODE & (before.st_mode if before is not None else MODE))
            os.fsync(file.fileno())
        if force:
            Path(name).replace(path)
        else:
            os.link(name, path)  # unlike rename, never replaces a file
            Path(name).unlink()
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
