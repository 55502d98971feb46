"""Pairs of packet sockets between processes, and numbered requests and answers over them, one packet each.

The supervisor holds the ends, so that they outlive the processes: a request that one process left is answered by its
successor, and a caller recognizes the answers to its own requests by their numbers.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import Any, TypeVar

import msgspec

Packet = TypeVar("Packet")


def pair(buffer: int) -> tuple[socket.socket, socket.socket]:
    """Two connected ends that do not block. buffer: bytes that may be on their way."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return ends


def send(end: socket.socket, packet: tuple[int, Any]) -> bool:
    """Send a request or an answer. False: the other end takes nothing now."""
    with contextlib.suppress(OSError):
        end.send(msgspec.msgpack.encode(packet), socket.MSG_DONTWAIT)
        return True
    return False


def receive(end: socket.socket, decoder: msgspec.msgpack.Decoder[Packet], size: int) -> Packet | None:
    """Receive a packet of at most `size` bytes. None: nothing to read. EOFError: the other end is closed.

    msgspec.MsgspecError: something else.
    """
    try:
        packet = end.recv(size, socket.MSG_DONTWAIT)
    except OSError:
        return None
    if not packet:
        raise EOFError
    return decoder.decode(packet)


def first_number() -> int:
    """Where a process begins to number its requests: an answer to a predecessor's has another number."""
    return secrets.randbits(40)
