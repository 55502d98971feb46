"""The panic switch: until a time, every client is handed on untested. It stands in the workers' rings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from fastscreen.core import EventReader

MAX_SECONDS = 86400.0


class Bypass:
    """The rings' time is not 0 until its end is logged, so that a hub that is started anew goes on with it."""

    def __init__(self, readers: Sequence[EventReader], warn: Callable[[str], object]) -> None:
        self._readers = readers
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    @property
    def until(self) -> float | None:
        """s since 1970; None: it is off."""
        until = max(reader.bypass_until for reader in self._readers)
        return until if until > time.time() else None

    def switch(self, seconds: float, uid: int) -> float:
        """On for so many seconds, or off with 0. Return until when, in s since 1970."""
        was_on = self.until is not None
        until = time.time() + seconds if seconds else 0.0
        self._set(until)
        if seconds:
            self._warn(f"bypass switched on by user {uid} until {_clock(until)}: every client is handed on untested")
        elif was_on:
            self._warn(f"bypass switched off by user {uid}: clients are tested again")
        self._wait()
        return self.until or 0.0

    def _set(self, until: float) -> None:
        for reader in self._readers:
            reader.bypass_until = until

    def _wait(self) -> None:
        """Look again when it ends: the wall clock may be set meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = max(reader.bypass_until for reader in self._readers)
        if until:
            self._timer = self._loop.call_later(min(max(until - time.time(), 0.0), 60.0) + 0.05, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.until is None:
            self._set(0.0)
            self._warn("bypass has ended: clients are tested again")
        self._wait()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(when))
