"""What the hub asks a worker, one packet each way. Both ends of a pair are the supervisor's, so that they outlive both.

A question that a dead worker left is answered by its successor; the hub knows its own questions by their numbers.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

PACKET = 1 << 18  # octets: an answer may have 1000 sessions of 128
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
    """The hub's end and the worker's. Nobody ever waits at one."""
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
    """None: there is none. msgspec.MsgspecError: not a question."""
    packet = _receive(end)
    return _asked.decode(packet) if packet else None


def receive_answer(end: socket.socket) -> Answered | None:
    packet = _receive(end)
    return _answered.decode(packet) if packet else None


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(PACKET, socket.MSG_DONTWAIT)
    except OSError:
        return b""
