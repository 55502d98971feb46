"""Requests of the control server to the cluster process, one packet each way over a socket pair.

Both ends are the supervisor's, so that they outlive both processes: a request that one process left is answered by its
successor, and the control server recognizes its own requests by their numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from fastscreen.cache.stamps import Stamps

TIMEOUT = 3.0  # s
PACKET = 8192
_BUFFER = 1 << 18


class Get(Struct, frozen=True, tag="get"):
    """What the server has for a cache key; answered with Known, Unknown or Failed."""

    key: bytes


class Delete(Struct, frozen=True, tag="delete"):
    """Delete a network's passes everywhere: `192.0.2.0/24`, or an address; answered with Deleting or Failed."""

    network: str


class Check(Struct, frozen=True, tag="check"):
    """Store and read a record with a MAC; answered with Checked or Failed."""


Question = Get | Delete | Check


class Known(Struct, frozen=True, tag="known"):
    """stored: s since 1970, by the server's clock."""

    stamps: Stamps
    host: str
    stored: float


class Unknown(Struct, frozen=True, tag="unknown"):
    """There is no usable record. ignored: why the one that is there is not usable (the label of a `records.Reason`)."""

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
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


def send(end: socket.socket, packet: Asked | Answered) -> bool:
    """False: it takes nothing now."""
    with contextlib.suppress(OSError):
        end.send(msgspec.msgpack.encode(packet), socket.MSG_DONTWAIT)
        return True
    return False


def receive_question(end: socket.socket) -> Asked | None:
    """None: there is none. EOFError: there will be none. msgspec.MsgspecError: not a question."""
    packet = _receive(end)
    return _asked.decode(packet) if packet else None


def receive_answer(end: socket.socket) -> Answered | None:
    """None: there is none. EOFError: there will be none. msgspec.MsgspecError: not an answer."""
    packet = _receive(end)
    return _answered.decode(packet) if packet else None


def _receive(end: socket.socket) -> bytes:
    try:
        packet = end.recv(PACKET, socket.MSG_DONTWAIT)
    except OSError:
        return b""
    if not packet:
        raise EOFError
    return packet


class ClusterRpc:
    """The control server's side. end: its end of the pair. on_deleted: called for what other hosts delete."""

    def __init__(self, end: socket.socket, on_deleted: Any = None) -> None:
        self._end = end
        self._on_deleted = on_deleted
        self._loop = asyncio.get_running_loop()
        self._last = secrets.randbits(40)  # requests of an earlier control server may still be on their way
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._loop.add_reader(end.fileno(), self._take)

    async def ask(self, question: Question) -> Answer:
        """The answer; Failed also when there is none in time."""
        self._last += 1
        number = self._last
        if not send(self._end, Asked(number, question)):
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
