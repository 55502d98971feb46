"""How many handshakes are made at a time. Who is not done in a second gives up the place to who waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

TURN_SECONDS = 1.0  # after which a handshake is not counted while others wait, however busy its client is

T = TypeVar("T")


class HandshakeLimiter(Generic[T]):
    """`places` handshakes at a time; the others wait in the order in which they came."""

    def __init__(self, places: int, begin: Callable[[T], object], now: Callable[[], float]) -> None:
        """begin: is told whose turn has come. now: s."""
        self.places = places
        self._begin = begin
        self._now = now
        self._inside: dict[T, float] = {}  # when each came in, the longest ago first
        self._waiting: dict[T, None] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, who: T) -> None:
        """Begin at once, or when it is this one's turn."""
        self._waiting[who] = None
        self.admit()

    def leave(self, who: T) -> None:
        """It is over, well or not, or was given up while waiting."""
        self._waiting.pop(who, None)
        if self._inside.pop(who, None) is not None:
            self.admit()

    def admit(self) -> None:
        """Let in whom there is room for. To be called now and then: that a turn is over is no event."""
        now = self._now()
        while self._waiting:
            if len(self._inside) >= self.places:
                longest, came = next(iter(self._inside.items()))
                if now - came < TURN_SECONDS:
                    return
                del self._inside[longest]  # it goes on when its client does
            who = next(iter(self._waiting))
            del self._waiting[who]
            self._inside[who] = now
            self._begin(who)
