"""Exceptions in a process's event loop: each is logged in one line, and the process goes on, or ends and is replaced.

What asyncio does with an exception in a callback depends on its caller: a reader stays, a timer is gone, a task ends
without a log line. Here every callback that the process depends on is guarded: it is called again, whatever it raised;
if it only fails, the process ends, so that the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from fastscreen.core import Log
from fastscreen.escaping import unexpected

LOG_SECONDS = 60.0  # each kind of error is logged once in this time
MAX_KINDS = 100
FAILURES = 3  # in a row, over FAILING_SECONDS, without a success between them: the process ends
FAILING_SECONDS = 5.0
MAX_TEXT = 300  # characters of an exception's own text
FRAMES = 3  # the innermost ones


class LoopErrors:
    """The errors of one process. give_up() is called when a guarded callback only fails; it has to end the process.

    clock: s, monotonic.
    """

    def __init__(self, log: Log, give_up: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._give_up = give_up
        self._clock = clock
        self._logged: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Log what is not caught elsewhere: in the loop's callbacks and tasks, and inside the core."""
        self._loop = loop
        loop.set_exception_handler(self._escaped)
        sys.unraisablehook = self._unraisable

    def guard(self, what: str, callback: Callable[[], object], *, vital: bool = True) -> Callable[[], None]:
        """The callback as one that never raises. what: its name in the log. vital: the process needs it."""
        failures = 0
        since = 0.0

        def call() -> None:
            nonlocal failures, since
            try:
                callback()
            except Exception as error:
                now = self._clock()
                since = since if failures else now
                failures += 1
                self.report(what, error)
                if vital and failures >= FAILURES and now - since >= FAILING_SECONDS:
                    self._write(f"{what} has failed {failures} times in a row: this process ends and is started again")
                    self._give_up()
            else:
                failures = 0

        return call

    def report(self, what: str, error: BaseException) -> None:
        """Log an error, each kind once in LOG_SECONDS. Never raises."""
        with contextlib.suppress(Exception):
            place = _place(error)
            kind = f"{what} {type(error).__name__} {place}"
            now = self._clock()
            if now - self._logged.get(kind, -LOG_SECONDS) < LOG_SECONDS:
                return
            if len(self._logged) >= MAX_KINDS:
                self._logged = {each: at for each, at in self._logged.items() if now - at < LOG_SECONDS}
                if len(self._logged) >= MAX_KINDS:
                    return
            self._logged[kind] = now
            self._write(f"internal error in {what}: {unexpected(error, MAX_TEXT)}{place}")

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._log.warning(text)
            self._log.flush()

    def _escaped(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = " ".join(str(context.get("message") or "the event loop").split())[:MAX_TEXT]
        self.report(what, context.get("exception") or RuntimeError("no exception"))

    def _unraisable(self, hooked: sys.UnraisableHookArgs) -> None:
        """Called from anywhere, perhaps in the middle of a log line or in another thread: the loop logs it."""
        what, error = str(hooked.object or "the core"), hooked.exc_value or RuntimeError("no exception")
        with contextlib.suppress(Exception):  # the loop is closed
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self.report, what, error)


def _place(error: BaseException) -> str:
    """Where it was raised: ` (worker.py:203 in _screen, cache.py:174 in end_batch)`."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    if not frames:
        return ""
    return " ({})".format(", ".join(f"{PurePath(each.filename).name}:{each.lineno} in {each.name}" for each in frames))
