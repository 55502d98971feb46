"""Counting what clients choose, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Counts(Generic[Key]):
    """How often each of at most `most` different keys came; the first ones that came are those that are kept.

    others: how often any other key came.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[Key, int] = {}
        self.others = 0

    def add(self, key: Key, times: int = 1) -> None:
        """Count a key."""
        counts = self._counts
        if key in counts:
            counts[key] += times
        elif len(counts) < self._most:
            counts[key] = times
        else:
            self.others += times

    def top(self, number: int | None = None) -> list[tuple[Key, int]]:
        """The most frequent ones first, equal ones in order of their text."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))[:number]

    def __iter__(self) -> Iterator[tuple[Key, int]]:
        return iter(self._counts.items())

    def __len__(self) -> int:
        return len(self._counts)
