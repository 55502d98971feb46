"""Sets of networks: what is left of some without others, as few as possible, and which are too odd to be allowed."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WIDEST = {4: 8, 6: 19}
"""Bits of the widest network that is taken. Nobody was ever given more: /8 in IPv4's first years, /19 of IPv6."""
MAX_WIDEST = 2
"""How many of the widest networks a provider may have in all."""

# IANA's special-purpose registries (RFC 6890 and later), multicast, and what was never given out.
_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a provider's customers"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "reserved"),
    ("3fff::/20", "for documentation"),
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_BY_VERSION = {
    version: [(network, why) for text, why in _SPECIAL if (network := ipaddress.ip_network(text)).version == version]
    for version in (4, 6)
}


def objection(network: Network) -> str:
    """Why a network is not taken; empty: it is."""
    widest = WIDEST[network.version]
    if network.prefixlen < widest:
        return f"wider than /{widest}"
    for special, why in _BY_VERSION[network.version]:
        if network.overlaps(special):
            return why
    if isinstance(network, ipaddress.IPv6Network) and not network.subnet_of(_GLOBAL_UNICAST):
        return "not a global address"
    return ""


def parsed(texts: Iterable[str]) -> list[Network]:
    """ValueError: one of the texts is not a network."""
    return [ipaddress.ip_network(text) for text in texts]


def of_version(networks: Iterable[Network], version: int) -> list[Network]:
    return [network for network in networks if network.version == version]


def aggregated(networks: Iterable[Network]) -> list[Network]:
    """The same addresses in as few networks as possible, IPv4 first, in order."""
    every = list(networks)
    return [*_collapsed(of_version(every, 4)), *_collapsed(of_version(every, 6))]


def _collapsed(networks: list[Network]) -> list[Network]:
    """All of one version."""
    return list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


class Covered:
    """Addresses, as networks apart from each other, in order.

    Two networks are apart, or one lies in the other. To add one costs a search: a hostile record has thousands, by
    turns with those that are asked about.
    """

    def __init__(self) -> None:
        self._networks: dict[int, list[Network]] = {4: [], 6: []}
        self._firsts: dict[int, list[int]] = {4: [], 6: []}

    def add(self, networks: Iterable[Network]) -> None:
        for network in networks:
            if not self.has(network):
                every, firsts = self._networks[network.version], self._firsts[network.version]
                first = int(network.network_address)
                inside = slice(bisect_left(firsts, first), bisect_right(firsts, int(network.broadcast_address)))
                every[inside], firsts[inside] = [network], [first]

    def has(self, network: Network) -> bool:
        """Whether it lies in one that was added."""
        every, last = self._networks[network.version], int(network.broadcast_address)
        at = bisect_right(self._firsts[network.version], int(network.network_address)) - 1
        return at >= 0 and int(every[at].broadcast_address) >= last

    def outside(self, networks: Iterable[Network]) -> Iterator[Network]:
        """The parts of `networks` that are not covered, in no particular order.

        One hole can split a network into 128 networks: a caller that processes untrusted records has to set a limit.
        """
        for network in networks:
            if not self.has(network):
                yield from _pieces(network, self._networks[network.version], self._firsts[network.version])


def _pieces(network: Network, holes: list[Network], firsts: list[int]) -> Iterator[Network]:
    """holes: those inside, and others apart; in order. firsts: their first addresses."""
    first, last = int(network.network_address), int(network.broadcast_address)
    inside = holes[bisect_left(firsts, first) : bisect_right(firsts, last)]
    if not inside:
        yield network
        return
    for hole in inside:
        yield from _range(network, first, int(hole.network_address) - 1)
        first = int(hole.broadcast_address) + 1
    yield from _range(network, first, last)


def _range(like: Network, first: int, last: int) -> Iterator[Network]:
    if first > last:
        return
    kind = type(like.network_address)
    yield from ipaddress.summarize_address_range(kind(first), kind(last))


def extent(networks: Iterable[Network]) -> tuple[int, int]:
    """How much aggregated networks hold: IPv4 addresses, IPv6 networks of /64 (a host has one)."""
    ipv4 = ipv6 = 0
    for network in networks:
        if network.version == 4:
            ipv4 += 1 << (32 - network.prefixlen)
        else:
            ipv6 += 1 << max(0, 64 - network.prefixlen)
    return ipv4, ipv6


def too_much(networks: Iterable[Network]) -> bool:
    """Whether aggregated networks hold more than one provider may have, however finely they are cut."""
    ipv4, ipv6 = extent(networks)
    return ipv4 > MAX_WIDEST << (32 - WIDEST[4]) or ipv6 > MAX_WIDEST << (64 - WIDEST[6])
