"""A port that expects a PROXY header: the client address, trusted balancers, and wrong or missing headers."""

import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest

from bench.ports import free_port
from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, GREETING, TEASER, Client, Screener, merge, refuses, wait_until

BALANCER = "127.60.0.1"
SERVER = ("198.51.100.7", 25)
REFUSED = b"421 4.3.2 No system resources\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def settings(*, workers: int = 1, timeout: str = "5s") -> Map:
    ports = [{"addresses": ["127.9.0.9:0"], "trusted": ["127.60.0.0/16"], "timeout": timeout}]
    return {"listen": {"addresses": [f"{ADDRESS}:0"], "proxy": ports, "workers": workers}}


KNOWN: Map = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["203.0.113.0/24", "127.7.0.0/16"]}}


def proxy_port(screener: Screener) -> tuple[str, int]:
    found = re.search(r"127\.9\.0\.9:(\d+)", screener.lines(" daemon started ")[-1])
    assert found
    return ("127.9.0.9", int(found[1]))


def through(screener: Screener, header: bytes, source: str = BALANCER) -> Client:
    """Connect as the balancer and send a header."""
    client = Client(proxy_port(screener), source)
    if header:
        client.send(header)
    return client


def v1(address: str, port: int = 5000, server: tuple[str, int] = SERVER) -> bytes:
    return f"PROXY TCP4 {address} {server[0]} {port} {server[1]}\r\n".encode()


def v2(address: str, port: int = 5000, tlvs: bytes = b"\x04\x00\x02ab") -> bytes:
    ends = socket.inet_aton(address) + socket.inet_aton(SERVER[0]) + struct.pack("!HH", port, SERVER[1]) + tlvs
    return SIGNATURE + b"\x21\x11" + struct.pack("!H", len(ends)) + ends


@pytest.mark.parametrize("header", [v1, v2])
def test_the_client_is_whom_the_header_names(start: Start, mta: FakeMta, header: Callable[..., bytes]) -> None:
    """In the log, the tests and the MTA; only the bytes of the header are removed from the first packet."""
    screener = start(settings(), {"greet": {"action": "ignore"}})
    with through(screener, header("192.0.2.9", 5000) + b"EHLO early\r\n") as client:
        assert client.read() == TEASER + FROM_MTA
    screener.line(r"CONNECT from \[192\.0\.2\.9\]:5000 to \[198\.51\.100\.7\]:25$")
    screener.line(r"PREGREET 12 after .* from \[192\.0\.2\.9\]:5000: EHLO early\\r\\n$")
    wait_until(lambda: bool(mta.taken), "the MTA to take it")
    assert mta.early == [b"EHLO early\r\n"]
    assert mta.taken == [
        {
            "client_address": "192.0.2.9",
            "client_port": "5000",
            "server_address": "198.51.100.7",
            "server_port": "25",
        }
    ]
    assert not screener.lines("127.60")


def test_split_proxy_header(start: Start, mta: FakeMta) -> None:
    """Byte by byte, with other data in the last packet."""
    screener = start(settings(), KNOWN)
    for header in (v1("203.0.113.5"), v2("203.0.113.5")):
        with through(screener, b"") as client:
            for octet in header:
                assert client.silent()
                client.send(bytes([octet]))
                time.sleep(0.002)
            assert client.read() == FROM_MTA
    assert len(screener.lines("ALLOWLISTED .203.0.113.5")) == 2


def test_a_plain_port_beside_it_knows_no_header(start: Start, mta: FakeMta) -> None:
    screener = start(settings(), KNOWN)
    with Client(screener.address, "127.1.0.1") as client:
        client.send(v1("203.0.113.5"))
        assert client.socket.recv(len(TEASER)) == TEASER
        screener.line(r"PREGREET \d+ after .* from .127\.1\.0\.1.*: PROXY TCP4 203")
    with Client(screener.address, "127.7.0.1") as client:
        assert client.read() == FROM_MTA


def test_trusted_proxies(start: Start, mta: FakeMta) -> None:
    """One line, the reference's reply, and no header is read."""
    screener = start(settings(), KNOWN)
    with through(screener, b"", "127.1.0.1") as client:
        assert client.read_all() == REFUSED
        screener.line(rf"warning: haproxy read: not trusted: {client.pattern}$")
    with through(screener, v1("203.0.113.5"), "127.1.0.1") as client:
        assert client.read_all() == REFUSED
    assert not screener.lines("CONNECT|ALLOWLISTED")
    assert not mta.taken


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"EHLO x\r\n", r"short protocol header: EHLO x\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", r"unrecognized protocol header: GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (b"PROXY UNKNOWN\r\n", r"bad or missing protocol type: PROXY UNKNOWN\r\n"),
        (b"PROXY " + b"\x1b" * 530 + b"more", r"missing protocol header terminator: PROXY " + r"\033" * 470),
    ],
)
def test_a_bad_header(start: Start, data: bytes, line: str) -> None:
    screener = start(settings())
    with through(screener, data) as client:
        assert client.read_all() == REFUSED
    assert line in screener.line("warning: haproxy read: ")
    assert not screener.lines("CONNECT")


def test_a_header_that_is_cut(start: Start) -> None:
    """The connection ends early, or the header is late. Both are logged in the reference's words."""
    screener = start(settings(timeout="1s"))
    with through(screener, b"PROXY TCP4 192.0.2.1") as client:
        client.half_close()
        assert client.read_all() == REFUSED
    screener.line(r"haproxy read: missing protocol header terminator: PROXY TCP4 192\.0\.2\.1$")
    with through(screener, v2("192.0.2.1")[:20]) as client:
        client.half_close()
        assert client.read_all() == REFUSED
    screener.line("haproxy read: short version 2 protocol header: ")
    with through(screener, b"PROXY TCP4 192.0.2.1") as client:
        assert client.read_all() == REFUSED
    screener.line("haproxy read: time limit exceeded$")
    with through(screener, b"") as client:
        assert client.read_all() == REFUSED
    screener.line("haproxy read: time limit exceeded$", 2)
    assert not screener.lines("CONNECT")


def test_silent_health_checks(start: Start, mta: FakeMta) -> None:
    """What balancers do all day leaves no line: connect and leave, LOCAL and leave, LOCAL and SMTP, QUIT alone."""
    permit: Map = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.60.0.2"]}}
    screener = start(settings(), permit)
    with through(screener, b""):
        pass
    through(screener, b"").reset()
    with through(screener, LOCAL):
        pass
    through(screener, LOCAL).reset()
    for header in (v1, v2):  # as HAProxy's checks by version 1: it names itself
        with through(screener, b"") as client:
            client.send(header(*client.socket.getsockname()))
            assert client.socket.recv(len(TEASER)) == TEASER
        with through(screener, b"") as client:
            client.send(header(*client.socket.getsockname()))
    with through(screener, b"QUIT\r\n") as client:
        assert client.read_all() == b"221 2.0.0 Bye\r\n"
    with through(screener, LOCAL, "127.60.0.2") as client:
        assert client.read() == FROM_MTA
    with through(screener, LOCAL, "127.60.0.3") as client:
        assert client.read() == TEASER + FROM_MTA
    with through(screener, LOCAL, "127.60.0.4") as client:
        assert client.socket.recv(len(TEASER)) == TEASER
    with Client(screener.address, "127.1.0.1") as client:  # all of the above has happened when this is logged
        assert client.read() == TEASER + FROM_MTA
    lines = screener.lines()
    assert [line for line in lines if "127.1.0.1" not in line and "daemon started" not in line] == []


def test_a_health_check_that_says_ehlo_is_silent(start: Start, mta: FakeMta) -> None:
    """Though its address is in discard_ehlo_keyword_address_maps: that is a line for each EHLO of others."""
    engine = {"discard_ehlo_keyword_address_maps": ["inline:{127.60.0.1=dsn, 127.1.0.1=dsn}"]}
    screener = start(settings(), {"deep": {"pipelining": "enforce"}, "engine": engine})
    for client in (through(screener, LOCAL), Client(screener.address, "127.1.0.1")):
        with client:
            assert client.read() == TEASER + GREETING
            assert b"DSN" not in client.ask(b"EHLO x")
            assert client.ask(b"QUIT").startswith(b"221 ")
    screener.line("127.1.0.1.*: discarding EHLO keywords: DSN")
    assert not screener.lines("127.60")


def test_a_local_client_that_does_more_is_logged(start: Start, mta: FakeMta) -> None:
    """From its CONNECT on, because a mail client on the balancer's host is not a health check."""
    screener = start(settings(), {"deep": {"pipelining": "enforce"}})
    with through(screener, LOCAL) as client:
        assert client.read() == TEASER + GREETING
        assert client.ask(b"HELO x").startswith(b"250 ")
        assert not screener.lines("127.60")
        assert client.ask(b"MAIL FROM:<a@b.example>").startswith(b"250 ")
        assert client.ask(b"RCPT TO:<c@d.example>").startswith(b"450 ")
        assert client.ask(b"QUIT").startswith(b"221 ")
    screener.line("DISCONNECT .127.60.0.1")
    words = [line.partition("]: ")[2].partition(" ")[0] for line in screener.lines("127.60.0.1")]
    assert words == ["CONNECT", "NOQUEUE:", "PASS", "DISCONNECT"]


def test_waiting_headers_count(start: Start) -> None:
    """Silent ones count as clients under test, so that they cannot take all descriptors."""
    screener = start(settings(), {"limits": {"pre_queue": 10, "post_queue": 5}})
    held = [through(screener, b"PROXY ") for _ in range(10)]
    with through(screener, b"") as client:
        assert client.read_all() == b"421 4.3.2 All screening ports are busy\r\n"
    screener.line(r"reject: connect from .127\.60\.0\.1.:\d+: all screening ports busy")
    for each in held:
        assert each.silent()
        each.socket.close()


def test_known_clients_pass_when_clients_under_test_have_taken_all(start: Start, mta: FakeMta) -> None:
    """As at a plain port, though nobody knows who it is before the header is there; at once, or in pieces."""
    screener = start(settings(), KNOWN, {"limits": {"pre_queue": 10, "post_queue": 5}})
    held = [through(screener, v1(f"192.0.2.{number}")) for number in range(10)]
    for each in held:
        assert each.socket.recv(len(TEASER)) == TEASER
    for header in (v1, v2):
        with through(screener, header("203.0.113.5")) as client:
            assert client.read() == FROM_MTA
        with through(screener, b"") as client:
            assert client.silent(0.1)
            client.send(header("203.0.113.5"))
            assert client.read() == FROM_MTA
    with through(screener, v1("192.0.2.99")) as client:
        assert client.read_all() == b"421 4.3.2 All screening ports are busy\r\n"
    silent = [through(screener, b"") for _ in range(5)]
    with through(screener, b"") as client:
        assert client.read_all() == b"421 4.3.2 All screening ports are busy\r\n"
    for each in (*held, *silent):
        each.socket.close()


def test_sigterm_lets_a_header_finish(start: Start, mta: FakeMta) -> None:
    screener = start(settings(workers=2), KNOWN)
    held = [through(screener, b"PROXY TCP4 ") for _ in range(4)]
    plain = [Client(screener.address, f"127.1.0.{number}") for number in range(1, 5)]
    for each in plain:
        assert each.socket.recv(len(TEASER)) == TEASER
    screener.signal(signal.SIGTERM)
    screener.line("stopping: clients in hand may finish")
    wait_until(lambda: refuses(proxy_port(screener), BALANCER), "nobody to be let in")
    for number, each in enumerate(held):
        each.send(f"203.0.113.{number} 198.51.100.7 5000 25\r\n".encode())
        assert each.read() == FROM_MTA
        each.socket.close()
    assert screener.wait() == 0


def test_a_port_becomes_a_balancers_at_reload(start: Start, mta: FakeMta) -> None:
    """And is one no longer; with the trusted changed meanwhile. Those who wait for a header notice nothing."""
    host = "127.9.0.1"
    port = free_port(host)
    plain: Map = {"listen": {"addresses": [f"{host}:{port}"], "workers": 2}}
    screener = start(KNOWN, plain)
    addresses = {"addresses": ["127.9.0.2:0"], "workers": 2}
    here = {"addresses": [f"{host}:{port}"], "trusted": ["127.60.0.0/16"]}
    screener.configure(merge(KNOWN, {"listen": {**plain["listen"], "proxy": [here]}}))
    screener.reload(expected="configuration not taken over: .* occurs twice")
    screener.reload(merge(KNOWN, {"listen": {**addresses, "proxy": [here]}}))
    with Client((host, port), BALANCER) as waiting:
        waiting.send(b"PROXY TCP4 203.0.113.1 ")
        other = {**here, "trusted": ["127.61.0.0/16"]}
        screener.reload(merge(KNOWN, {"listen": {**addresses, "proxy": [other]}}))
        with Client((host, port), BALANCER) as client:
            assert client.read_all() == REFUSED
        waiting.send(b"198.51.100.7 1 25\r\n")
        assert waiting.read() == FROM_MTA
    screener.reload(merge(KNOWN, plain))
    owners: dict[str, set[str]] = {}
    for number in range(60):
        source = f"127.7.0.{number % 20 + 1}"
        with Client((host, port), source) as client:
            assert client.read() == FROM_MTA
            owners.setdefault(source, set()).add(owner(screener, client.pattern))
    assert all(len(pids) == 1 for pids in owners.values())
    assert len(set.union(*owners.values())) == 2


# ---- several workers

LARGE = {"pre_queue": 2000, "post_queue": 2000, "client_connection_count": 0}


def owner(screener: Screener, pattern: str) -> str:
    """The pid of the worker that logged a client's CONNECT."""
    line = screener.line(rf"CONNECT from {pattern} ")
    return line.partition("postscreen[")[2].partition("]")[0]


def test_a_client_is_the_same_workers_at_a_balancers_port(start: Start, mta: FakeMta) -> None:
    """Split as they are on port 25, though all come from one balancer."""
    screener = start(settings(workers=2), KNOWN)
    plain, proxied = {}, {}
    for number in range(1, 61):
        source = f"127.7.0.{number}"
        with Client(screener.address, source) as client:
            assert client.read() == FROM_MTA
            plain[source] = owner(screener, client.pattern)
        with through(screener, v2(source, 40000 + number)) as client:
            assert client.read() == FROM_MTA
            proxied[source] = owner(screener, re.escape(f"[{source}]:{40000 + number}"))
    assert plain == proxied
    assert len(set(plain.values())) == 2


def test_the_connection_count_is_exact_through_a_balancer(start: Start) -> None:
    """On both ports together: the limit applies to all workers and ports."""
    screener = start(settings(workers=2), {"limits": {"client_connection_count": 3}})
    for number in range(1, 9):
        source = f"127.1.0.{number}"
        clients = [Client(screener.address, source), *(through(screener, v1(source, port)) for port in range(1, 6))]
        told = sorted(each.socket.recv(100) for each in clients)
        assert told == [TEASER] * 3 + [b"421 4.7.0 Error: too many connections\r\n"] * 3
        for each in clients:
            each.socket.close()
        screener.line(rf"DISCONNECT .{re.escape(source)}\]", 6)


def test_the_inbox_of_a_dead_worker_waits_for_its_successor(start: Start, mta: FakeMta) -> None:
    """As its port does. Nobody is lost, also when there are more than the inbox holds: those are served elsewhere."""
    screener = start(settings(workers=2), KNOWN, {"limits": LARGE})
    screener.may_lose_workers = True
    mta.start(2000)
    victim = screener.workers()[0]
    source = next(source for source in sources(screener) if source_owner(screener, source) == str(victim))
    os.kill(victim, signal.SIGSTOP)
    waiting: list[Client] = []
    # Until so many have come to the other worker that its peer's inbox is full, and it serves them itself.
    while not any(select.select([each.socket], [], [], 0)[0] for each in waiting[-20:]) and len(waiting) < 1500:
        waiting.append(through(screener, v1(source, 1000 + len(waiting))))
        if len(waiting) % 50 == 0:
            time.sleep(0.05)
    served = sum(bool(select.select([each.socket], [], [], 0)[0]) for each in waiting)
    assert 0 < served < len(waiting)
    os.kill(victim, signal.SIGKILL)
    for each in waiting:
        assert each.read() == FROM_MTA
        each.socket.close()


def sources(screener: Screener) -> list[str]:
    return [f"203.0.113.{number}" for number in range(1, 50)]


def source_owner(screener: Screener, source: str) -> str:
    with through(screener, v1(source)) as client:
        assert client.read() == FROM_MTA
    return owner(screener, re.escape(f"[{source}]:5000"))
