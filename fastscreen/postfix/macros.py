"""`$name` in Postfix's configuration (postconf(5), "Parameter values"), expanded as Postfix does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

_NAME = re.compile(r"[A-Za-z0-9_]+")
_COMPARED = re.compile(r"\s*(<=|>=|==|!=|<|>)(level)?\s*")
_CLOSING = {"{": "}", "(": ")"}
_Ordered = TypeVar("_Ordered", str, int, tuple[int, int, int])
_DEEPEST = 50  # a parameter that names itself comes here
_LONGEST = 100_000  # characters; each of two names in a value may stand for two more


class MacroError(ValueError):
    """A value that cannot be expanded; one line."""


def expand(text: str, raw: Mapping[str, str], depth: int = 0) -> str:
    """A value with each name replaced by its own value, expanded in turn; an unknown name is empty.

    raw: all parameters as they are written. Knows `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`,
    `${name?{text}:{text}}`, `${{text} OPERATOR {text} ? {text} : {text}}` and `$$`.
    """
    if depth > _DEEPEST:
        raise MacroError("a parameter's value leads back to itself")
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
            end = closing(text, at)
            out.append(_braced(text[at + 1 : end].lstrip(), raw, depth + 1))
            at = end + 1
        elif found := _NAME.match(text, at):
            out.append(expand(raw.get(found[0], ""), raw, depth + 1))
            at = found.end()
        else:
            raise MacroError("a $ without a name behind it")
        if sum(map(len, out)) > _LONGEST:
            raise MacroError(f"longer than {_LONGEST} characters")
    return "".join([*out, text[at:]])


def _braced(text: str, raw: Mapping[str, str], depth: int) -> str:
    """What stands between the braces of `${...}`."""
    if text.startswith("{"):
        given, rest = _comparison(text, raw, depth)
    else:
        found = _NAME.match(text)
        if found is None:
            raise MacroError("${} without a name in it")
        given, rest = bool(raw.get(found[0])), text[found.end() :].lstrip()
        if not rest:
            return expand(raw.get(found[0], ""), raw, depth)
    if rest[:1] not in ("?", ":"):
        raise MacroError("neither ? nor : behind the name in ${}")
    wanted = rest[0] == "?"
    chosen, other = rest[1:].lstrip(), ""
    if chosen.startswith("{"):
        end = closing(chosen, 0)
        chosen, behind = chosen[1:end], chosen[end + 1 :].lstrip()  # white space in braces is the value's
        if behind.startswith(":") and wanted:
            other = behind[1:].lstrip()
            if other.startswith("{"):
                other = other[1 : closing(other, 0)]
        elif behind:
            raise MacroError("text behind } in ${}")
    return expand(chosen if given == wanted else other, raw, depth)


def _comparison(text: str, raw: Mapping[str, str], depth: int) -> tuple[bool, str]:
    """`{a} OPERATOR {b}`: whether it holds, and what stands behind it."""
    end = closing(text, 0)
    left = expand(text[1:end], raw, depth)
    found = _COMPARED.match(text, end + 1)
    if found is None or text[found.end() : found.end() + 1] != "{":
        raise MacroError("no comparison in ${{}}")
    last = closing(text, found.end())
    right = expand(text[found.end() + 1 : last], raw, depth)
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
        raise MacroError(f"{text[:40]!r} is no compatibility level")
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
    raise MacroError(f"no {_CLOSING[opening]} for {opening}")


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
