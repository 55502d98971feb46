"""Postfix's match lists: items and `/file` items of which the first that matches decides, and `!` makes it a no."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fastscreen.escaping import escape_text, quoted
from fastscreen.tables.lines import logical_lines, read_text
from fastscreen.tables.table import TableError

_DEPTH = 8


def expanded(
    items: Iterable[str], where: str, warnings: list[str], depth: int = 0, place: str = ""
) -> Iterator[tuple[bool, str, str]]:
    """Each pattern with whether it was negated, files replaced by the patterns in them. Raises TableError.

    The third is where a pattern stands, `FILE, line N`; empty for one of the items themselves.
    """
    for item in items:
        pattern = item.strip()
        negated = False
        while pattern.startswith("!"):
            negated = not negated
            pattern = pattern[1:].lstrip()
        if not pattern.startswith("/"):
            yield negated, pattern, place
            continue
        if depth == _DEPTH:
            raise TableError(f"{escape_text(where)}: {escape_text(pattern)}: files nested more than {_DEPTH} deep")
        for number, line in logical_lines(read_text(pattern, pattern), escape_text(pattern), warnings):
            inner = [word for word in re.split(r"[\s,]+", line) if word]
            end = next((at for at, word in enumerate(inner) if word.startswith("#")), len(inner))
            if end < len(inner):
                comment = quoted(" ".join(inner[end:]), 60)
                warnings.append(f"{escape_text(pattern)}, line {number}: a comment behind an entry, {comment}: dropped")
            inside = f"{escape_text(pattern)}, line {number}"
            for other, text, at in expanded(inner[:end], pattern, warnings, depth + 1, inside):
                yield negated != other, text, at
