"""The workers, as the hub asks them: with a bound in time and number, so that watching costs them next to nothing."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from fastscreen.control.questions import Asked, Forget, Question, Remember, receive_answer, send

PATIENCE = 1.0  # s
FRESH = 0.5  # s for which an answer is good for everybody who asks the same
SPACING = 0.02  # s between two questions to one worker
REMEMBERED = 200  # answers


class Crew:
    """ends: the hub's ends, by worker."""

    def __init__(self, ends: Sequence[socket.socket]) -> None:
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        # Another hub's questions may still be on their way: their numbers are not ours.
        self._last = secrets.randbits(40)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._recent: dict[tuple[int, bytes], tuple[float, asyncio.Future[Any]]] = {}
        self._next_at = [0.0] * len(ends)
        for end in ends:
            self._loop.add_reader(end.fileno(), self._answered, end)

    def __len__(self) -> int:
        return len(self._ends)

    async def ask_all(self, question: Question) -> list[Any]:
        """Every worker's answer in order; None of one that gives none in time."""
        return await asyncio.gather(*(self.ask(worker, question) for worker in range(len(self._ends))))

    async def ask(self, worker: int, question: Question) -> Any:
        """One worker's (from 0) answer, or None. What was asked just now is not asked again."""
        if isinstance(question, Forget | Remember):
            self._recent.clear()
            return await self._ask(worker, question)
        now = self._loop.time()
        key = (worker, msgspec.msgpack.encode(question))
        fresh = self._recent.get(key)
        if fresh is None or fresh[0] <= now:
            if len(self._recent) >= REMEMBERED:
                self._recent = {old: kept for old, kept in self._recent.items() if kept[0] > now}
            if len(self._recent) >= REMEMBERED:
                return None
            fresh = self._recent[key] = (now + FRESH, asyncio.ensure_future(self._ask(worker, question)))
        return await asyncio.shield(fresh[1])

    async def _ask(self, worker: int, question: Question) -> Any:
        now = self._loop.time()
        at = max(now, self._next_at[worker])
        if at > now + PATIENCE:
            return None
        self._next_at[worker] = at + SPACING
        await asyncio.sleep(at - now)
        self._last += 1
        number = self._last
        if not send(self._ends[worker], Asked(number, question)):
            return None
        future = self._waiting[number] = self._loop.create_future()
        try:
            return await asyncio.wait_for(future, PATIENCE)
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def _answered(self, end: socket.socket) -> None:
        answered = receive_answer(end)
        future = self._waiting.get(answered.number) if answered is not None else None
        if answered is not None and future is not None and not future.done():
            future.set_result(answered.answer)

    def close(self) -> None:
        for end in self._ends:
            self._loop.remove_reader(end.fileno())
