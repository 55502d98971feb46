"""Postfix's match lists: items and `/file` items of which the first that matches decides, and `!` makes it a no."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fastscreen.config.escape import escaped
from fastscreen.tables.lines import logical_lines, read_text
from fastscreen.tables.table import TableError

_DEPTH = 8


def expanded(items: Iterable[str], where: str, warnings: list[str], depth: int = 0) -> Iterator[tuple[bool, str]]:
    """Each pattern with whether it was negated, files replaced by the patterns in them. Raises TableError."""
    for item in items:
        pattern = item.strip()
        negated = False
        while pattern.startswith("!"):
            negated = not negated
            pattern = pattern[1:].lstrip()
        if not pattern.startswith("/"):
            yield negated, pattern
            continue
        if depth == _DEPTH:
            raise TableError(f"{escaped(where)}: {escaped(pattern)}: files nested more than {_DEPTH} deep")
        for _, line in logical_lines(read_text(pattern, pattern), escaped(pattern), warnings):
            inner = (word for word in re.split(r"[\s,]+", line) if word)
            for other, text in expanded(inner, pattern, warnings, depth + 1):
                yield negated != other, text
