"""Counts values that clients choose, in limited memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Counts(Generic[Key]):
    """Counts the first `max_keys` different keys separately. others: the count of all other keys."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._counts: dict[Key, int] = {}
        self.others = 0

    def add(self, key: Key, times: int = 1) -> None:
        """Count a key."""
        counts = self._counts
        if key in counts:
            counts[key] += times
        elif len(counts) < self._max_keys:
            counts[key] = times
        else:
            self.others += times

    def top(self, number: int | None = None) -> list[tuple[Key, int]]:
        """The most frequent keys first; keys with equal counts in the order of their text."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))[:number]

    def __iter__(self) -> Iterator[tuple[Key, int]]:
        return iter(self._counts.items())

    def __len__(self) -> int:
        return len(self._counts)
