"""A place that a process has under the supervisor: who is in it, and when the next one may start."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time
from enum import Enum, auto

from fastscreen.process.ipc import Failed, Report

SHORT_LIFE_SECONDS = 10.0  # a process that dies twice so soon is started after 1 s, then 2, 4, ...
MAX_PAUSE = 30.0  # s
END_SECONDS = 5.0  # for a process that said that it cannot go on
TICK = 1.0  # s, between two beats of a pulse


def beat(heartbeat: memoryview) -> None:
    """Every TICK: the loop turns."""
    heartbeat[0] = (heartbeat[0] + 1) & 0xFF


class Heartbeat:
    """Whether a process's loop still turns, by the octet that it changes every second."""

    def __init__(self) -> None:
        self._last = -1
        self._missed = 0

    def missed(self, now: int) -> int:
        """How many looks in a row, this one with them, have found the octet as it was."""
        self._missed = self._missed + 1 if now == self._last else 0
        self._last = now
        return self._missed


class State(Enum):
    """What a child does now.

    EMPTY: there is none; the next may start at `start_at`. STARTING, RELOADING: a report is expected by `by`. SERVING:
    no report is expected. ENDING: it said that it cannot go on, or closed its channel; it is killed at `by`.
    """

    EMPTY = auto()
    STARTING = auto()
    SERVING = auto()
    RELOADING = auto()
    ENDING = auto()


class Child:
    """One of the workers or of the others, whichever process it is just now. `pid` 0: none."""

    def __init__(self, name: str, number: int = -1) -> None:
        self.name = name
        self.number = number
        self.pid = 0
        self.channel: socket.socket | None = None
        self.state = State.EMPTY
        self.by = math.inf
        """s, monotonic: when it is killed unless it has reported, or ended, before."""
        self.expected = 0
        """Reports that are still to come: one for the start, one for each reload."""
        self.answer: Report | None = None
        """The last report."""
        self.deaf = False
        """Nothing is read from its channel any more."""
        self.started = 0.0  # s, monotonic
        self.serving_since = math.inf  # s, monotonic
        self.start_at = 0.0  # s, monotonic
        self.short_lives = 0  # one after the other
        self.heartbeat = Heartbeat()

    def take(self, pid: int, channel: socket.socket | None) -> None:
        """A process has started. It serves, unless `expect` says that it reports first."""
        self.pid = pid
        self.channel = channel
        self.started = self.serving_since = time.monotonic()
        self.state, self.by, self.expected, self.answer = State.SERVING, math.inf, 0, None
        self.deaf = False
        self.heartbeat = Heartbeat()

    def expect(self, state: State, by: float) -> None:
        """One more report is to come, by this time (s, monotonic). A reload waits until the start is over."""
        self.expected += 1
        self.answer = None
        if state is State.STARTING:
            self.serving_since = math.inf
        if self.state is not State.STARTING:
            self.state = state
        self.by = max(by, self.by) if self.by < math.inf else by

    def reported(self, report: Report) -> None:
        """Take a report. ValueError: none was expected."""
        if self.expected == 0:
            raise ValueError("a report that was not expected")
        self.expected -= 1
        self.answer = report
        if isinstance(report, Failed):
            self.end_by(time.monotonic() + END_SECONDS)
        elif self.state is not State.ENDING:
            if self.state is State.STARTING:
                self.serving_since = time.monotonic()
            self.state = State.RELOADING if self.expected else State.SERVING
            self.by = self.by if self.expected else math.inf

    def end_by(self, by: float) -> None:
        """It will end; it is killed at this time (s, monotonic) otherwise."""
        self.state, self.by = State.ENDING, min(self.by, by)

    def leave(self) -> None:
        """Close the channel to it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def ended(self) -> None:
        """It is to be started again: at once, or after a pause if it does not live."""
        now = time.monotonic()
        self.pid = 0
        self.state, self.by, self.expected, self.serving_since = State.EMPTY, math.inf, 0, math.inf
        self.short_lives = self.short_lives + 1 if now < self.started + SHORT_LIFE_SECONDS else 0
        self.start_at = now + (min(2.0 ** min(self.short_lives - 2, 10), MAX_PAUSE) if self.short_lives > 1 else 0.0)

    def not_started(self) -> None:
        """No process could be made for it: the next attempt follows after 1 s, then 2, 4, ..., even if the last process
        had lived for long.
        """
        before = self.short_lives
        self.ended()
        self.short_lives = max(2, before + 1)
        self.start_at = time.monotonic() + min(2.0 ** min(self.short_lives - 2, 10), MAX_PAUSE)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
