"""Requests of the control server to the cluster process (`process.rpc`)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from fastscreen.cache.stamps import Stamps
from fastscreen.process import rpc

TIMEOUT = 3.0  # s
PACKET = 8192
_BUFFER = 1 << 18


class Get(Struct, frozen=True, tag="get"):
    """What the server has for a cache key; answered with Known, Unknown or Failed."""

    key: bytes


class Delete(Struct, frozen=True, tag="delete"):
    """Delete a network's passes everywhere: `192.0.2.0/24`, or an address; answered with Deleting or Failed."""

    network: str


class Forget(Struct, frozen=True, tag="forget"):
    """Delete what is remembered of a network's addresses everywhere else; answered with Deleting or Failed."""

    network: str


class Check(Struct, frozen=True, tag="check"):
    """Store and read a record with a MAC; answered with Checked or Failed."""


Question = Get | Delete | Forget | Check


class Known(Struct, frozen=True, tag="known"):
    """stored: s since 1970, by the server's clock."""

    stamps: Stamps
    host: str
    stored: float


class Unknown(Struct, frozen=True, tag="unknown"):
    """A usable record is missing. ignored: why the one that was found is not (the label of a `records.Reason`)."""

    ignored: str = ""


class Deleting(Struct, frozen=True, tag="deleting"):
    """sent: the server has it; otherwise it gets it as soon as it is connected."""

    sent: bool


class Checked(Struct, frozen=True, tag="checked"):
    """seconds: for storing and reading a record. server: its address."""

    seconds: float
    server: str


class Failed(Struct, frozen=True, tag="failed"):
    """One line."""

    why: str


class DeletedElsewhere(Struct, frozen=True, tag="deleted_elsewhere"):
    """Sent without a request, with the number 0: another host has deleted a network's passes.

    The cluster process deletes them from the cache's file; workers may have some that are not written yet.
    """

    network: str
    host: str
    time: float


Answer = Known | Unknown | Deleting | Checked | Failed | DeletedElsewhere


class Asked(NamedTuple):
    number: int
    question: Question


class Answered(NamedTuple):
    number: int
    answer: Answer


_asked = msgspec.msgpack.Decoder(Asked)
_answered = msgspec.msgpack.Decoder(Answered)


def pair() -> tuple[socket.socket, socket.socket]:
    """The control server's end and the cluster process's. Both are non-blocking."""
    return rpc.pair(_BUFFER)


def receive_question(end: socket.socket) -> Asked | None:
    """As `rpc.receive`."""
    return rpc.receive(end, _asked, PACKET)


def receive_answer(end: socket.socket) -> Answered | None:
    """As `rpc.receive`."""
    return rpc.receive(end, _answered, PACKET)


class ClusterRpc:
    """The control server's side. end: its end of the pair. on_deleted: called for what other hosts delete."""

    def __init__(self, end: socket.socket, on_deleted: Any = None) -> None:
        self._end = end
        self._on_deleted = on_deleted
        self._loop = asyncio.get_running_loop()
        self._last = rpc.first_number()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._loop.add_reader(end.fileno(), self._take)

    async def ask(self, question: Question) -> Answer:
        """The answer; Failed also if it does not arrive in time."""
        self._last += 1
        number = self._last
        if not rpc.send(self._end, Asked(number, question)):
            return Failed("the cluster process takes no requests now")
        future = self._waiting[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(TIMEOUT):
                answer: Answer = await future
                return answer
        except TimeoutError:
            return Failed(f"the cluster process has not answered within {TIMEOUT:g} s")
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """Read nothing more."""
        self._loop.remove_reader(self._end.fileno())

    def _take(self) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            try:
                answered = receive_answer(self._end)
            except EOFError:
                self.close()
                return
            if answered is None:
                return
            future = self._waiting.get(answered.number)
            if future is not None and not future.done():
                future.set_result(answered.answer)
            elif isinstance(answered.answer, DeletedElsewhere) and self._on_deleted is not None:
                self._on_deleted(answered.answer)
