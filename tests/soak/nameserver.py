"""A name server with two block lists and an allow list: `python -m soak.nameserver FOLDER`.

The file FOLDER/nameserver.mode says how it behaves: `ok`, `silent`, `servfail`, `lists-world`, `slow`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path

from soak.settings import LISTED, NAMESERVER

BLOCK_LISTS = ("bl1.test", "bl2.test")
TEST_POINT = "127.0.0.2"  # RFC 5782 section 5
SLOW_SECONDS = 1.5
_HEADER = struct.Struct("!HHHHH")


def reply(packet: bytes, mode: str) -> bytes | None:
    """The answer to a query, or None. Raises IndexError if it is not a query."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii", "replace").lower())
        at += 1 + packet[at]
    question = packet[12 : at + 5]
    kind = int.from_bytes(packet[at + 1 : at + 3], "big")
    if mode == "silent":
        return None
    if mode == "servfail":
        return packet[:2] + _HEADER.pack(0x8182, 1, 0, 0, 0) + question
    if kind == 1 and is_listed(".".join(reversed(labels[:-2])), ".".join(labels[-2:]), mode):
        answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 300, 4) + bytes((127, 0, 0, 2))
        return packet[:2] + _HEADER.pack(0x8180, 1, 1, 0, 0) + question + answer
    soa = b"\0\0" + struct.pack("!IIIII", 1, 2, 3, 4, 60)
    authority = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 60, len(soa)) + soa
    return packet[:2] + _HEADER.pack(0x8183 if kind == 1 else 0x8180, 1, 0, 1, 0) + question + authority


def is_listed(address: str, zone: str, mode: str) -> bool:
    if zone in BLOCK_LISTS:
        return (
            address == TEST_POINT or address.startswith(f"{LISTED}.") or (mode == "lists-world" and zone == "bl1.test")
        )
    return zone == "wl.test" and address == TEST_POINT


def serve(folder: Path) -> None:
    """Until it is killed."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.bind((NAMESERVER, 53))
    udp.settimeout(0.05)
    late: deque[tuple[float, bytes, tuple[str, int]]] = deque()
    mode, looked = "ok", 0.0
    while True:
        with contextlib.suppress(OSError, IndexError):
            packet, client = udp.recvfrom(4096)
            answer = reply(packet, mode)
            if answer is not None and mode == "slow":
                late.append((time.monotonic() + SLOW_SECONDS, answer, client))
            elif answer is not None:
                udp.sendto(answer, client)
        while late and late[0][0] <= time.monotonic():
            _, answer, client = late.popleft()
            udp.sendto(answer, client)
        if time.monotonic() > looked + 0.1:
            looked = time.monotonic()
            with contextlib.suppress(OSError):
                mode = (folder / "nameserver.mode").read_text().strip() or "ok"


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
