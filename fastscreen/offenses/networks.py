"""Which network a record of the memory is about, and which of its members are in another network."""

from __future__ import annotations

import ipaddress

from fastscreen.core import offense_keys

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NUMBER_SIZES = {b"4": 1, b"6": 4, b"w": 2}
"""Bytes of a member's number, by the first byte of the record's key. An AS has no members."""
_KEY_SIZES = {b"4": 4, b"6": 9, b"w": 7}


def is_network_key(key: bytes) -> bool:
    """Whether this is the key of a network's record."""
    return _KEY_SIZES.get(key[:1]) == len(key)


def network_of(key: bytes) -> Network | None:
    """None: the record is about an AS."""
    match key[:1]:
        case b"4":
            return ipaddress.IPv4Network((key[1:4] + bytes(1), 24))
        case b"6":
            return ipaddress.IPv6Network((key[1:9] + bytes(8), 64))
        case b"w":
            return ipaddress.IPv6Network((key[1:7] + bytes(10), 48))
        case _:
            return None


def keys_of_client(key: bytes) -> list[bytes]:
    """The records about a client, by its key in the cache: an address, or the begin of one and the prefix length."""
    if len(key) <= 5:
        return [b"4" + key[:3]] if len(key) == 4 or key[4] >= 24 else []
    length = key[16] if len(key) == 17 else 128
    found = [b"6" + key[:8]] if length >= 64 else []
    return [*found, b"w" + key[:6]] if length >= 48 else found


def keys_around(network: Network) -> list[bytes]:
    """The records about a larger network, of which this one is a part, or about this one."""
    first = network.network_address.packed
    if network.version == 4:
        return [b"4" + first[:3]] if network.prefixlen >= 24 else []
    found = [b"6" + first[:8]] if network.prefixlen >= 64 else []
    return [*found, b"w" + first[:6]] if network.prefixlen >= 48 else found


def numbers_in(key: bytes, network: Network) -> frozenset[int]:
    """The members of a record that are in a network, which is smaller than the record's."""
    first, last = network.network_address.packed, network.broadcast_address.packed
    match key[:1]:
        case b"4":
            return frozenset(range(first[3], last[3] + 1))
        case b"w":  # a /64 that has several addresses is forgotten as a whole
            return frozenset(
                number
                for high in range(first[6], last[6] + 1)
                for low in range(first[7] if high == first[6] else 0, (last[7] if high == last[6] else 255) + 1)
                for number in (high | low << 8,)
            )
        case _:  # single addresses, since of larger networks the hashes cannot be listed
            return frozenset({offense_keys(first)[0][2]} if network.num_addresses == 1 else ())
