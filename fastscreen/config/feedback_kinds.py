"""Kinds of value of the [feedback] table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastscreen.config.kinds import FilePath, Text
from fastscreen.escaping import escape_text, quoted

if TYPE_CHECKING:
    import regex

JOURNAL = "journal"
MAX_EXPRESSION = 1000
"""Characters."""
_GROUPS = {"queue", "address", "port"}


class LogSource:
    """Where the MTA's log is: the path of a file, `journal`, or nothing."""

    expected = 'an absolute path, "journal", or ""'

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value)
        if text == JOURNAL:
            return text
        try:
            return FilePath().parse(text)
        except ValueError:
            raise ValueError(f"bad log {quoted(text)}; expected {self.expected}") from None


class SpamExpression:
    """A regular expression with named groups for the message that is spam."""

    expected = "a regular expression with the group (?P<queue>...), or with (?P<address>...) and (?P<port>...)"

    def parse(self, value: object) -> str:
        text = Text(self.expected, MAX_EXPRESSION).parse(value)
        if text:
            compiled(text)
        return text


def compiled(expression: str) -> regex.Pattern[str]:
    """The expression, in which each character is a byte, as in the lines of a log. ValueError: it has a mistake."""
    import regex  # not needed without an expression

    octets = expression.encode("utf-8", "surrogateescape").decode("latin-1")
    try:
        pattern = regex.compile(octets, regex.V1 | regex.ASCII)
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        raise ValueError(f"{escape_text(str(error), 200)}; expected {SpamExpression.expected}") from None
    names = set(pattern.groupindex)
    if unknown := sorted(names - _GROUPS):
        raise ValueError(f"unknown group {quoted(unknown[0])}; expected {SpamExpression.expected}")
    if "queue" not in names and not {"address", "port"} <= names:
        raise ValueError(f"a group is missing; expected {SpamExpression.expected}")
    return pattern
