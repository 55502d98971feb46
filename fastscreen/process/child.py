"""A child of the supervisor: which process it is now, what it has reported, and when the next one may start."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time
from enum import Enum, auto

from fastscreen.process import ipc, signals
from fastscreen.process.ipc import Failed, Report, Stop

SHORT_LIFE_SECONDS = 10.0  # a process that dies twice so soon is started after 1 s, then 2, 4, ...
MAX_PAUSE_SECONDS = 30.0  # before the next start
END_SECONDS = 5.0  # for a process to end that has reported a failure
TICK = 1.0  # s, between two heartbeats, and between two rounds of housekeeping


def beat(heartbeat: memoryview) -> None:
    """Change the byte, once every TICK."""
    heartbeat[0] = (heartbeat[0] + 1) & 0xFF


class Heartbeat:
    """Whether a process still works: it changes a byte of shared memory every second."""

    def __init__(self) -> None:
        self._last = -1
        self._missed = 0

    def missed(self, now: int) -> int:
        """The number of checks in a row, including this one, that have found the byte unchanged."""
        self._missed = self._missed + 1 if now == self._last else 0
        self._last = now
        return self._missed


class ChildState(Enum):
    """What a child does now.

    STOPPED: no process runs; the next may start at `start_at`. STARTING, RELOADING: a report is expected by `deadline`.
    SERVING: no report is expected. ENDING: it has reported a failure or closed its channel; it is killed at `deadline`.
    """

    STOPPED = auto()
    STARTING = auto()
    SERVING = auto()
    RELOADING = auto()
    ENDING = auto()


class Child:
    """A worker or another child; its process may change. `pid` 0: no process."""

    def __init__(self, name: str, number: int = -1, kind: str = "") -> None:
        """name: in the log. number: among its kind, from 0. kind: worker, tls, control; empty: one that ends itself."""
        self.name = name
        self.number = number
        self.kind = kind
        self.pid = 0
        self.channel: socket.socket | None = None
        self.state = ChildState.STOPPED
        self.deadline = math.inf
        """When it is killed unless it has reported, or ended, before (s, monotonic)."""
        self.expected = 0
        """Reports that are still to come: one for the start, one for each reload."""
        self.last_report: Report | None = None
        self.is_muted = False
        """Nothing is read from its channel any more."""
        self.is_former = False
        """The program before a restart has started it; it gets no successor."""
        self.is_stopping = False
        """It was told to stop."""
        self.started = 0.0  # s, monotonic
        self.serving_since = math.inf  # s, monotonic
        self.start_at = 0.0  # s, monotonic
        self.short_lives = 0  # in a row
        self.heartbeat = Heartbeat()

    def assign(self, pid: int, channel: socket.socket | None) -> None:
        """A process has started. It serves, unless `expect` says that it reports first."""
        self.pid = pid
        self.channel = channel
        self.started = self.serving_since = time.monotonic()
        self.state, self.deadline, self.expected, self.last_report = ChildState.SERVING, math.inf, 0, None
        self.is_muted = False
        self.heartbeat = Heartbeat()

    def expect(self, state: ChildState, deadline: float) -> None:
        """Expect one more report, by this time (s, monotonic). A reload is reported after the start is over."""
        self.expected += 1
        self.last_report = None
        if state is ChildState.STARTING:
            self.serving_since = math.inf
        if self.state is not ChildState.STARTING:
            self.state = state
        self.deadline = max(deadline, self.deadline) if self.deadline < math.inf else deadline

    def take_report(self, report: Report) -> None:
        """Take a report. ValueError: none was expected."""
        if self.expected == 0:
            raise ValueError("a report that was not expected")
        self.expected -= 1
        self.last_report = report
        if isinstance(report, Failed):
            self.end_by(time.monotonic() + END_SECONDS)
        elif self.state is not ChildState.ENDING:
            if self.state is ChildState.STARTING:
                self.serving_since = time.monotonic()
            self.state = ChildState.RELOADING if self.expected else ChildState.SERVING
            self.deadline = self.deadline if self.expected else math.inf

    def end_by(self, deadline: float) -> None:
        """Expect it to end; otherwise it is killed at this time (s, monotonic)."""
        self.state, self.deadline = ChildState.ENDING, min(self.deadline, deadline)

    def close_channel(self) -> None:
        """Close the supervisor's end: the process sees that, and ends."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def dismiss(self) -> None:
        """Say stop, and close the supervisor's end: a process that outlives a killed supervisor sees the difference."""
        if self.channel is not None:
            with contextlib.suppress(OSError):  # it has ended
                ipc.send(self.channel, Stop())
        self.close_channel()

    def ended(self) -> None:
        """The process has ended: the next may start at once, or after a pause if it did not live long."""
        now = time.monotonic()
        self.pid = 0
        self.state, self.deadline, self.expected, self.serving_since = ChildState.STOPPED, math.inf, 0, math.inf
        self.short_lives = self.short_lives + 1 if now < self.started + SHORT_LIFE_SECONDS else 0
        self.start_at = now + self._pause()

    def not_started(self) -> None:
        """No process could be made for it: the next attempt follows after 1 s, then 2, 4, ..., even if the last process
        lived for long.
        """
        before = self.short_lives
        self.ended()
        self.short_lives = max(2, before + 1)
        self.start_at = time.monotonic() + self._pause()

    def _pause(self) -> float:
        """Before the next start (s)."""
        return min(2.0 ** min(self.short_lives - 2, 10), MAX_PAUSE_SECONDS) if self.short_lives > 1 else 0.0

    def kill(self) -> None:
        """SIGKILL."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """code: an exit code, negative for a signal."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {signals.name_of(-code)}"
