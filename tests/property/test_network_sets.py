"""Sets of networks against sets of addresses: nothing is gained or lost."""

import ipaddress
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.allowlist import table
from fastscreen.allowlist.networks import Covered, Network, aggregated, objection
from fastscreen.allowlist.state import Entry, State
from fastscreen.config.providers import Source
from fastscreen.core import NetworkTable

# All within 8.8.8.0/24 and 2a00::/120, so that every address can be looked at.
SMALL4 = st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
    lambda each: ipaddress.IPv4Network((0x08080800 + each[0], each[1]), strict=False)
)
SMALL6 = st.tuples(st.integers(0, 255), st.integers(120, 128)).map(
    lambda each: ipaddress.IPv6Network((0x2A00 << 112 | each[0], each[1]), strict=False)
)
NETWORKS = st.lists(st.one_of(SMALL4, SMALL6), max_size=12)
EVERY = [*ipaddress.IPv4Network("8.8.8.0/24"), *ipaddress.IPv6Network("2a00::/120")]


def addresses(networks: Iterable[Network]) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return {address for network in networks for address in network}


@given(NETWORKS)
def test_aggregation_keeps_the_union_and_leaves_no_overlap(networks: list[Network]) -> None:
    after = aggregated(networks)
    assert addresses(after) == addresses(networks)
    assert sum(network.num_addresses for network in after) == len(addresses(networks))
    assert len(after) <= len(set(networks))
    assert aggregated(after) == after


@given(NETWORKS, st.lists(NETWORKS, max_size=3))
def test_what_is_outside_of_holes_is_the_difference(networks: list[Network], holes: list[list[Network]]) -> None:
    out = Covered()
    for some in holes:
        out.add(some)
    assert addresses(out.outside(networks)) == addresses(networks) - addresses(each for some in holes for each in some)


@given(NETWORKS, st.one_of(SMALL4, SMALL6))
def test_what_is_covered_lies_in_one(networks: list[Network], network: Network) -> None:
    every = Covered()
    every.add(networks)
    assert every.has(network) == any(addresses([network]) <= addresses([each]) for each in networks)


@given(st.lists(NETWORKS, min_size=1, max_size=4))
def test_the_table_permits_the_union_of_all_providers(results: list[list[Network]]) -> None:
    sources = [Source(f"p{at}", "bulk", (f"p{at}.example",)) for at in range(len(results))]
    entries = {
        source.name: Entry("bulk", source.domains, tuple(str(each) for each in aggregated(networks)), 1.0, 1.0)
        for source, networks in zip(sources, results, strict=True)
    }
    text = table.rendered(sources, State(providers=entries), table.PERMIT, 0.0)
    read = NetworkTable(text.encode(), "allowlist.cidr")
    assert not read.warnings
    wanted = addresses(network for networks in results for network in networks)
    assert {address for address in EVERY if read.lookup(str(address)) == "permit"} == wanted


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_no_private_address_gets_past_the_objections(number: int, length: int) -> None:
    network = ipaddress.IPv4Network((number, length), strict=False)
    if not objection(network):
        for address in (network.network_address, network.broadcast_address):
            assert address.is_global and not address.is_private and not address.is_multicast
