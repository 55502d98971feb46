"""limits.client_connection_rate and limits.client_network_rate: how many connections count, whose, and for how long."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen import core
from fastscreen.cache.stamps import pack_stamps
from fastscreen.screening import policy
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import FakeDns, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, TEASER, Screener, merge, wait_until
from robust.inprocess import Core
from robust.test_control import connected
from robust.test_metrics import samples, scraped
from robust.test_proxy_port import LOCAL, through
from robust.test_proxy_port import settings as with_proxy_port

TOO_MANY = b"421 4.7.0 Error: too many connections\r\n"


def limits(folder: Path, *, workers: int = 1, **rates: int) -> Map:
    return {
        "control": {"path": str(folder / "run" / "control")},
        "cache": {"path": str(folder / "cache")},
        "listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers},
        "limits": {"client_connection_count": 0, **rates},
    }


def first_word(screener: Screener, source: str) -> bytes:
    with screener.connect(source) as client:
        return client.socket.recv(100)


def test_a_client_beyond_its_rate(start: Start, folder: Path, mta: FakeMta) -> None:
    """One line and one event each, as for other limits. Other clients and permitted clients are not affected."""
    place = str(folder / "run" / "metrics")
    allowed = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
    screener = start(limits(folder, client_connection_rate=3), allowed, {"metrics": {"listen": f"unix:{place}"}})
    with connected(folder / "run" / "control") as control:
        assert control.ok("explain", address="127.1.0.1")["verdict"] == "passed"
        assert [first_word(screener, "127.1.0.1") for _ in range(3)] == [TEASER] * 3

        def explained() -> Map:
            found: Map = control.ok("explain", address="127.1.0.1")
            return found

        wait_until(lambda: explained()["verdict"] == "busy", "the control server to ask the worker again")
        assert explained()["reply"] == TOO_MANY.decode().strip()
        text = "rejected: 3 connections within a minute, and limits.client_connection_rate is 3"
        assert text in str(explained()["steps"])
        assert [first_word(screener, "127.1.0.1") for _ in range(2)] == [TOO_MANY] * 2
        assert first_word(screener, "127.1.0.2") == TEASER
        assert [first_word(screener, "127.7.0.1") for _ in range(5)] == [FROM_MTA] * 5
        assert control.ok("status")["counts"]["busy"] == 2
    screener.line(r"NOQUEUE: reject: CONNECT from \[127\.1\.0\.1\]:\d+: connection rate limit exceeded$", 2)
    counted = samples(scraped(place))
    busy = {name: value for (what, name), value in counted.items() if what == "fastscreen_connects_rejected_total"}
    assert busy["connection_rate"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_network_beyond_its_rate(start: Start, folder: Path, workers: int) -> None:
    """From any of its addresses. With several workers, one worker serves the network."""
    screener = start(limits(folder, workers=workers, client_network_rate=4))
    for network in range(3):
        words = [first_word(screener, f"127.1.{network}.{host}") for host in range(1, 8)]
        assert words == [TEASER] * 4 + [TOO_MANY] * 3


def test_a_known_client_has_no_rate(start: Start, folder: Path, mta: FakeMta) -> None:
    """The MTA has its own limits for clients that are handed off."""
    screener = start(limits(folder, client_connection_rate=1, client_network_rate=1), {"greet": {"wait": "1s"}})
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    assert [first_word(screener, "127.1.0.1") for _ in range(5)] == [FROM_MTA] * 5
    assert first_word(screener, "127.1.0.2") == TOO_MANY


def test_off_by_default(start: Start, folder: Path) -> None:
    screener = start(limits(folder))
    assert {first_word(screener, "127.1.0.1") for _ in range(80)} == {TEASER}


def test_shadow_mode(start: Start, folder: Path) -> None:
    screener = start(limits(folder, client_connection_rate=1), {"mode": "shadow"})
    assert [first_word(screener, "127.1.0.1") for _ in range(2)] == [TEASER] * 2
    screener.line(r"SHADOW from \[127\.1\.0\.1\]:\d+: would have replied: 421 4\.7\.0 Error: too many connections$")


def test_ipv6_by_64_and_48(start: Start, folder: Path) -> None:
    """A client is a /64, as for the count of connections; a network is a /48."""
    screener = start(merge(limits(folder, client_connection_rate=2, client_network_rate=5), with_proxy_port()))

    def word(address: str) -> bytes:
        with through(screener, f"PROXY TCP6 {address} 2001:db8::25 5000 25\r\n".encode()) as client:
            return client.socket.recv(100)

    assert [word(f"2001:db8:1:1::{host:x}") for host in range(1, 5)] == [TEASER] * 2 + [TOO_MANY] * 2
    assert [word(f"2001:db8:1:{net:x}::1") for net in range(2, 5)] == [TEASER, TOO_MANY, TOO_MANY]
    assert word("2001:db8:2:1::1") == TEASER


def test_switched_by_a_reload(start: Start, folder: Path) -> None:
    """With several workers a network's rate waits for a restart: it decides who serves a client."""
    screener = start(limits(folder, workers=2))
    screener.reload(limits(folder, workers=2, client_connection_rate=1, client_network_rate=1))
    assert screener.lines("limits.client_network_rate changed: the old value stays in use")
    assert [first_word(screener, "127.1.0.1") for _ in range(2)] == [TEASER, TOO_MANY]
    assert first_word(screener, "127.1.0.2") == TEASER


@pytest.fixture
def short(folder: Path, dns: FakeDns, mta: FakeMta, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    """A core in which the minute of the rate limit lasts one second."""
    dns.zones["bl.test"] = silent
    monkeypatch.setattr(policy, "Policy", functools.partial(core.Policy, rate_time=1))
    made = Core(folder, dns, settings="client_connection_rate = 2\nclient_network_rate = 3\n", wait="30s")
    yield made
    made.close()


def test_the_minute_ends(short: Core) -> None:
    """It begins with the first connection, and is not extended by rejected ones."""
    refused: list[int] = []

    def accepted() -> bool:
        short.hold(["127.1.0.1"])
        refused.append(short.screener.rates_of("127.1.0.1")[0])
        return refused[-1] < max(refused)

    assert short.screener.rates_of("127.1.0.1") == (0, 0)
    short.serve(accepted, "the end of the minute")
    assert max(refused) > 2
    assert short.screener.rates_of("127.1.0.1")[0] == 1
    short.serve(lambda: short.screener.rates_of("127.1.0.1") == (0, 0), "the records to go")


def test_the_cache_is_asked_first(short: Core) -> None:
    short.stored[bytes([127, 1, 0, 1])] = pack_stamps((2**31,) * 5)
    for _ in range(5):
        assert short.told("127.1.0.1") == FROM_MTA.strip()
    assert short.screener.rates_of("127.1.0.1") == (0, 0)
    assert short.told_to(short.hold(["127.1.0.2"] * 3)[2]) == TOO_MANY.strip()


def test_a_balancers_own_checks_do_not_count(start: Start, folder: Path, mta: FakeMta) -> None:
    """They all come from one address. If they were rejected, the balancer would disable every server."""
    screener = start(merge(limits(folder, client_connection_rate=2), with_proxy_port()))
    for _ in range(5):
        with through(screener, LOCAL) as check:
            assert check.socket.recv(100) == TEASER
