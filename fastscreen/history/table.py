"""Recorded sessions as a table for a terminal of any width."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from fastscreen.escaping import escape_bytes, printable
from fastscreen.history.session import Session
from fastscreen.history.wording import why


class Column(Struct, frozen=True):
    """least: the width of the terminal from which it is shown. width: 0 for a column that takes what is left."""

    head: str
    width: int
    least: int
    text: Callable[[Session], str]
    right: bool = False


def _lasted(session: Session) -> str:
    seconds = session.lasted
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return (
        f"{seconds:.1f} s"
        if seconds < 1000
        else f"{seconds / 60:.0f} min"
        if seconds < 60_000
        else f"{seconds / 3600:.0f} h"
    )


def _lists(session: Session) -> str:
    return ",".join(printable(answer.name) for answer in session.lists if answer.state in ("listed", "doubtful"))


def _code(number: int) -> str:
    return str(number) if number else ""


def _stamp(session: Session) -> str:
    try:
        return time.strftime("%m-%d %H:%M:%S", time.localtime(session.ended))
    except (OverflowError, ValueError, OSError):
        return "?"


_COLUMNS = (
    Column("ended", 14, 0, _stamp),
    Column("client", 15, 0, lambda session: session.address),
    Column("port", 5, 140, lambda session: str(session.port), True),
    Column("server", 15, 160, lambda session: session.server),
    Column("lasted", 7, 100, _lasted, True),
    Column("outcome", 10, 0, lambda session: session.outcome),
    Column("code", 4, 0, lambda session: _code(session.verdict)),
    Column("score", 5, 0, lambda session: "" if session.score is None else str(session.score), True),
    Column("MTA", 3, 100, lambda session: _code(session.mta_reply)),
    Column("TLS", 6, 120, lambda session: "" if session.tls == "none" else session.tls),
    Column("reason", 0, 0, why),
    Column("lists", 0, 120, _lists),
    Column("HELO", 0, 0, lambda session: escape_bytes(session.helo)),
)
_SHARES = {"reason": 2, "lists": 3, "HELO": 4}
_LEAST = 3  # characters of a cell for which an earlier one has left no room


class Table:
    """width: of the terminal; None: a line is as long as it needs to be, with every column."""

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._columns = [column for column in _COLUMNS if width is None or width >= column.least]
        self._gap = " " if width is not None and width < 100 else "  "
        self._widths = {column.head: column.width for column in self._columns}
        if width is None:
            self._widths |= {"reason": 20, "lists": 24, "HELO": 0}
            return
        left = width - sum(self._widths.values()) - len(self._gap) * (len(self._columns) - 1)
        flexible = [column.head for column in self._columns if not column.width]
        shares = sum(_SHARES[head] for head in flexible)
        for head in flexible:
            self._widths[head] = max(len(head), left * _SHARES[head] // shares)
        self._widths["HELO"] += max(0, left - sum(self._widths[head] for head in flexible))

    def head(self) -> str:
        """The line above the sessions."""
        return self._line([column.head for column in self._columns])

    def row(self, session: Session) -> str:
        """A session in one line. An IPv6 address takes room from the columns after it."""
        return self._line([column.text(session) for column in self._columns])

    def _line(self, texts: Sequence[str]) -> str:
        shown = ""
        end = 0
        for column, text in zip(self._columns, texts, strict=True):
            if shown:
                shown += self._gap
                end += len(self._gap)
            end += self._widths[column.head]
            room = max(0 if column.width else _LEAST, end - len(shown))
            if self._width is not None and not column.width and len(text) > room:
                text = f"{text[: room - 1]}…"
            shown += f"{text:>{room}}" if column.right else f"{text:<{room}}"
        shown = shown.rstrip()
        return shown if self._width is None or len(shown) <= self._width else f"{shown[: self._width - 1]}…"
