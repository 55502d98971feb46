"""Limits concurrent handshakes. A handshake that takes longer than TURN_SECONDS gives up its place to the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

TURN_SECONDS = 1.0  # a longer handshake is not counted while others wait

T = TypeVar("T")


class HandshakeLimiter(Generic[T]):
    """`places` handshakes at a time; the others wait in the order in which they came."""

    def __init__(self, places: int, begin: Callable[[T], object], now: Callable[[], float]) -> None:
        """begin: called with the handshake that has its turn. now: s."""
        self.places = places
        self._begin = begin
        self._now = now
        self._inside: dict[T, float] = {}  # start of each, the oldest first
        self._waiting: dict[T, None] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, who: T) -> None:
        """Begin at once, or wait for a place."""
        self._waiting[who] = None
        self.admit()

    def leave(self, who: T) -> None:
        """The handshake has succeeded or failed, or was given up while waiting."""
        self._waiting.pop(who, None)
        if self._inside.pop(who, None) is not None:
            self.admit()

    def admit(self) -> None:
        """Begin waiting handshakes while there are places. Call it regularly: nothing reports that a turn is over."""
        now = self._now()
        while self._waiting:
            if len(self._inside) >= self.places:
                longest, came = next(iter(self._inside.items()))
                if now - came < TURN_SECONDS:
                    return
                del self._inside[longest]  # it continues, but without a place
            who = next(iter(self._waiting))
            del self._waiting[who]
            self._inside[who] = now
            self._begin(who)
