"""The imported configuration as a commented fastscreen.toml."""

from __future__ import annotations

import errno
import json
import os
import pwd
import stat
import textwrap
from itertools import groupby
from pathlib import Path

from fastscreen.atomicfile import replace_file
from fastscreen.escaping import escape_text
from fastscreen.postfix.settings import Parameter
from fastscreen.postfix.translate import Entry, Toml, Translated

MODE = 0o640
_WIDTH = 118
_CONTINUE = (
    "With an smtpd at a port that reads the PROXY protocol, a new client that ends the deep tests well goes on in the "
    "same session, without a 450 (docs/continue.md):"
)


def toml(translated: Translated, origin: str, deep: bool) -> str:
    """The whole file. origin: what it was made from; deep: whether deep tests are on."""
    lines = _comment(f"Made by fastscreen import-postfix from {origin}.")
    lines += _comment("A key with # before it has fastscreen's default, shown; fastscreen check -c FILE tries it all.")
    for table, entries in groupby(translated.entries, lambda entry: entry.key.table):
        if table:
            lines += ["", f"[{table}]"]
        for entry in entries:
            lines += ["", *_entry(entry, deep)]
    if translated.no_counterpart:
        lines += ["", "# Set in Postfix, without a counterpart here:"]
        for source, why in translated.no_counterpart:
            lines += _comment(f"{shown(source)}: {why}")
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, deep: bool) -> list[str]:
    key = entry.key
    lines: list[str] = []
    for source in entry.sources:
        lines += _comment(shown(source))
    if not entry.sources and entry.value is not None:
        lines += _comment(f"{key.parameters[0] if key.parameters else key.key}: Postfix's own value")
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
    """A value as TOML has it; a list of many items takes a line each."""
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
    """Put a file in place at once or not at all: a domain in it may hold the key of a DNS list.

    It belongs to whom the one before it belonged to; a new one is root's, and the daemon's group may read it, as at
    SIGHUP. force: replace a file that is there. user: the daemon's, empty: this one.
    FileExistsError: it is there; OSError.
    """
    before = path.lstat() if os.path.lexists(path) else None
    if before is not None and not force:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if before is not None and not stat.S_ISREG(before.st_mode):
        what = "a symbolic link; name the file itself" if stat.S_ISLNK(before.st_mode) else "not a regular file"
        raise OSError(errno.EINVAL, what, str(path))
    owner = None
    if before is not None:
        owner = before.st_uid, before.st_gid
    elif user and os.geteuid() == 0:
        owner = 0, pwd.getpwnam(user).pw_gid
    mode = MODE & (before.st_mode if before is not None else MODE)
    replace_file(path, text.encode(), mode=mode, owner=owner, overwrite=force)
