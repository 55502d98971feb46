"""Tables whose content stands in their name: `TYPE:{ {rule}, {rule} }`."""

from __future__ import annotations

from collections.abc import Iterator

from fastscreen.escaping import escape_text
from fastscreen.tables.table import TableError

_SEPARATORS = " \t\r\n,"
_SPACE = " \t\r\n"


def inside(spec: str, name: str) -> str:
    """What stands between the outer braces. Raises TableError."""
    end = _close(name, 0)
    if end < 0:
        raise TableError(f"{escape_text(spec)}: missing '}}'")
    if name[end + 1 :].strip(_SPACE):
        raise TableError(f"{escape_text(spec)}: syntax error after '}}'")
    return name[1:end]


def items(spec: str, content: str) -> Iterator[tuple[bool, str]]:
    """Each item between commas or white space: whether it stood in braces, and its text without them."""
    at = 0
    while True:
        while at < len(content) and content[at] in _SEPARATORS:
            at += 1
        if at == len(content):
            return
        if content[at] == "{":
            end = _close(content, at)
            if end < 0:
                raise TableError(f"{escape_text(spec)}: missing '}}'")
            if end + 1 < len(content) and content[end + 1] not in _SEPARATORS:
                raise TableError(f"{escape_text(spec)}: syntax error after '}}'")
            yield True, content[at + 1 : end].strip(_SPACE)
            at = end + 1
        else:
            start = at
            while at < len(content) and content[at] not in _SEPARATORS:
                at += 1
            yield False, content[start:at]


def rules(spec: str, name: str) -> str:
    """The rules of `{ {rule}, {rule} }` as the text of a file, one a line. Raises TableError."""
    lines = []
    for braced, text in items(spec, inside(spec, name)):
        if not braced:
            raise TableError(f"{escape_text(spec)}: no '{{' at start of text in {escape_text(text)}")
        lines.append(text)
    return "".join(f"{line}\n" for line in lines)


def _close(text: str, at: int) -> int:
    """Where the brace closes that opens at `at`; -1: nowhere."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return place
    return -1
