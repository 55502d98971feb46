"""Two look-ups of the dummy engine: forbidden commands, and the command filter (reference 1.2, 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

from fastscreen.tables import Table, TableError, open_table
from fastscreen.tables.matchlist import expanded


class ForbiddenCommands:
    """`engine.forbidden_commands`: words, tables, files of words; the first match decides, `!` makes it a no."""

    def __init__(self, items: Sequence[str]) -> None:
        """Raises TableError."""
        self.warnings: list[str] = []
        self._items: list[tuple[bool, str | Table]] = []
        try:
            patterns = list(expanded(items, "engine.forbidden_commands", self.warnings))
        except TableError as error:
            raise TableError(f"engine.forbidden_commands: {error}") from None
        for negated, pattern, _ in patterns:
            if ":" in pattern:
                table = open_table(pattern, "engine.forbidden_commands")
                self.warnings += table.warnings
                table.warnings = self.warnings
                self._items.append((negated, table))
            else:
                self._items.append((negated, pattern.casefold()))

    def match(self, word: bytes) -> bool:
        """Whether a command word, in any case, is forbidden."""
        key = word.decode("utf-8", "surrogateescape").casefold()
        for negated, item in self._items:
            if key == item if isinstance(item, str) else item.lookup(key) is not None:
                return not negated
        return False


class CommandFilter:
    """`engine.command_filter`: a table that rewrites command lines."""

    def __init__(self, spec: str) -> None:
        """An empty spec filters nothing. Raises TableError."""
        self._table = open_table(spec, "engine.command_filter") if spec else None
        self.warnings = self._table.warnings if self._table else []

    def apply(self, line: bytes) -> tuple[bytes, str | None]:
        """The line to execute instead of `line` (without its end), and the log line's text when it is another one.

        The caller leaves lines alone that are not UTF-8 when smtputf8 is on (reference 5.3 step 4).
        """
        if self._table is None:
            return line, None
        key = line.lstrip(b" \t").decode("utf-8", "surrogateescape")
        result = self._table.lookup(key)
        if result is None:
            return line, None
        replaced = result.encode("utf-8", "surrogateescape")
        shown = line.decode("utf-8", "surrogateescape")
        return replaced, f'replacing command "{_shown(shown)}" with "{_shown(result)}"'


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:100])
