"""The access table. The core looks up an address that it has as bytes; here its text form is parsed first.

The table without a network shows what that reading costs.
"""

import random
from ipaddress import IPv4Address

import pytest

from bench.micro.conftest import Measure
from bench.micro.samples import addresses
from fastscreen.core import NetworkTable

COUNT = 10_000


@pytest.mark.parametrize("networks", [0, 100, 10_000, 100_000])
def test_lookup(measure: Measure, networks: int) -> None:
    """Random clients, every second one in one of the random networks of 4 to 64,000 addresses."""
    source = random.Random(networks)
    lines = []
    clients = addresses(1, COUNT)
    for _ in range(networks):
        length = source.randint(16, 30)
        network = source.getrandbits(32) >> (32 - length) << (32 - length)
        lines.append(f"{IPv4Address(network)}/{length} {source.choice(['permit', 'reject'])}\n")
    table = NetworkTable("".join(lines).encode(), "table")
    assert len(table) == networks
    assert table.warnings == []
    if lines:
        clients[::2] = [source.choice(lines).partition("/")[0] for _ in clients[::2]]
    found = measure(
        f"access table of {networks:,} networks: lookup of an address in text form",
        COUNT,
        lambda: list(map(table.lookup, clients)),
    )
    # A network's first address is found by its line, or by an earlier one.
    assert networks == 0 or None not in found[::2]
    assert networks > 0 or set(found) == {None}
