"""Look-ups of several workers, gathered into batches for the server.

A question waits for at most GATHER seconds, so that others can join its batch. Questions for the same client share
the answer. A question that is older than the budget is dropped: its worker no longer waits.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec import Struct

GATHER = 0.005  # s
BATCH = 100  # keys
MOST_BATCHES = 16  # on their way at a time
MOST = 20_000  # questions that wait
FIRST_PAUSE = 0.1  # s, after the server has refused a batch; twice as long each time
LONGEST_PAUSE = 5.0

Fetch = Callable[[Sequence[bytes]], Awaitable[Sequence[object]]]
"""The values of these keys, in order; None where it is missing. ConnectionError: the server cannot be asked now.
Refused: it does not answer this."""
Answer = tuple[Sequence[int], bytes, object]
"""Workers that have asked for a key, the key, and its value."""


class Refused(Exception):
    """The server is there, but refuses to answer."""


class _Question(Struct):
    asked: float  # s, monotonic: the newest of its workers'
    workers: list[int]


class Lookups:
    """budget: s. clock: s, monotonic. `is_open` says whether the server can be asked."""

    def __init__(
        self,
        fetch: Fetch,
        deliver: Callable[[list[Answer]], object],
        is_open: Callable[[], bool],
        budget: float,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._fetch = fetch
        self._deliver = deliver
        self._is_open = is_open
        self.budget = budget
        self._clock = clock
        self._loop = loop
        self._waiting: dict[bytes, _Question] = {}  # in the order in which they were asked
        self._sent: dict[bytes, _Question] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._paused_until = -math.inf
        self.asked = 0
        """Keys that workers have asked for."""
        self.sent = 0
        """Keys that the server was asked for."""
        self.late = 0
        """Questions that were dropped unanswered, that the server refused, or whose answer came after the budget."""
        self.refused = 0
        """Questions that were dropped because too many waited."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def ask(self, worker: int, keys: Iterable[bytes]) -> None:
        """A worker asks for these keys."""
        now = self._clock()
        for key in keys:
            self.asked += 1
            question = self._sent.get(key) or self._waiting.get(key)
            if question is not None:
                question.asked = now
                if worker not in question.workers:
                    question.workers.append(worker)
            elif len(self) >= MOST:
                self.refused += 1
            else:
                self._waiting[key] = _Question(now, [worker])
        if len(self._waiting) >= BATCH:
            self._flush()
        elif self._waiting:
            self._gather()

    def flush(self) -> None:
        """No more questions are to be expected now."""
        self._flush()

    def connected(self) -> None:
        """The server can be asked, perhaps another one than before."""
        self._pause, self._paused_until = FIRST_PAUSE, -math.inf
        self._flush()

    def expire(self) -> None:
        """Drop what is too old; due every second."""
        before = self._clock() - self.budget
        for key in [key for key, question in self._waiting.items() if question.asked < before]:
            self.late += len(self._waiting.pop(key).workers)

    def close(self) -> None:
        """Ask nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _gather(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(max(GATHER, self._paused_until - self._clock()), self._due)

    def _due(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        if now < self._paused_until:
            self._gather()
            return
        before = now - self.budget
        while self._waiting and self._is_open() and len(self._tasks) < MOST_BATCHES:
            batch = []
            for key in list(itertools.islice(self._waiting, BATCH)):
                question = self._waiting.pop(key)
                if question.asked < before:
                    self.late += len(question.workers)
                else:
                    self._sent[key] = question
                    batch.append(key)
            if not batch:
                continue
            self.sent += len(batch)
            task = self._loop.create_task(self._ask(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # an error is the loop's to report
        if self._waiting:
            self._gather()

    async def _ask(self, batch: Sequence[bytes]) -> None:
        values: Sequence[object] = ()
        try:
            values = await self._fetch(batch)
            self._pause = FIRST_PAUSE
        except Refused:
            self.late += sum(len(self._sent[key].workers) for key in batch)
            now = self._clock()
            if now >= self._paused_until:  # otherwise, another batch was refused at the same time
                self._paused_until = now + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
        except ConnectionError:
            for key in batch:  # asked again when the server is back, if that is soon enough
                self._waiting[key] = self._sent[key]
        finally:
            questions = [self._sent.pop(key) for key in batch]
        before = self._clock() - self.budget
        answers: list[Answer] = []
        for key, value, question in zip(batch, values, questions, strict=False):
            if question.asked < before:
                self.late += len(question.workers)
            elif value is not None:
                answers.append((question.workers, key, value))
        if answers:
            self._deliver(answers)
