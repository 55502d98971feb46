"""Keys of the cache's records: a client's packed address or, with `cache.prefix_*`, the packed address of its network
and the prefix length in one byte. The core makes the same keys (ext/client_prefix.pyx)."""

from __future__ import annotations

import ipaddress

from fastscreen.config.model import Prefix
from fastscreen.core import cache_key_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_record(key: bytes) -> bool:
    """Whether this is the key of a client's record, and not of the cache's own data."""
    return len(key) in (4, 16) or (len(key) in (5, 17) and key[-1] < 8 * (len(key) - 1))


def shown(key: bytes) -> str:
    """`192.0.2.1` or `192.0.2.0/24`."""
    if len(key) in (4, 16):
        return str(ipaddress.ip_address(key))
    return f"{ipaddress.ip_address(key[:-1])}/{key[-1]}"


def of_network(network: Network) -> bytes:
    """The key of a network's own record."""
    packed = network.network_address.packed
    return packed if network.prefixlen == network.max_prefixlen else packed + bytes([network.prefixlen])


def of_client(network: Network, prefix: Prefix) -> bytes:
    """The key by which the clients of a network are looked up. ValueError: they have more than one."""
    bits, name = (prefix.ipv4, "ipv4") if network.version == 4 else (prefix.ipv6, "ipv6")
    if network.prefixlen < bits:
        raise ValueError(f"{network} is wider than cache.prefix_{name}, {bits}")
    return cache_key_of(str(network.network_address), prefix)


def widened(network: Network, prefix: Prefix) -> Network:
    """The network, or the one that its clients share a record with."""
    bits = prefix.ipv4 if network.version == 4 else prefix.ipv6
    return network.supernet(new_prefix=bits) if network.prefixlen > bits else network


def within(key: bytes, first: bytes, last: bytes) -> bool:
    """Whether the record is of an address from `first` to `last`, or of a network between them."""
    size = len(first)
    if len(key) == size:
        return first <= key <= last
    if len(key) != size + 1 or not is_record(key):
        return False
    base = int.from_bytes(key[:size], "big")
    top = base | (1 << 8 * size - key[size]) - 1
    return int.from_bytes(first, "big") <= base and top <= int.from_bytes(last, "big")
