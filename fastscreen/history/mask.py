"""`history.mask`: addresses of clients are cut before they are written."""

from __future__ import annotations

import ipaddress
import re
import socket

NAME_SIZE = 63
"""Bytes at the end of a packed record that may be the HELO name."""


class Mask:
    """bits: how many of an IPv4 and of an IPv6 address are kept; None: all."""

    def __init__(self, bits: tuple[int, int] | None) -> None:
        self.is_on = bits is not None
        ipv4, ipv6 = bits or (32, 128)
        self._masks = {4: (1 << 32) - (1 << 32 - ipv4), 16: (1 << 128) - (1 << 128 - ipv6)}

    def client(self, client: bytes) -> bytes:
        """The address with its last bits 0."""
        size = len(client)
        return (int.from_bytes(client) & self._masks[size]).to_bytes(size)

    def record(self, client: bytes, record: bytes) -> bytes:
        """A packed record whose HELO name does not have the client's address in full, such as `[192.0.2.1]`.

        Names that have it in other forms, such as 1.2.0.192.example, stay as they are.
        """
        name = record[-NAME_SIZE:]
        if len(client) == 4:
            text, masked = _ipv4(client), _ipv4(self.client(client))
            return record[:-NAME_SIZE] + _replaced(name, text, masked) if text in name else record
        if b":" not in name:
            return record
        for form in (_compressed, _exploded):
            name = _replaced(name, form(client), form(self.client(client)))
        return record[:-NAME_SIZE] + name


def _replaced(name: bytes, text: bytes, masked: bytes) -> bytes:
    """text: an address in lower case, which is not part of another one."""
    pattern = rb"(?i)(?:(?<![0-9a-f.:])|(?<=ipv6:))" + re.escape(text) + rb"(?![0-9a-f:])"
    return re.sub(pattern, lambda _: masked, name)[:NAME_SIZE]


def _ipv4(client: bytes) -> bytes:
    return socket.inet_ntop(socket.AF_INET, client).encode()


def _compressed(client: bytes) -> bytes:
    return ipaddress.IPv6Address(client).compressed.encode()


def _exploded(client: bytes) -> bytes:
    return ipaddress.IPv6Address(client).exploded.encode()
