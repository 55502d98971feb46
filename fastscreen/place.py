"""A place that a process has under the supervisor: who is in it, and when the next one may start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

SHORT_LIFE_SECONDS = 10.0  # a process that dies twice so soon is started after 1 s, then 2, 4, ...
PAUSE_MOST = 30.0  # s
TICK = 1.0  # s, between two beats of a pulse


def beat(pulse: memoryview) -> None:
    """Every TICK: the loop turns."""
    pulse[0] = (pulse[0] + 1) & 0xFF


class Pulse:
    """Whether a process's loop still turns, by the octet that it changes every second."""

    def __init__(self) -> None:
        self._last = -1
        self._missed = 0

    def missed(self, now: int) -> int:
        """How many looks in a row, this one with them, have found the octet as it was."""
        self._missed = self._missed + 1 if now == self._last else 0
        self._last = now
        return self._missed


class Place:
    """One of the workers or of the others, whichever process it is just now. `pid` 0: none."""

    def __init__(self, name: str, number: int = -1) -> None:
        self.name = name
        self.number = number
        self.pid = 0
        self.channel: socket.socket | None = None
        self.started = 0.0  # s, monotonic
        self.start_at = 0.0  # s, monotonic
        self.short_lives = 0  # one after the other
        self.pulse = Pulse()

    def take(self, pid: int, channel: socket.socket) -> None:
        """A process has started."""
        self.pid = pid
        self.channel = channel
        self.started = time.monotonic()
        self.pulse = Pulse()

    def leave(self) -> None:
        """Close the channel to it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def ended(self) -> None:
        """It is to be started again: at once, or after a pause if it does not live."""
        now = time.monotonic()
        self.pid = 0
        self.short_lives = self.short_lives + 1 if now < self.started + SHORT_LIFE_SECONDS else 0
        self.start_at = now + (min(2.0 ** min(self.short_lives - 2, 10), PAUSE_MOST) if self.short_lives > 1 else 0.0)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
