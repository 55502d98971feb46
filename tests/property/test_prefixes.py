"""Networks that count as one client, compared with the standard library."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fastscreen.cache import keys
from fastscreen.config.model import Prefix
from fastscreen.core import cache_key_of, worker_of

PREFIXES = some.builds(Prefix, some.integers(0, 32), some.integers(0, 128))
IPV4 = some.builds(ipaddress.IPv4Address, some.binary(min_size=4, max_size=4))
IPV6 = some.builds(ipaddress.IPv6Address, some.binary(min_size=16, max_size=16)).filter(
    lambda address: address.ipv4_mapped is None
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(address: Address, prefix: Prefix) -> Network:
    """The model: what an address is one of."""
    return ipaddress.ip_network((address, prefix.ipv4 if address.version == 4 else prefix.ipv6), strict=False)


@given(IPV4 | IPV6, PREFIXES)
def test_the_key_is_the_networks(address: Address, prefix: Prefix) -> None:
    model = network(address, prefix)
    key = cache_key_of(str(address), prefix)
    assert key == keys.of_network(model)
    assert keys.is_record(key)
    whole = model.prefixlen == model.max_prefixlen
    assert ipaddress.ip_network(keys.shown(key)) == model
    assert ("/" in keys.shown(key)) == (not whole)


@given(IPV4 | IPV6, IPV4 | IPV6, PREFIXES)
def test_two_share_a_key_just_when_they_share_a_network(one: Address, other: Address, prefix: Prefix) -> None:
    same = network(one, prefix) == network(other, prefix)
    assert (cache_key_of(str(one), prefix) == cache_key_of(str(other), prefix)) == same


@given(IPV4, some.integers(0, 32), some.integers(0, 32))
def test_neighbours_share_what_their_prefix_says(address: ipaddress.IPv4Address, bits: int, flipped: int) -> None:
    """As random addresses hardly ever do: one bit of the address is another."""
    if flipped == 32:
        return
    other = ipaddress.IPv4Address(int(address) ^ 1 << flipped)
    shared = flipped < 32 - bits
    prefix = Prefix(bits, 64)
    assert (cache_key_of(str(address), prefix) == cache_key_of(str(other), prefix)) == shared
    if shared:
        assert worker_of(str(address), 7, 0x9E3779B97F4A7C15, prefix) == worker_of(
            str(other), 7, 0x9E3779B97F4A7C15, prefix
        )


@given(IPV6, PREFIXES, some.binary(min_size=16, max_size=16), some.integers(0, 2**64 - 1))
def test_all_of_a_network_are_one_workers(
    address: ipaddress.IPv6Address, prefix: Prefix, noise: bytes, key: int
) -> None:
    """Of the /64 at the most: the kernel looks at no more of an IPv6 address."""
    bits = min(prefix.ipv6, 64)
    host = int.from_bytes(noise, "big") & (1 << 128 - bits) - 1
    other = ipaddress.IPv6Address(int(address) & ~((1 << 128 - bits) - 1) | host)
    if other.ipv4_mapped is None:
        assert worker_of(str(address), 64, key, prefix) == worker_of(str(other), 64, key, prefix)


@given(IPV4 | IPV6, PREFIXES, PREFIXES)
def test_what_lies_within_a_network(address: Address, of_record: Prefix, asked: Prefix) -> None:
    """A record is in all networks that its own is part of, and in no smaller one."""
    record, wanted = network(address, of_record), network(address, asked)
    first, last = wanted.network_address.packed, wanted.broadcast_address.packed
    assert keys.within(keys.of_network(record), first, last) == (record.prefixlen >= wanted.prefixlen)
    assert keys.widened(record, asked).prefixlen == min(record.prefixlen, wanted.prefixlen)


@given(IPV4 | IPV6, IPV4 | IPV6, PREFIXES)
def test_what_lies_elsewhere(address: Address, other: Address, prefix: Prefix) -> None:
    record, wanted = network(address, prefix), network(other, prefix)
    first, last = wanted.network_address.packed, wanted.broadcast_address.packed
    assert keys.within(keys.of_network(record), first, last) == (record == wanted)


@given(IPV4 | IPV6, PREFIXES, PREFIXES)
def test_a_networks_clients_have_one_key_or_it_is_refused(address: Address, own: Prefix, prefix: Prefix) -> None:
    named = network(address, own)
    if named.prefixlen < network(address, prefix).prefixlen:
        with pytest.raises(ValueError, match="is wider than cache"):
            keys.of_client(named, prefix)
    else:
        assert keys.of_client(named, prefix) == cache_key_of(str(address), prefix)
