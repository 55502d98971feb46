"""Networks that count as one client: a pass that is shared, connections counted together, and what is shown."""

import ipaddress
import re
from pathlib import Path

import lmdb
import pytest

from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, TEASER, Client, Screener, merge, wait_until
from robust.test_control import connected
from robust.test_proxy_port import settings as with_proxy_port
from robust.test_proxy_port import through

BUSY = b"421 4.7.0 Error: too many connections\r\n"


def settings(folder: Path, *others: Map, workers: int = 2) -> Map:
    own: Map = {
        "control": {"path": str(folder / "run" / "control")},
        "cache": {"path": str(folder / "cache")},
        "listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers},
    }
    return merge(own, *others)


def passed(screener: Screener, source: str) -> str:
    """Connect and behave; return the word of the pass that is logged."""
    with screener.connect(source) as client:
        assert client.read().endswith(FROM_MTA)
        line = screener.line(rf"PASS (NEW|OLD) {client.pattern}")
    return line.partition("PASS ")[2][:3]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_shares_one_pass(start: Start, folder: Path, mta: FakeMta, workers: int) -> None:
    screener = start(settings(folder, {"cache": {"prefix_ipv4": 24}}, workers=workers))
    assert passed(screener, "127.1.0.1") == "NEW"
    assert [passed(screener, f"127.1.0.{number}") for number in (2, 99, 254)] == ["OLD"] * 3
    assert passed(screener, "127.1.1.1") == "NEW"
    screener.stop()
    with lmdb.open(str(folder / "cache"), subdir=False, readonly=True, lock=False) as file, file.begin() as reading:
        keys = {key for key, _ in reading.cursor() if len(key) < 18}
    assert keys == {b"\x7f\x01\x00\x00\x18", b"\x7f\x01\x01\x00\x18"}
    screener = start(settings(folder, {"cache": {"prefix_ipv4": 24}}, workers=workers))
    assert passed(screener, "127.1.0.77") == "OLD"


def test_without_it_each_address_passes_for_itself(start: Start, folder: Path, mta: FakeMta) -> None:
    """Also where the file has records of networks, from other settings."""
    screener = start(settings(folder, {"cache": {"prefix_ipv4": 24}}))
    assert passed(screener, "127.1.0.1") == "NEW"
    screener.stop()
    screener = start(settings(folder))
    assert [passed(screener, f"127.1.0.{number}") for number in (0, 1, 2)] == ["NEW"] * 3


@pytest.mark.parametrize("cache", [32, 24, 16])
def test_connections_are_counted_by_network(start: Start, folder: Path, cache: int) -> None:
    """With every prefix length of the cache; other networks are not affected."""
    limits = {"client_connection_count": 3, "client_connection_prefix_ipv4": 24}
    screener = start(settings(folder, {"limits": limits, "cache": {"prefix_ipv4": cache}}))
    for network in range(4):
        clients = [screener.connect(f"127.1.{network}.{number}") for number in range(1, 7)]
        assert sorted(each.socket.recv(100) for each in clients) == [TEASER] * 3 + [BUSY] * 3
        with connected(folder / "run" / "control") as control:
            explained = control.ok("explain", address=f"127.1.{network}.200")
            assert (explained["verdict"], explained["reply"]) == ("busy", BUSY.decode().strip())
        for each in clients:
            each.socket.close()
        screener.line(rf"DISCONNECT .127\.1\.{network}\.", 6)
    with screener.connect("127.1.0.9") as client:
        assert client.socket.recv(100) == TEASER


def test_by_default_nobody_is_counted_with_a_neighbour(start: Start, folder: Path) -> None:
    screener = start(settings(folder, {"limits": {"client_connection_count": 1}}))
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 5)]
    assert [each.socket.recv(100) for each in clients] == [TEASER] * 4


def test_the_cache_shows_networks(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(settings(folder, {"cache": {"prefix_ipv4": 24, "prefix_ipv6": 48}}))
    assert passed(screener, "127.1.0.1") == "NEW"
    with connected(folder / "run" / "control") as control:
        found = control.ok("cache.get", address="127.1.0.200")
        assert found["address"] == "127.1.0.0/24"
        # As long as the first one's hand-off counts as a session, the cache is not what decides.
        wait_until(lambda: control.ok("explain", address="127.1.0.200")["verdict"] == "cached", "its session to end")
        explained = control.ok("explain", address="127.1.0.200")
        assert {"step": "cache", "text": "127.1.0.0/24: every pass is valid"} in explained["steps"]
        wait_until(lambda: control.ok("cache.list")["entries"] != [], "the pass to be written")
        assert [entry["address"] for entry in control.ok("cache.list")["entries"]] == ["127.1.0.0/24"]
        assert control.ok("cache.list", prefix="127.1.0.0/25")["entries"] == []
        assert len(control.ok("cache.list", prefix="127.1.0.0/16")["entries"]) == 1
        # What another host has learnt of clients, and of networks.
        learnt = [
            {"address": address, "stamps": found["stamps"]}
            for address in ("192.0.2.7", "198.51.100.0/24", "2001:db8:1:2::3", "2001:db8:2::/48", "2001:db8:3:4::/64")
        ]
        assert control.ok("cache.import", entries=learnt) == {"stored": 5}
        shown = [entry["address"] for entry in control.ok("cache.list")["entries"]]
        networks = ["2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48", "127.1.0.0/24", "192.0.2.0/24"]
        assert shown == [*networks, "198.51.100.0/24"]
        pages, after = [], ""
        while (page := control.ok("cache.list", after=after, limit=2))["entries"]:
            pages += [entry["address"] for entry in page["entries"]]
            after = pages[-1]
        assert pages == shown
        assert control.ok("cache.get", address="192.0.2.200")["stamps"] == found["stamps"]
        # Nobody is looked up by a network that is wider.
        wide = {"address": "10.0.0.0/16", "stamps": found["stamps"]}
        assert "10.0.0.0/16 is wider than cache.prefix_ipv4, 24" in control.error("cache.import", entries=[wide])
        # One of them is to be tested again: so are all that share its record.
        assert control.ok("cache.delete", address="127.1.0.55")["deleted"] == 1
        assert control.ok("cache.delete", prefix="2001:db8::/32")["deleted"] == 3
    assert passed(screener, "127.1.0.1") == "NEW"
    assert re.search(r"deleted 127\.1\.0\.0/24: 1 entries", "\n".join(screener.lines("deleted")))


def test_a_change_waits_for_a_restart(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(settings(folder))
    prefix = {"limits": {"client_connection_prefix_ipv4": 24}, "cache": {"prefix_ipv4": 24}}
    screener.reload(settings(folder, prefix))
    for key in ("limits.client_connection_prefix_ipv4", "cache.prefix_ipv4"):
        assert len(screener.lines(f"{key} changed: the old value stays in use")) == 1
    assert [passed(screener, f"127.1.0.{number}") for number in (1, 2)] == ["NEW", "NEW"]


def from_ipv6(screener: Screener, address: str, port: int = 5000) -> Client:
    """A client of this address, through a balancer."""
    return through(screener, f"PROXY TCP6 {address} 2001:db8::25 {port} 25\r\n".encode())


def known6(screener: Screener, address: str) -> str:
    """Connect from an IPv6 address and behave; return the word of the pass that is logged."""
    before = len(screener.lines(rf"PASS (NEW|OLD) \[{address}\]"))
    with from_ipv6(screener, address) as client:
        assert client.read().endswith(FROM_MTA)
    return screener.line(rf"PASS (NEW|OLD) \[{address}\]", before + 1).partition("PASS ")[2][:3]


def keys_in(folder: Path) -> set[bytes]:
    with lmdb.open(str(folder / "cache"), subdir=False, readonly=True, lock=False) as file, file.begin() as reading:
        return {key for key, _ in reading.cursor() if len(key) < 18}


def test_ipv6_by_64(start: Start, folder: Path, mta: FakeMta) -> None:
    """`ipv6-by-64`: by default a host's whole /64 is one client, for what it passed and for how often it connects."""
    limits = {"limits": {"client_connection_count": 2}}
    screener = start(merge(settings(folder, limits), with_proxy_port()))
    assert known6(screener, "2001:db8:1:2::1") == "NEW"
    assert [known6(screener, address) for address in ("2001:db8:1:2:3:4:5:6", "2001:db8:1:3::1")] == ["OLD", "NEW"]
    clients = [from_ipv6(screener, f"2001:db8:7:7::{host}") for host in range(1, 5)]
    assert [client.socket.recv(100) for client in clients] == [TEASER] * 2 + [BUSY] * 2
    with from_ipv6(screener, "2001:db8:7:8::1") as client:
        assert client.socket.recv(100) == TEASER
    for client in clients:
        client.socket.close()
    screener.stop()
    assert keys_in(folder) == {
        ipaddress.ip_address(network).packed + b"\x40" for network in ("2001:db8:1:2::", "2001:db8:1:3::")
    }


def test_a_denied_neighbor_does_not_make_a_known_network_new(start: Start, folder: Path, mta: FakeMta) -> None:
    """The deny list has an address, the record is of its /64: while that address has a session, others stay known."""
    (folder / "denied").write_text("2001:db8:1:2::bad reject\n")
    denied = {"access": {"list": [f"cidr:{folder / 'denied'}"], "denylist_action": "enforce"}}
    screener = start(merge(settings(folder, denied, {"greet": {"wait": "4s"}}), with_proxy_port()))
    assert known6(screener, "2001:db8:1:2::1") == "NEW"
    with from_ipv6(screener, "2001:db8:1:2::bad") as bad:
        assert bad.socket.recv(100) == TEASER
        with from_ipv6(screener, "2001:db8:1:2::2") as client:
            assert client.read() == FROM_MTA
    assert known6(screener, "2001:db8:1:2::1") == "OLD"


def test_ipv6_by_address_on_demand(start: Start, folder: Path, mta: FakeMta) -> None:
    """As postscreen does."""
    whole = {"cache": {"prefix_ipv6": 128}, "limits": {"client_connection_prefix_ipv6": 128}}
    screener = start(merge(settings(folder, whole), with_proxy_port()))
    assert [known6(screener, f"2001:db8:1:2::{host}") for host in (1, 2, 1)] == ["NEW", "NEW", "OLD"]


def test_a_cache_from_before_is_still_good(start: Start, folder: Path, mta: FakeMta) -> None:
    """Records of whole addresses: who has one is known, and `explain` and `cache` know it, too."""
    whole = {"cache": {"prefix_ipv6": 128}}
    screener = start(merge(settings(folder, whole, workers=1), with_proxy_port()))
    assert known6(screener, "2001:db8:1:2::1") == "NEW"
    screener.stop()
    assert keys_in(folder) == {ipaddress.ip_address("2001:db8:1:2::1").packed}
    screener = start(merge(settings(folder, workers=1), with_proxy_port()))
    with connected(folder / "run" / "control") as control:
        assert control.ok("explain", address="2001:db8:1:2::1")["verdict"] == "cached"
        assert control.ok("explain", address="2001:db8:1:2::2")["verdict"] == "passed"
        assert control.ok("cache.get", address="2001:db8:1:2::1")["stamps"]
    assert known6(screener, "2001:db8:1:2::1") == "OLD"
    # From here on the whole /64 has a record; to delete it deletes both.
    wait_until(lambda: known6(screener, "2001:db8:1:2::2") in ("NEW", "OLD"), "a pass of the /64")
    with connected(folder / "run" / "control") as control:
        wait_until(lambda: len(control.ok("cache.list")["entries"]) == 2, "its record to be written")
        assert control.ok("cache.delete", address="2001:db8:1:2::1")["deleted"] == 1
        assert control.ok("cache.list")["entries"] == []
    assert known6(screener, "2001:db8:1:2::1") == "NEW"


def test_ipv4_records_of_whole_addresses_are_good_for_their_network(start: Start, folder: Path, mta: FakeMta) -> None:
    """The same after `prefix_ipv4` was set."""
    screener = start(settings(folder))
    assert passed(screener, "127.1.0.1") == "NEW"
    screener.stop()
    screener = start(settings(folder, {"cache": {"prefix_ipv4": 24}}))
    assert passed(screener, "127.1.0.1") == "OLD"
