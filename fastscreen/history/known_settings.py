"""The settings that workers use, for the files: what a session's number of settings refers to is in the same file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fastscreen.history import settings
from fastscreen.history.ring import Ring

KEEP_SECONDS = 86400.0  # for which settings that no worker uses any more are written to new files


class KnownSettings:
    """Those that the rings have, and those of sessions that began under them and may still end. timer: s, monotonic."""

    def __init__(self, rings: Sequence[Ring], timer: Callable[[], float]) -> None:
        self._rings = rings
        self._timer = timer
        self._generations = [-1] * len(rings)
        self._current = [0] * len(rings)  # the number of each worker's settings
        self._descriptions: dict[int, bytes] = {}
        self._until: dict[int, float] = {}

    def update(self) -> None:
        """Read what workers have published."""
        for at, ring in enumerate(self._rings):
            generation = ring.generation
            if generation == self._generations[at]:
                continue
            description = ring.settings()
            if description is not None:
                self._current[at] = settings.number(description)
                self.add([(self._current[at], description)])
                self._generations[at] = generation

    def add(self, found: Iterable[tuple[int, bytes]]) -> None:
        """Those of a file."""
        for number, description in found:
            self._descriptions[number] = description
            self._until.setdefault(number, self._timer() + KEEP_SECONDS)

    def all(self) -> list[tuple[int, bytes]]:
        """Number and description of each."""
        now = self._timer()
        for number in self._current:
            if number:
                self._until[number] = now + KEEP_SECONDS
        for number in [number for number, until in self._until.items() if until < now]:
            del self._until[number], self._descriptions[number]
        return list(self._descriptions.items())
