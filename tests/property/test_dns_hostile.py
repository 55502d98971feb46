"""DNS answers are parsed like dnspython does, and random bytes do no harm."""

import ipaddress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import DnsReply, dns_answer, dns_query

TTLS = st.integers(0, 2**31 - 1)
CLIENTS = st.ip_addresses()
LABELS = st.text("abcXYZ019_", min_size=1, max_size=20)
DOMAINS = st.lists(LABELS, min_size=1, max_size=8).map(".".join)
# A query, an answer that dnspython made of it, and what it says but for the order of the addresses.
Made = tuple[bytes, dns.message.Message, DnsReply]


@given(st.integers(0, 65535), CLIENTS, DOMAINS)
def test_query_is_that_of_dnspython(
    id: int, client: ipaddress.IPv4Address | ipaddress.IPv6Address, domain: str
) -> None:
    client = getattr(client, "ipv4_mapped", None) or client
    name = client.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    assert dns_query(id, str(client), domain) == dns.message.make_query(f"{name}.{domain}.", "A", id=id).to_wire()


@st.composite
def answers(draw: st.DrawFn) -> Made:
    query = dns_query(draw(st.integers(0, 65535)), str(draw(CLIENTS)), draw(DOMAINS))
    message = dns.message.make_response(dns.message.from_wire(query))
    message.set_rcode(dns.rcode.Rcode(draw(st.integers(0, 15))))
    message.flags |= draw(st.sampled_from([0, dns.flags.AA, dns.flags.RA, dns.flags.AA | dns.flags.RA | dns.flags.AD]))
    owner = message.question[0].name
    for _ in range(draw(st.integers(0, 3))):
        target = dns.name.from_text(f"{draw(LABELS)}.{draw(DOMAINS)}.")
        message.answer.append(dns.rrset.from_text(owner, draw(TTLS), "IN", "CNAME", target.to_text()))
        owner = target
    ttl = draw(TTLS)
    listed = draw(st.lists(st.ip_addresses(v=4).map(str), max_size=32, unique=True))
    if listed:
        message.answer.append(dns.rrset.from_text(owner, ttl, "IN", "A", *listed))
    soa_ttl, minimum = draw(TTLS), draw(TTLS)
    has_soa = draw(st.booleans())
    if draw(st.booleans()):
        message.authority.append(dns.rrset.from_text(f"{draw(DOMAINS)}.", draw(TTLS), "IN", "NS", f"{draw(DOMAINS)}."))
    if has_soa:
        data = f"{draw(DOMAINS)}. {draw(DOMAINS)}. 1 2 3 4 {minimum}"
        message.authority.append(dns.rrset.from_text(f"{draw(DOMAINS)}.", soa_ttl, "IN", "SOA", data))
    message.additional.append(dns.rrset.from_text("ns.example.", 1, "IN", "A", "192.0.2.1"))
    return (
        query,
        message,
        DnsReply(
            message.rcode(),
            False,
            tuple(sorted(listed)),
            ttl if listed else -1,
            soa_ttl if has_soa else -1,
            min(soa_ttl, minimum) if has_soa else -1,
        ),
    )


def harmless(packet: bytes, query: bytes) -> None:
    """Whatever it is, it is refused or read; `make fuzz` sees whether only within its bounds."""
    try:
        reply = dns_answer(packet, query)
    except ValueError as error:
        assert str(error) == "malformed DNS answer"
        return
    if reply is None:
        return
    assert packet[:2] == query[:2]
    assert packet[12 : len(query)].lower() == query[12:].lower()
    assert all(ipaddress.IPv4Address(address).packed in packet for address in reply.addresses)
    assert (reply.ttl >= 0) == bool(reply.addresses)
    assert -1 <= reply.negative_ttl <= reply.soa_ttl
    assert not reply.truncated or reply.addresses == ()


@given(answers())
def test_answer_is_read_as_it_was_made(made: Made) -> None:
    query, message, expected = made
    reply = dns_answer(message.to_wire(), query)
    assert reply is not None
    assert reply._replace(addresses=tuple(sorted(reply.addresses))) == expected


@given(answers(), st.data())
def test_mutated_answer_does_no_harm(made: Made, data: st.DataObject) -> None:
    query, message, _ = made
    mutated = bytearray(message.to_wire())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated)))
        if data.draw(st.booleans()):
            mutated[at : at + 1] = data.draw(
                st.sampled_from([b"\x00", b"\x3f", b"\x40", b"\xc0", b"\xc0\x0c", b"\xff"])
            )
        else:
            mutated[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    harmless(bytes(mutated), query)


@given(answers())
def test_every_part_of_an_answer_does_no_harm(made: Made) -> None:
    query, message, _ = made
    packet = message.to_wire()
    for size in range(len(packet)):
        harmless(packet[:size], query)


@given(CLIENTS, DOMAINS, st.binary(min_size=2, max_size=2), st.binary(max_size=300))
def test_any_records_do_no_harm(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, domain: str, counts: bytes, records: bytes
) -> None:
    query = dns_query(7, str(client), domain)
    counted = bytes([0, counts[0], 0, counts[1]])
    harmless(query[:2] + b"\x81\x80\0\1" + counted + query[10:] + records, query)


@given(st.binary(max_size=600), st.binary(max_size=300))
def test_any_octets_do_no_harm(packet: bytes, query: bytes) -> None:
    harmless(packet, query)
