"""Applies changes to the text of master.cf, and shows them as a unified diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from fastscreen.escaping import escape_text
from fastscreen.postfix.advice import Change


class ChangeError(Exception):
    """A change does not fit the text. The message is one line."""


def decoded(data: bytes) -> str:
    """The text of the file; `encoded` gives back the same bytes, whatever they are."""
    return data.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def changed(text: str, changes: Iterable[Change]) -> str:
    """The text with these changes. A service that is added goes to the end. Raises ChangeError."""
    lines = text.split("\n")
    for change in changes:
        if not change.before:
            if lines and not lines[-1]:
                lines.pop()
            lines += [*change.after, ""]
            continue
        found = _positions(lines, change.before)
        if not found:
            raise ChangeError(f"{escape_text(change.service)}: its lines were not found; change master.cf yourself")
        for at in reversed(found):
            lines[at : at + len(change.before)] = change.after
    return "\n".join(lines)


def _positions(lines: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where these lines are, without overlaps."""
    found: list[int] = []
    for at in range(len(lines) - len(wanted) + 1):
        free = not found or at >= found[-1] + len(wanted)
        if free and list(lines[at : at + len(wanted)]) == list(wanted):
            found.append(at)
    return found


def unified(before: bytes, after: bytes, name: str) -> list[str]:
    """A unified diff that can be printed, without line ends; empty if nothing differs."""
    shown = escape_text(name, 500)
    compared = difflib.unified_diff(
        decoded(before).splitlines(), decoded(after).splitlines(), shown, shown, lineterm="", n=1
    )
    return ["\t".join(escape_text(part, 500) for part in line.split("\t")) for line in compared]
