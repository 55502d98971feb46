"""The demo's name server, over UDP. It answers A queries for `1.0.50.127.LIST`, and PTR and A queries for clients."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Sequence

from fastscreen.demo import names
from fastscreen.demo.lists import List, Reply

_HEAD = struct.Struct("!6H")  # RFC 1035 4.1.1
_A, _PTR, _IN = 1, 12, 1
_ANSWER, _NO_SUCH_NAME = 0x8180, 0x8183
_TTL = 120  # s


class NameServer(asyncio.DatagramProtocol):
    """A name server for the demo's lists and clients."""

    def __init__(self, lists: Sequence[List]) -> None:
        self._rules = {each.domain: each.rule for each in lists}
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> int:
        """Listen on a free port of 127.0.0.1, and return it."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._transport = transport
        port: int = transport.get_extra_info("sockname")[1]
        return port

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query."""
        question = read_question(data)
        if question is None:
            return
        name, end, kind = question
        if kind == _PTR:
            self._send(pointer(data, end, names.pointer_of(name)), addr)
            return
        reply = self._reply(name)
        if reply is None:
            return
        packet = answer(data, end, reply)
        asyncio.get_running_loop().call_later(reply.delay, self._send, packet, addr)

    def _reply(self, name: str) -> Reply | None:
        """The answer; None if the list does not answer, or the name is unknown."""
        host = names.address(name)
        if host is not None:
            return Reply((host,))
        labels = name.split(".")
        rule = self._rules.get(".".join(labels[4:]))
        if rule is None:
            return None
        return rule(".".join(reversed(labels[:4])))

    def _send(self, packet: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(packet, addr)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def read_question(packet: bytes) -> tuple[str, int, int] | None:
    """The name in lower case, the end of the question, and the record type; None if it is not a query for A or PTR."""
    if len(packet) < _HEAD.size or _HEAD.unpack_from(packet)[2] != 1 or packet[2] & 0x80:
        return None
    labels = []
    at = _HEAD.size
    while at < len(packet) and (length := packet[at]):
        if length > 63 or at + 1 + length >= len(packet):
            return None
        labels.append(packet[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    for kind in (_A, _PTR):
        if packet[at + 1 : at + 5] == struct.pack("!HH", kind, _IN):
            return ".".join(labels), at + 5, kind
    return None


def pointer(packet: bytes, end: int, name: str | None) -> bytes:
    """The answer to a PTR query: `name`, or that the name does not exist."""
    if name is None:
        return answer(packet, end, Reply(()))
    data = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    record = b"\xc0\x0c" + struct.pack("!HHIH", _PTR, _IN, _TTL, len(data)) + data
    return packet[:2] + struct.pack("!5H", _ANSWER, 1, 1, 0, 0) + packet[_HEAD.size : end] + record


def answer(packet: bytes, end: int, reply: Reply) -> bytes:
    """The answer to the query in `packet`."""
    if reply.addresses:
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, _TTL, 4) + ipaddress.IPv4Address(each).packed
            for each in reply.addresses
        )
        counts, flags = (1, len(reply.addresses), 0, 0), _ANSWER
    else:  # the SOA record defines how long the negative answer is valid (RFC 2308)
        soa = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, _TTL)
        records = b"\0" + struct.pack("!HHIH", 6, _IN, _TTL, len(soa)) + soa
        counts, flags = (1, 0, 1, 0), _NO_SUCH_NAME
    return packet[:2] + struct.pack("!5H", flags, *counts) + packet[_HEAD.size : end] + records
