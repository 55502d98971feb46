"""`history.mask`: addresses of clients are cut before they are written."""

from __future__ import annotations

import ipaddress
import re
import socket

from fastscreen.core import history_read

NAME_SIZE = 63
"""Bytes at the end of a packed record that may be the HELO name."""
_CANDIDATE = re.compile(rb"[0-9]\.[0-9]+\.[0-9]|:")
_IPV4 = re.compile(rb"(?<![0-9])(?<![0-9]\.)[0-9]{1,9}(?:\.[0-9]{1,9}){3}(?![0-9])")
_IPV6 = re.compile(rb"(?i)(ipv6:)?([0-9a-f:]*:[0-9a-f:]*(?:(?:\.[0-9]{1,3}){3})?)")
_MAPPED = bytes(10) + b"\xff\xff"


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
        if _CANDIDATE.search(record[-NAME_SIZE:]) is None:
            return record
        fields = history_read(0, client, record)
        if fields is None:
            return record
        name = fields[-1]
        return record[: len(record) - len(name)] + self.name(client, name)

    def name(self, client: bytes, name: bytes) -> bytes:
        """A HELO name, in which each notation of the client's address is replaced. IPv4 also within IPv6."""
        masked = self.client(client)
        if len(client) == 4:
            dotted = socket.inet_ntop(socket.AF_INET, masked).encode()
            name = _IPV4.sub(lambda found: dotted if _ipv4(found[0]) == client else found[0], name)
            client, text = _MAPPED + client, b"::ffff:" + dotted
        else:
            text = ipaddress.IPv6Address(masked).compressed.encode()

        def cut(found: re.Match[bytes]) -> bytes:
            # A colon at an end may be punctuation, as in `2001:db8::1:`.
            for each in (found[2], found[2].removesuffix(b":"), found[2].removeprefix(b":")):
                if _ipv6(each) == client:
                    return (found[1] or b"") + text
            return found[0]

        return _IPV6.sub(cut, name)[:NAME_SIZE]


def _ipv4(text: bytes) -> bytes | None:
    """Leading zeros do not matter."""
    numbers = [int(number) for number in text.split(b".")]
    return bytes(numbers) if max(numbers) < 256 else None


def _ipv6(text: bytes) -> bytes | None:
    try:
        return ipaddress.IPv6Address(text.decode()).packed
    except ValueError:
        return None
