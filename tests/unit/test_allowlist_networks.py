"""Which networks are taken, and sums of them."""

import ipaddress

import pytest

from fastscreen.allowlist.networks import Covered, aggregated, extent, objection, of_version, parsed, too_much


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("8.8.8.0/24", ""),
        ("8.0.0.0/8", ""),
        ("8.0.0.0/7", "wider than /8"),
        ("0.0.0.0/0", "wider than /8"),
        ("10.1.2.0/24", "private"),
        ("10.0.0.0/8", "private"),
        ("172.31.255.255/32", "private"),
        ("172.32.0.0/16", ""),
        ("192.168.3.4/32", "private"),
        ("192.0.0.0/8", "reserved"),  # has private and reserved ones in it
        ("100.64.1.0/24", "shared by a provider's customers"),
        ("127.0.0.1/32", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("192.0.2.1/32", "for documentation"),
        ("198.18.0.0/16", "for benchmarks"),
        ("0.1.2.3/32", "this network"),
        ("224.0.0.0/24", "multicast"),
        ("255.255.255.255/32", "reserved"),
        ("2a00::/19", ""),
        ("2a00::/18", "wider than /19"),
        ("::/0", "wider than /19"),
        ("2001:db8::/32", "for documentation"),
        ("2001::/32", "reserved"),
        ("2001:4860:4000::/36", ""),
        ("2002:c000:204::/48", "reserved"),
        ("fe80::1/128", "not a global address"),
        ("fd00::/32", "not a global address"),
        ("::1/128", "not a global address"),
        ("::ffff:8.8.8.8/128", "not a global address"),
        ("ff02::/32", "not a global address"),
    ],
)
def test_objections(network: str, why: str) -> None:
    assert objection(ipaddress.ip_network(network)) == why


def test_aggregated_in_order() -> None:
    networks = parsed(["2a00::/33", "8.8.9.0/24", "8.8.8.0/24", "2a00:0:8000::/33", "8.8.8.7/32", "9.9.9.9/32"])
    assert [str(each) for each in aggregated(networks)] == ["8.8.8.0/23", "9.9.9.9/32", "2a00::/32"]
    assert aggregated([]) == []


@pytest.mark.parametrize(
    ("networks", "holes", "left"),
    [
        ("8.8.8.0/24", "", "8.8.8.0/24"),
        ("8.8.8.0/24", "8.8.8.0/24", ""),
        ("8.8.8.0/24", "8.8.0.0/16", ""),
        ("8.8.8.0/24", "8.8.9.0/24 2a00::/32", "8.8.8.0/24"),
        ("8.8.8.0/24", "8.8.8.0/25", "8.8.8.128/25"),
        ("8.8.8.0/24", "8.8.8.128/25", "8.8.8.0/25"),
        ("8.8.8.0/30", "8.8.8.1 8.8.8.2", "8.8.8.0/32 8.8.8.3/32"),
        ("8.8.8.0/29", "8.8.8.1 8.8.8.0/30 8.8.8.2", "8.8.8.4/30"),
        ("8.8.8.0/24", "8.8.8.128/25 8.8.8.0/25", ""),
        ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"),
        ("::/0", "8000::/1", "::/1"),
        ("2a00::/127 8.8.8.8", "2a00::1", "8.8.8.8/32 2a00::/128"),
    ],
)
def test_outside(networks: str, holes: str, left: str) -> None:
    out = Covered()
    out.add(parsed(holes.split()))
    found = aggregated(out.outside(parsed(networks.split())))
    assert " ".join(str(each) for each in found) == left


def test_covered() -> None:
    others = Covered()
    others.add(parsed(["8.8.8.0/25", "9.0.0.0/8", "8.8.8.0/24", "8.8.8.128/25"]))
    assert all(others.has(ipaddress.ip_network(text)) for text in ("8.8.8.4/30", "9.0.0.0/8"))
    assert not any(others.has(ipaddress.ip_network(text)) for text in ("8.8.8.0/23", "1.0.0.0/8", "808:800::/32"))
    assert not Covered().has(ipaddress.ip_network("8.8.8.8"))


def test_extent_counts_hosts_of_ipv6_by_their_64() -> None:
    assert extent(parsed(["8.8.8.0/24", "9.9.9.9"])) == (257, 0)
    assert extent(parsed(["2a00::/62", "2a00:1::1"])) == (0, 5)


@pytest.mark.parametrize(
    ("networks", "much"),
    [
        (["8.0.0.0/8", "9.0.0.0/8"], False),
        (["8.0.0.0/8", "9.0.0.0/8", "1.0.0.0/32"], True),
        ([f"{first}.0.0.0/9" for first in range(1, 6)], True),
        (["2a00::/19", "2b00::/19"], False),
        (["2a00::/19", "2b00::/19", "2c00::/64"], True),
    ],
)
def test_too_much(networks: list[str], much: bool) -> None:
    assert too_much(aggregated(parsed(networks))) == much


def test_of_version() -> None:
    assert [str(each) for each in of_version(parsed(["8.8.8.8", "2a00::"]), 6)] == ["2a00::/128"]
