"""Networks that count as one client: a pass that is shared, connections counted together, and what is shown."""

import re
from pathlib import Path

import lmdb
import pytest

from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, TEASER, Screener, merge, wait_until
from robust.test_control import connected

BUSY = b"421 4.7.0 Error: too many connections\r\n"


def settings(folder: Path, *others: Map, workers: int = 2) -> Map:
    own: Map = {
        "control": {"path": str(folder / "run" / "control")},
        "cache": {"path": str(folder / "cache")},
        "listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers},
    }
    return merge(own, *others)


def passed(screener: Screener, source: str) -> str:
    """Visit and behave; return the word of the pass that is logged."""
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
    """Whatever the cache goes by; and those of another network are not touched."""
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


def test_a_change_waits_for_the_next_start(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(settings(folder))
    prefix = {"limits": {"client_connection_prefix_ipv4": 24}, "cache": {"prefix_ipv4": 24}}
    screener.reload(settings(folder, prefix))
    assert len(screener.lines("prefix_ipv4 or _ipv6 changed: it takes effect when fastscreen is started again")) == 2
    assert [passed(screener, f"127.1.0.{number}") for number in (1, 2)] == ["NEW", "NEW"]
