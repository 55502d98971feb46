"""The network of a client: its /24, or its /64 for IPv6."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton


def prefix_of(address: bytes) -> bytes | None:
    """The first 3 or 8 bytes of an address; None if the text is not an address."""
    try:
        text = address.decode("ascii")
        return inet_pton(AF_INET6, text)[:8] if ":" in text else inet_pton(AF_INET, text)[:3]
    except (OSError, UnicodeDecodeError):
        return None


def network_name(prefix: bytes) -> str:
    """A prefix as text: `192.0.2.0/24`, `2001:db8::/64`."""
    if len(prefix) == 3:
        return f"{IPv4Address(prefix + bytes(1))}/24"
    return f"{IPv6Address(prefix + bytes(8))}/64"
