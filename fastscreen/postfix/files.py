"""main.cf and master.cf as text: logical lines, parameters, services and their `-o` options."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from fastscreen.escaping import escape_text
from fastscreen.screening.macros import MacroError, closing

_SPACE = " \t\r\f\v"
_FIELDS = 8  # of a service, before its arguments
_NAME = re.compile(r"[^\s=]+")  # any characters: `policyd-spf_time_limit` contains the name of a service


class ReadError(Exception):
    """What could not be read, where and why, as one printable line."""


class Line(Struct, frozen=True):
    """A logical line. number: of its first physical line, from 1. physical: the lines of the file, with comments."""

    number: int
    text: str
    physical: tuple[str, ...]


class Service(Struct, frozen=True):
    """A service in master.cf. options: `-o`, the last of equal names. line: the logical line that defines it."""

    name: str
    kind: str
    chroot: str
    command: str
    options: dict[str, str]
    line: Line

    @property
    def full_name(self) -> str:
        """The name as `postconf -M` expects it."""
        return f"{self.name}/{self.kind}"


def read(path: Path) -> str:
    """A file's text. Raises ReadError."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise ReadError(f"{escape_text(str(path), 500)}: cannot be read: {error.strerror}") from None


def logical_lines(text: str) -> list[Line]:
    """A line that starts with white space continues the previous one; comments and empty lines may be in between. For
    Postfix, such a line ends at a NUL."""
    found: list[tuple[int, list[str], list[str]]] = []  # number, parts of the text, physical lines
    between: list[str] = []
    for number, physical in enumerate(text.split("\n"), 1):
        bare = physical.lstrip(_SPACE)
        if not bare or bare.startswith("#"):
            between.append(physical)
            continue
        if physical[0] in _SPACE and found:
            _, parts, lines = found[-1]
            parts.append(physical)
            lines += [*between, physical]
        else:
            found.append((number, [physical], [physical]))
        between = []
    return [Line(number, "".join(parts).partition("\0")[0], tuple(lines)) for number, parts, lines in found]


def parameters(text: str, where: str) -> dict[str, str]:
    """The parameters of main.cf by name, unexpanded; the last of equal names. Raises ReadError."""
    found: dict[str, str] = {}
    for line in logical_lines(text):
        name, equals, value = line.text.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise ReadError(f"{where}: line {line.number}: {escape_text(line.text)}: not of the form NAME = VALUE")
        found[name.strip()] = value.strip()
    return found


def services(text: str, where: str) -> list[Service]:
    """The services of master.cf; of a service that is defined twice, the last, as in Postfix. Raises ReadError."""
    found: dict[tuple[str, str], Service] = {}
    for line in logical_lines(text):
        fields = line.text.split(None, _FIELDS)
        if len(fields) < _FIELDS:
            raise ReadError(f"{where}: line {line.number}: {escape_text(line.text)}: fewer than {_FIELDS} fields")
        name, kind, _, _, chroot, _, _, command, *rest = fields
        try:
            options = _options(rest[0] if rest else "")
        except MacroError as error:
            raise ReadError(f"{where}: line {line.number}: {error}") from None
        found[name, kind] = Service(name, kind, chroot, command, options, line)
    return list(found.values())


def _options(text: str) -> dict[str, str]:
    """The `-o` of a service's arguments: `-o name=value`, `-oname=value`, `-o {name = value}`."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "{":
            end = closing(text, at)
            words.append(text[at + 1 : end].strip())
            at = end + 1
        else:
            start = at
            while at < len(text) and not text[at].isspace():
                at += 1
            words.append(text[start:at])
    options: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "-o" and at < len(words):
            word = words[at]
            at += 1
        elif word.startswith("-o"):
            word = word[2:]
        else:
            continue
        name, _, value = word.partition("=")
        options[name.strip()] = value.strip()
    return options


def commented(line: Line) -> list[str]:
    """The physical lines of a service, each one commented out."""
    return [each if not each.strip() or each.lstrip().startswith("#") else f"#{each}" for each in line.physical]
