"""Tables of keys and values: texthash, inline and static (DATABASE_README)."""

from __future__ import annotations

import re

from fastscreen.escaping import escape_text, quoted
from fastscreen.tables import braces
from fastscreen.tables.lines import logical_lines, read_text
from fastscreen.tables.table import TableError

# A key ends at white space that is neither between double quotes nor behind a backslash; both stay in the key.
_ENTRY = re.compile(r'((?:\\.|"(?:\\.|[^"\\])*"|[^ \t\n\v\f\r"\\])+)[ \t\n\v\f\r]+(.+)', re.DOTALL)
_PAIR = re.compile(r"\s*([^\s=]*)\s*=\s*(.*?)\s*", re.DOTALL)


class TextHash:
    """texthash:FILE, the text form of a hash: file. Keys in any case; the first of two equal keys counts."""

    def __init__(self, spec: str, path: str) -> None:
        self.spec = spec
        self.warnings: list[str] = []
        self._values: dict[str, str] = {}
        where = escape_text(path)
        for number, line in logical_lines(read_text(spec, path), where, self.warnings):
            found = _ENTRY.fullmatch(line)
            if not found:
                self.warnings.append(
                    f"{where}, line {number}: expected format: key whitespace value -- ignoring this line"
                )
                continue
            key = fold(found[1])
            if key.endswith(":"):
                self.warnings.append(
                    f'{where}, line {number}: record is in "key: value" format; is this an alias file?'
                )
            if key in self._values:
                self.warnings.append(f"{where}, line {number}: duplicate entry: {quoted(key)}")
            else:
                self._values[key] = found[2]

    @property
    def results(self) -> list[str]:
        return list(dict.fromkeys(self._values.values()))

    def lookup(self, key: str) -> str | None:
        return self._values.get(fold(key))


class Inline:
    """inline:{ key=value, {key = value with spaces} }. Keys in any case; the last of two equal keys counts."""

    def __init__(self, spec: str, name: str) -> None:
        self.spec = spec
        self.warnings: list[str] = []
        self._values: dict[str, str] = {}
        if not name.startswith("{"):
            raise TableError(f'{escape_text(spec)}: bad syntax; expected "inline:{{name=value...}}"')
        for _, text in braces.items(spec, braces.inside(spec, name)):
            found = _PAIR.fullmatch(text)
            if not found or not found[1]:
                raise TableError(
                    f"{escape_text(spec)}: missing '=' after attribute name; expected \"inline:{{name=value...}}\""
                )
            self._values[fold(found[1])] = found[2]
        if not self._values:
            raise TableError(f'{escape_text(spec)}: bad syntax; expected "inline:{{name=value...}}"')

    @property
    def results(self) -> list[str]:
        return list(dict.fromkeys(self._values.values()))

    def lookup(self, key: str) -> str | None:
        return self._values.get(fold(key))


class Static:
    """static:VALUE or static:{VALUE}: every key has this value."""

    def __init__(self, spec: str, name: str) -> None:
        self.spec = spec
        self.warnings: list[str] = []
        self._value = braces.inside(spec, name).strip() if name.startswith("{") else name
        if not self._value:
            raise TableError(f'{escape_text(spec)}: no value; expected "static:VALUE"')

    @property
    def results(self) -> list[str]:
        return [self._value]

    def lookup(self, key: str) -> str | None:
        return self._value


def fold(key: str) -> str:
    """The key as it is stored and looked up."""
    return key.casefold()
