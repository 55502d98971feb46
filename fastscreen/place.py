"""A place that a process has under the supervisor: who is in it, how it ended, when the next one may start."""

from __future__ import annotations

import os
import signal
import socket
import time

SHORT_LIFE_SECONDS = 10.0  # a process that dies twice so soon is started after 1 s, then 2, 4, ...
PAUSE_MOST = 30.0  # s


class Place:
    """One of the workers, or the hub, whichever process it is just now. `pid` 0: none."""

    def __init__(self, name: str, number: int = -1) -> None:
        self.name = name
        self.number = number
        self.pid = 0
        self.channel: socket.socket | None = None
        self.started = 0.0  # s, monotonic
        self.start_at = 0.0  # s, monotonic
        self._short_lives = 0  # one after the other

    def take(self, pid: int, channel: socket.socket) -> None:
        """A process has started."""
        self.pid = pid
        self.channel = channel
        self.started = time.monotonic()

    def leave(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def ended(self) -> int | None:
        """The exit code of the process, negative for a signal, when it has just ended; the next one's start is set."""
        if not self.pid:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.pid = 0
        now = time.monotonic()
        self._short_lives = self._short_lives + 1 if now < self.started + SHORT_LIFE_SECONDS else 0
        pause = min(2.0 ** (self._short_lives - 2), PAUSE_MOST) if self._short_lives > 1 else 0.0
        self.start_at = now + pause
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


def how_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
