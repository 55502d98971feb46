"""Packets with descriptors through Unix sockets. `socket.send_fds` and `socket.recv_fds` ignore their flags."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence


def send(end: socket.socket, packet: bytes, descriptors: Sequence[int] = (), flags: int = 0) -> None:
    """Send one packet. OSError; BlockingIOError: with MSG_DONTWAIT, the socket is full."""
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    end.sendmsg([packet], passed, flags)


def receive(end: socket.socket, size: int, most: int, flags: int = 0) -> tuple[bytes, list[int], int]:
    """A packet, its descriptors (at most `most`, closed at exec), and the flags that the kernel returned. OSError."""
    found = array.array("i")
    packet, ancillary, returned, _ = end.recvmsg(
        size, socket.CMSG_SPACE(most * found.itemsize), flags | socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return packet, list(found), returned
