"""`$name` in a text, as Postfix expands it in its configuration (postconf(5), "Parameter values") and in footers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol, TypeVar

from fastscreen.escaping import quoted

_NAME = re.compile(r"[A-Za-z0-9_]+")
_COMPARED = re.compile(r"\s*(<=|>=|==|!=|<|>)(level)?\s*")
_CLOSING = {"{": "}", "(": ")"}
_Ordered = TypeVar("_Ordered", str, int, tuple[int, int, int])
_DEEPEST = 50  # a parameter that names itself comes here
_LONGEST = 100_000  # characters; each of two names in a value may stand for two more
_MAX_NAMES = 10_000  # names in a value and in the values of those: the same, where the last ones are empty


class MacroError(ValueError):
    """A text that cannot be expanded; one printable line."""


class Names(Protocol):
    """What names stand for. depth: how deep in other names and braces this one is."""

    def given(self, name: str) -> bool: ...
    def value(self, name: str, depth: int) -> str: ...


class Parameters:
    """Names of one value of main.cf, each with a value that is expanded in turn; an unknown one is empty.

    raw: all parameters as they are written. unknown: names that are none of them.
    """

    def __init__(self, raw: Mapping[str, str]) -> None:
        self._raw = raw
        self._left = _MAX_NAMES
        self.unknown: list[str] = []

    def given(self, name: str) -> bool:
        return bool(self._raw.get(name))

    def value(self, name: str, depth: int) -> str:
        self._left -= 1
        if self._left < 0:
            raise MacroError(f"more than {_MAX_NAMES} names in it")
        if name not in self._raw:
            self.unknown.append(name)
        return expand(self._raw.get(name, ""), self, depth)


def expand(text: str, names: Names, depth: int = 0) -> str:
    """A text with each name replaced by what it stands for. Raises MacroError.

    Knows `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`, `${name?{text}:{text}}`,
    `${{text} OPERATOR {text} ? {text} : {text}}` and `$$`.
    """
    if depth > _DEEPEST:
        raise MacroError("nested too deep: a value leads back to itself, or braces are in braces")
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        at = dollar + 1
        opening = text[at : at + 1]
        if opening == "$":
            out.append("$")
            at += 1
        elif opening in _CLOSING:
            end = _end(text, at)
            out.append(_braced(text[at + 1 : end].lstrip(), names, depth + 1))
            at = end + 1
        elif found := _NAME.match(text, at):
            out.append(names.value(found[0], depth + 1))
            at = found.end()
        else:
            raise MacroError(f"empty macro name: {quoted(text)}")
        if sum(map(len, out)) > _LONGEST:
            raise MacroError(f"longer than {_LONGEST} characters")
    return "".join([*out, text[at:]])


def _end(text: str, at: int) -> int:
    """Where the name in braces ends, or in Postfix's words that it does not."""
    try:
        return closing(text, at)
    except MacroError:
        raise MacroError(f"truncated macro reference: {quoted(text)}") from None


def _braced(text: str, names: Names, depth: int) -> str:
    """What stands between the braces of `${...}`."""
    if text.startswith("{"):
        given, rest = _comparison(text, names, depth)
    else:
        found = _NAME.match(text)
        if found is None:
            raise MacroError(f"empty macro name: {quoted(text)}")
        rest = text[found.end() :].lstrip()
        if not rest:
            return names.value(found[0], depth)
        given = names.given(found[0])
    if rest[:1] not in ("?", ":"):
        raise MacroError(f"bad macro name: {quoted(text)}")
    chosen, behind = _payload(rest[1:])
    other = ""
    if behind.startswith(":") and rest[0] == "?":
        other, behind = _payload(behind[1:])
    if behind:
        raise MacroError(f"bad text after }}: {quoted(text)}")
    return expand(chosen if given == (rest[0] == "?") else other, names, depth)


def _payload(text: str) -> tuple[str, str]:
    """`{text}`, without the white space around the braces, and what follows; or all of it, as it is."""
    bare = text.lstrip()
    if not bare.startswith("{"):
        return text, ""
    end = closing(bare, 0)
    return bare[1:end], bare[end + 1 :].lstrip()


def _comparison(text: str, names: Names, depth: int) -> tuple[bool, str]:
    """`{a} OPERATOR {b}`: whether it holds, and what stands behind it."""
    end = closing(text, 0)
    left = expand(text[1:end], names, depth)
    found = _COMPARED.match(text, end + 1)
    if found is None or text[found.end() : found.end() + 1] != "{":
        raise MacroError(f"no comparison: {quoted(text)}")
    last = closing(text, found.end())
    right = expand(text[found.end() + 1 : last], names, depth)
    return _holds(left, found[1], right, found[2] is not None), text[last + 1 :].lstrip()


def _holds(left: str, operator: str, right: str, level: bool) -> bool:
    """As levels (`3.6`), as numbers where both are, else as texts."""
    if level:
        order = _order(_level(left), _level(right))
    elif left.isdecimal() and right.isdecimal():
        order = _order(int(left), int(right))
    else:
        order = _order(left, right)
    return {
        "==": order == 0,
        "!=": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }[operator]


def _order(one: _Ordered, two: _Ordered) -> int:
    """-1, 0 or 1."""
    return (one > two) - (one < two)


def _level(text: str) -> tuple[int, int, int]:
    """`compatibility_level`: up to three numbers."""
    parts = text.strip().split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() for part in parts):
        raise MacroError(f"{quoted(text, 40)} is not a compatibility level")
    one, two, three = ([int(part) for part in parts] + [0, 0])[:3]
    return one, two, three


def closing(text: str, at: int) -> int:
    """Where the brace or parenthesis at `at` closes."""
    opening = text[at]
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] == opening) - (text[place] == _CLOSING[opening])
        if depth == 0:
            return place
    raise MacroError(f"no {_CLOSING[opening]} for {opening}: {quoted(text)}")


def words(text: str) -> list[str]:
    """A list of a parameter: items between commas and white space; what is in braces is one item."""
    found: list[str] = []
    item = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == "{":
            end = closing(text, at)
            item += text[at : end + 1]
            at = end
        elif char in ", \t\r\n":
            found.append(item)
            item = ""
        else:
            item += char
        at += 1
    return [item for item in [*found, item] if item]
