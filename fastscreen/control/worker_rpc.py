"""Requests of the control server to the workers (`process.rpc`), over a socket pair for each worker.

`WorkerRpc` is the server's side, `RequestHandler` the worker's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from fastscreen.cache.interfaces import StampCache
from fastscreen.config import Prefix
from fastscreen.core import Filter, Log, Screener, cache_key_of
from fastscreen.process import rpc

TIMEOUT = 1.0  # s
FRESH = 0.5  # s for which an answer is good for everybody who asks the same
SPACING = 0.02  # s between two questions to one worker
REMEMBERED = 200  # answers
PACKET = 1 << 18  # bytes: an answer may have 1000 sessions of 128
_BUFFER = 1 << 19

Term = tuple[str, str, Any, bool]  # as core.Filter takes them
Key = bytes  # see fastscreen.cache.keys
Record = tuple[Key, tuple[int, ...]]


class Stats(Struct, frozen=True, tag="stats"):
    """How it goes: pid, the core's counters, lost log lines."""


class Lists(Struct, frozen=True, tag="lists"):
    """The DNSBL lists' counters."""


class Live(Struct, frozen=True, tag="live"):
    """Sessions as they stand: (total, matched, packed records)."""

    terms: Sequence[Term]
    order: str
    limit: int


class About(Struct, frozen=True, tag="about"):
    """One client: what lists said, its sessions with their stamps, how many connections its rates count, the record
    that is not in the file yet.
    """

    address: str


class Forget(Struct, frozen=True, tag="forget"):
    """What is not in the file yet, of an address from `first` to `last`, or of a network there, shall not get there."""

    first: Key
    last: Key


class Remember(Struct, frozen=True, tag="remember"):
    """What is not in the file yet of these clients is replaced."""

    records: Sequence[Record]


Question = Stats | Lists | Live | About | Forget | Remember


class Asked(NamedTuple):
    number: int
    question: Question


class Answered(NamedTuple):
    number: int
    answer: Any


_asked = msgspec.msgpack.Decoder(Asked)
_answered = msgspec.msgpack.Decoder(Answered)


def pair() -> tuple[socket.socket, socket.socket]:
    """The control server's end and the worker's. Both are non-blocking."""
    return rpc.pair(_BUFFER)


def receive_question(end: socket.socket) -> Asked | None:
    """As `rpc.receive`."""
    return rpc.receive(end, _asked, PACKET)


def receive_answer(end: socket.socket) -> Answered | None:
    """As `rpc.receive`."""
    return rpc.receive(end, _answered, PACKET)


class WorkerRpc:
    """ends: the control server's ends, by worker."""

    def __init__(self, ends: Sequence[socket.socket]) -> None:
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._last = rpc.first_number()
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
        if at > now + TIMEOUT:
            return None
        self._next_at[worker] = at + SPACING
        await asyncio.sleep(at - now)
        self._last += 1
        number = self._last
        if not rpc.send(self._ends[worker], Asked(number, question)):
            return None
        future = self._waiting[number] = self._loop.create_future()
        try:
            return await asyncio.wait_for(future, TIMEOUT)
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def _answered(self, end: socket.socket) -> None:
        try:
            answered = receive_answer(end)
        except EOFError:  # after a restart: a former worker has ended
            self._loop.remove_reader(end.fileno())
            return
        future = self._waiting.get(answered.number) if answered is not None else None
        if answered is not None and future is not None and not future.done():
            future.set_result(answered.answer)

    def close(self) -> None:
        for end in self._ends:
            self._loop.remove_reader(end.fileno())


class RequestHandler:
    """One worker's. `serve` is the loop's reader of `end`. prefix: the cache's."""

    def __init__(
        self, end: socket.socket, screener: Screener, cache: StampCache | None, prefix: Prefix, log: Log
    ) -> None:
        self._end = end
        self._prefix = prefix
        self._screener = screener
        self._cache = cache
        self._log = log

    def serve(self) -> None:
        """Answer one request. An answer that cannot be sent is lost; the control server asks again. Raises errors."""
        try:
            asked = receive_question(self._end)
        except EOFError:  # after a restart: the former control server has ended
            asyncio.get_running_loop().remove_reader(self._end.fileno())
            return
        if asked is not None:
            rpc.send(self._end, Answered(asked.number, self._answer(asked.question)))

    def _answer(self, question: Question) -> Any:
        match question:
            case Stats():
                return {"pid": os.getpid(), "lost_log_lines": self._log.lost_total, **self._screener.stats()}
            case Lists():
                return self._screener.lists()
            case Live(terms, order, limit):
                return self._screener.live(Filter([(*term,) for term in terms]), order, limit)
            case About(address):
                record = self._cache.pending(cache_key_of(address, self._prefix)) if self._cache else None
                return {
                    "lists": self._screener.answers(address),
                    "client": self._screener.client(address),
                    "rates": self._screener.rates_of(address),
                    "record": record,
                }
            case Forget(first, last):
                return self._cache.forget(first, last) if self._cache else 0
            case Remember(records):
                return self._cache.replace(records) if self._cache else 0
