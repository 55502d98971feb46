"""resolv.conf, and truncated answers asked for again over TCP from a server of the test's own."""

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from robust.fakedns import FakeDns, listed

from fastscreen.dns.health.probe import Prober, Reply
from fastscreen.dns.resolver import Answer, Nameserver, TcpResolver, askable, system_nameservers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.1\n", ["192.0.2.1:53"]),
        ("# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nnameserver\t192.0.2.1  # here\n", ["192.0.2.1:53"]),
        ("nameserver 2001:db8::1\nnameserver fe80::1%eth0\n", ["[2001:db8::1]:53", "[fe80::1%eth0]:53"]),
        ("search example.test\noptions ndots:5 rotate\nnameserver 192.0.2.1\n", ["192.0.2.1:53"]),
        ("nameserver bogus\nnameserver\nnameserver 192.0.2.300\nnameserver 192.0.2.2", ["192.0.2.2:53"]),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(9)), ["192.0.2.0:53", "192.0.2.1:53", "192.0.2.2:53"]),
        ("nameservers 192.0.2.1\n", ["127.0.0.1:53"]),
        ("nameserver 192.0.2.1\r\n\xff\xfe\n", ["192.0.2.1:53"]),
        ("", ["127.0.0.1:53"]),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str, found: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text, "latin-1")
    assert [str(nameserver) for nameserver in system_nameservers(path)] == found


def test_no_resolv_conf(tmp_path: Path) -> None:
    assert system_nameservers(tmp_path / "none") == [Nameserver("127.0.0.1", 53)]


def test_a_resolver_on_the_link() -> None:
    """c-ares expects the scope after the port; otherwise it ignored the other resolvers as well."""

    async def ask() -> Reply:
        host, _, port = server.endpoint.rpartition(":")
        prober = Prober([Nameserver("fe80::1%lo"), Nameserver("fe80::1%none"), Nameserver(host, int(port))])
        try:
            return await prober.ask("2.0.0.127.bl.test")
        finally:
            await prober.close()

    server = FakeDns({"bl.test": listed("127.0.0.2")})
    try:
        assert asyncio.run(ask()).addresses == ("127.0.0.2",)
    finally:
        server.close()


def _ask(
    respond: Callable[[dns.message.Message], dns.message.Message | None], name: str, dead_first: bool = False
) -> Answer:
    """Ask a server on TCP that answers with `respond`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                answer = respond(dns.message.from_wire(await reader.readexactly(size)))
                if answer is None:
                    break
                wire = answer.to_wire(max_size=65535)
                writer.write(struct.pack("!H", len(wire)) + wire)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def run() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        nameservers = [Nameserver("127.0.0.1", port)]
        if dead_first:
            refusing = await asyncio.start_server(serve, "127.0.0.1", 0)
            nameservers.insert(0, Nameserver("127.0.0.1", refusing.sockets[0].getsockname()[1]))
            refusing.close()
            await refusing.wait_closed()
        resolver = TcpResolver(nameservers)
        try:
            return await resolver.query_a(name)
        finally:
            await resolver.close()
            server.close()

    return asyncio.run(run())


def _listed(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    addresses = [f"127.0.0.{number}" for number in range(2, 102)]
    response.answer.append(dns.rrset.from_text_list(query.question[0].name, 300, "IN", "A", addresses))
    return response


def _absent(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.NXDOMAIN)
    return response


def _no_data(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    soa = "ns.example.test. root.example.test. 1 2 3 4 150"
    response.authority.append(dns.rrset.from_text("example.test.", 600, "IN", "SOA", soa))
    return response


def _failing(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response


@pytest.mark.parametrize("scope", ["none", "4294967296", "9" * 40])
def test_no_such_interface(scope: str) -> None:
    servers, problems = askable([Nameserver(f"fe80::1%{scope}"), Nameserver("127.0.0.1")])
    assert list(servers) == [Nameserver("127.0.0.1")]
    assert problems == [f"resolver [fe80::1%{scope}]:53 cannot be asked: No such device"]


def test_a_long_answer_comes_over_tcp() -> None:
    answer = _ask(_listed, "2.0.0.127.bl.example.test")
    assert answer.outcome == "listed"
    assert sorted(answer.addresses) == sorted(f"127.0.0.{number}" for number in range(2, 102))
    assert answer.ttl == 300


def test_the_next_resolver_is_asked() -> None:
    assert _ask(_listed, "2.0.0.127.bl.example.test", dead_first=True).outcome == "listed"


@pytest.mark.parametrize(
    ("respond", "outcome"),
    [(_absent, "not listed"), (_no_data, "not listed"), (_failing, "failed"), (lambda query: None, "failed")],
)
def test_no_answer_is_told_from_not_listed(
    respond: Callable[[dns.message.Message], dns.message.Message | None], outcome: str
) -> None:
    answer = _ask(respond, "1.0.0.127.bl.example.test")
    assert answer.outcome == outcome
    assert answer.addresses == ()


@pytest.mark.parametrize("name", ["a" * 64 + ".test", ".".join(["a" * 60] * 5)])
def test_an_impossible_name_fails(name: str) -> None:
    assert _ask(_listed, name).outcome in ("failed", "not listed")
