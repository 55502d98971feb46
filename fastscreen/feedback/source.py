"""What a source of log lines has: complete lines, of limited length, a limited number at a time."""

from __future__ import annotations

from typing import Protocol

MAX_BYTES = 512 << 10  # per turn


class SourceError(Exception):
    """It cannot be read now; the text is one line for a person."""


class Source(Protocol):
    """A log. behind: bytes that are waiting. skipped: bytes that were never read, because there were too many."""

    behind: int
    skipped: int

    def read(self) -> list[bytes]:
        """New lines, without waiting for any. SourceError: try again later."""
        ...

    def close(self) -> None: ...


class Splitter:
    """Makes lines of what arrives in pieces. Only whole lines are returned, and of a long one its begin: what stands in
    the middle of a line may be text of a client, and must not look like a line of its own."""

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._begun = b""
        self._drops_first = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._begun + lines[0]
            self._begun = b""
            if self._drops_first:
                del lines[0]
                self._drops_first = False
        self._begun = (self._begun + rest)[: self._max]
        return [line[: self._max] for line in lines]

    def reset(self, *, in_line: bool = False) -> None:
        """Forget a line that has no end. in_line: what comes now is perhaps not the begin of a line."""
        self._begun = b""
        self._drops_first = in_line
