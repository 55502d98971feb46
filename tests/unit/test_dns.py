"""DNS questions and answers: made by hand where dnspython refuses to make them, by dnspython elsewhere."""

import struct

import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest

from fastscreen.core import DnsReply, dns_answer, dns_query

QUERY = dns_query(0x1234, "192.0.2.99", "bl.example")
NAME = "99.2.0.192.bl.example."
TO_QUESTION = b"\xc0\x0c"  # a pointer to the question's name


def record(kind: int, data: bytes, ttl: int = 300, name: bytes = TO_QUESTION, klass: int = 1) -> bytes:
    return name + struct.pack("!HHIH", kind, klass, ttl, len(data)) + data


def address(text: str, ttl: int = 300, name: bytes = TO_QUESTION) -> bytes:
    return record(1, bytes(int(octet) for octet in text.split(".")), ttl, name)


def soa(ttl: int, minimum: int, names: bytes = b"\x02ns\xc0\x17\x00") -> bytes:
    return record(6, names + struct.pack("!5I", 1, 2, 3, 4, minimum), ttl)


def packet(
    *records: bytes, answers: int | None = None, authorities: int = 0, flags: int = 0x8180, query: bytes = QUERY
) -> bytes:
    """Build an answer. answers, authorities: the counts in the header; by default all records are answers."""
    if answers is None:
        answers = len(records) - authorities
    return query[:2] + struct.pack("!5H", flags, 1, answers, authorities, 0) + query[12:] + b"".join(records)


def decoded(answer: bytes) -> DnsReply:
    reply = dns_answer(answer, QUERY)
    assert reply is not None
    return reply


# ---- questions


@pytest.mark.parametrize(
    ("client", "reversed_name"),
    [
        ("192.0.2.99", "99.2.0.192"),
        ("255.100.10.0", "0.10.100.255"),
        ("9.99.109.200", "200.109.99.9"),
        ("::ffff:192.0.2.1", "1.2.0.192"),
        ("2001:db8::567:89ab", "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"),
    ],
)
def test_query_as_dnspython_reads_it(client: str, reversed_name: str) -> None:
    message = dns.message.from_wire(dns_query(0xBEEF, client, "Some-List_1.example.org."))
    assert message.id == 0xBEEF
    assert message.flags == dns.flags.RD
    [question] = message.question
    assert str(question.name) == f"{reversed_name}.Some-List_1.example.org."
    assert (question.rdtype, question.rdclass) == (dns.rdatatype.A, dns.rdataclass.IN)


def test_longest_domain_of_a_list() -> None:
    domain = ".".join(["a" * 63, "b" * 63, "c" * 61])
    assert len(domain) == 189
    message = dns.message.from_wire(dns_query(1, "2001:db8::1", domain))
    assert len(message.question[0].name.to_wire() or b"") == 255
    with pytest.raises(ValueError, match="is too long for a DNS list: at most 189 characters"):
        dns_query(1, "192.0.2.1", f"{domain}c")


@pytest.mark.parametrize(
    "domain", ["", ".", "bl..example", ".example", "bl example", "bl.ex\0mple", "bl.exämple", "-", "bl.-example"]
)
def test_domain_that_is_no_name(domain: str) -> None:
    with pytest.raises(ValueError, match="is not a DNS name"):
        dns_query(1, "192.0.2.1", domain)


def test_label_of_64_characters() -> None:
    with pytest.raises(ValueError, match="a label is longer than 63 characters"):
        dns_query(1, "192.0.2.1", f"{'a' * 64}.example")


def test_arguments_out_of_range() -> None:
    with pytest.raises(OverflowError):
        dns_query(65536, "192.0.2.1", "bl.example")
    with pytest.raises(ValueError, match="is not an IPv4 or IPv6 address"):
        dns_query(1, "192.0.2", "bl.example")


# ---- answers


def test_addresses_and_the_smallest_ttl() -> None:
    reply = decoded(packet(address("127.0.0.2", 600), address("127.0.0.10", 120), address("127.0.0.4", 3600)))
    assert reply == DnsReply(0, False, ("127.0.0.2", "127.0.0.10", "127.0.0.4"), 120, -1, -1)


def test_not_listed_is_kept_by_rfc_2308() -> None:
    reply = decoded(packet(soa(900, 150), soa(600, 3600), authorities=2, flags=0x8183))
    assert reply == DnsReply(3, False, (), -1, 600, 150)
    assert decoded(packet(flags=0x8183)).negative_ttl == -1


def test_negative_ttl_is_bounded_by_that_of_the_soa() -> None:
    assert decoded(packet(soa(60, 3600), authorities=1)).negative_ttl == 60


def test_soa_outside_the_authority_section_does_not_count() -> None:
    reply = decoded(packet(soa(60, 60), address("127.0.0.2"), authorities=0))
    assert (reply.addresses, reply.soa_ttl) == (("127.0.0.2",), -1)


def test_addresses_outside_the_answer_section_do_not_count() -> None:
    reply = decoded(packet(soa(60, 60), address("127.0.0.2"), authorities=2))
    assert (reply.addresses, reply.ttl) == ((), -1)


def test_aliases_are_followed_to_their_end() -> None:
    alias = record(5, b"\x05other\xc0\x17", ttl=5)
    target = struct.pack("!H", 0xC000 | len(packet()) + 12)
    reply = decoded(packet(alias, address("127.0.0.2", 60, name=target)))
    assert (reply.addresses, reply.ttl) == (("127.0.0.2",), 60)


def test_chain_of_aliases_is_bounded() -> None:
    alias = record(5, b"\x05other\xc0\x17")
    assert decoded(packet(*[alias] * 10, address("127.0.0.2"))).addresses == ("127.0.0.2",)
    with pytest.raises(ValueError, match="malformed"):
        dns_answer(packet(*[alias] * 11, address("127.0.0.2")), QUERY)


def test_other_types_and_classes_are_stepped_over() -> None:
    chaos = record(1, b"\x7f\0\0\x09", klass=3)
    text = record(16, b"\x03abc")
    assert decoded(packet(text, chaos, address("127.0.0.2"))).addresses == ("127.0.0.2",)


def test_no_more_than_32_addresses_are_kept() -> None:
    reply = decoded(packet(*[address(f"127.0.1.{at}", 400 - at) for at in range(40)]))
    assert reply.addresses == tuple(f"127.0.1.{at}" for at in range(32))
    assert reply.ttl == 361


def test_ttl_with_the_top_bit_is_zero() -> None:
    assert decoded(packet(address("127.0.0.2", 0x80000001))).ttl == 0
    assert decoded(packet(address("127.0.0.2", 0x7FFFFFFF))).ttl == 0x7FFFFFFF
    assert decoded(packet(soa(0x80000000, 5), authorities=1)).soa_ttl == 0
    assert decoded(packet(soa(5, 0xFFFFFFFF), authorities=1)).negative_ttl == 0


def test_case_of_the_name_does_not_matter() -> None:
    answer = bytearray(packet(address("127.0.0.2")))
    answer[12 : len(QUERY) - 4] = answer[12 : len(QUERY) - 4].upper()
    assert decoded(bytes(answer)).addresses == ("127.0.0.2",)


@pytest.mark.parametrize("rcode", range(16))
def test_rcode(rcode: int) -> None:
    assert decoded(packet(flags=0x8180 | rcode)).rcode == rcode


def test_truncated_answer_is_not_read() -> None:
    whole = packet(address("127.0.0.2"), address("127.0.0.3"), flags=0x8380)
    for size in range(len(QUERY), len(whole) + 1):
        assert decoded(whole[:size]) == DnsReply(0, True, (), -1, -1, -1)


def test_dnspython_answer_with_compression() -> None:
    query = dns.message.from_wire(QUERY)
    message = dns.message.make_response(query, recursion_available=True)
    message.answer.append(dns.rrset.from_text(NAME, 30, "IN", "CNAME", "real.bl.example."))
    message.answer.append(dns.rrset.from_text("real.bl.example.", 20, "IN", "A", "127.0.0.2"))
    message.authority.append(dns.rrset.from_text("bl.example.", 70, "IN", "NS", "ns.bl.example."))
    message.authority.append(
        dns.rrset.from_text("bl.example.", 80, "IN", "SOA", "ns.bl.example. hostmaster.bl.example. 1 2 3 4 50")
    )
    message.additional.append(dns.rrset.from_text("ns.bl.example.", 1, "IN", "A", "192.0.2.1"))
    assert decoded(message.to_wire()) == DnsReply(0, False, ("127.0.0.2",), 20, 80, 50)


# ---- not ours: ignored, because the true answer may still come

ANSWER = packet(address("127.0.0.2"))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(ANSWER[:11], id="part of a header"),
        pytest.param(QUERY, id="our own query"),
        pytest.param(b"\x12\x35" + ANSWER[2:], id="wrong id"),
        pytest.param(ANSWER[:2] + b"\x89\x80" + ANSWER[4:], id="opcode IQUERY"),
        pytest.param(ANSWER[:4] + b"\0\0" + ANSWER[6:], id="no question"),
        pytest.param(ANSWER[:4] + b"\0\2" + ANSWER[6:], id="two questions"),
        pytest.param(ANSWER[: len(QUERY) - 1], id="part of a question"),
        pytest.param(ANSWER.replace(b"\x0299", b"\x0298", 1), id="another client"),
        pytest.param(ANSWER.replace(b"\x07example", b"\x07examplf", 1), id="another domain"),
        pytest.param(ANSWER.replace(b"\x02bl\x07", b"\x02bl'", 1), id="another length"),
        pytest.param(ANSWER.replace(b"\0\0\1\0\1", b"\0\0\x10\0\1", 1), id="another type"),
        pytest.param(ANSWER.replace(b"\0\0\1\0\1", b"\0\0\1\0\3", 1), id="another class"),
        pytest.param(ANSWER.replace(b"\x0299", b"\xc0\x0c\0", 1), id="a loop in the question"),
    ],
)
def test_not_ours(answer: bytes) -> None:
    assert dns_answer(answer, QUERY) is None


def test_no_query_no_answer() -> None:
    assert dns_answer(ANSWER, b"") is None
    assert dns_answer(ANSWER, ANSWER[:12]) is None


# ---- malformed: ours, but of no use

HERE = len(QUERY)  # where the first record begins


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ANSWER[:-1], id="truncated data"),
        pytest.param(ANSWER[:-5], id="truncated record"),
        pytest.param(packet(answers=1), id="no record"),
        pytest.param(packet(answers=65535, authorities=65535), id="no records, all counted"),
        pytest.param(packet(ANSWER[HERE:], answers=2), id="one record too few"),
        pytest.param(packet(record(1, b"\x7f\0\0")), id="address of 3 bytes"),
        pytest.param(packet(record(1, b"\x7f\0\0\2\0")), id="address of 5 bytes"),
        pytest.param(packet(record(1, b"")), id="empty address"),
        pytest.param(packet(address("127.0.0.2", name=struct.pack("!H", 0xC000 | HERE))), id="pointer to itself"),
        pytest.param(packet(address("127.0.0.2", name=b"\1a" + struct.pack("!H", 0xC000 | HERE))), id="loop"),
        pytest.param(packet(address("127.0.0.2", name=b"\xff\xff")), id="pointer past the end"),
        pytest.param(packet(address("127.0.0.2", name=b"\xc0\x04")), id="pointer into the header"),
        pytest.param(packet(address("127.0.0.2", name=struct.pack("!H", 0xC000 | HERE + 4))), id="pointer forward"),
        pytest.param(packet(b"\xc0"), id="half a pointer"),
        pytest.param(packet(address("127.0.0.2", name=b"\x41" + b"a" * 65 + b"\0")), id="label type 01"),
        pytest.param(packet(address("127.0.0.2", name=b"\x81" + b"a" * 65 + b"\0")), id="label type 10"),
        pytest.param(packet(address("127.0.0.2", name=(b"\x3f" + b"a" * 63) * 4 + b"\0")), id="name of 257 bytes"),
        pytest.param(packet(b"\x3f" + b"a" * 20), id="label past the end"),
        pytest.param(packet(record(6, b"\0\0" + b"\0" * 19), authorities=1), id="SOA too short"),
        pytest.param(packet(record(6, b"\0\0" + b"\0" * 21), authorities=1), id="SOA too long"),
        pytest.param(packet(record(6, b"\0"), authorities=1), id="SOA of one name"),
        pytest.param(packet(record(6, b""), b"\0" * 30, answers=0, authorities=1), id="SOA that runs past its data"),
        pytest.param(packet(soa(1, 1, names=b"\x01a\xff\xff\0"), authorities=1), id="SOA with a wild pointer"),
    ],
)
def test_malformed(answer: bytes) -> None:
    with pytest.raises(ValueError, match="malformed DNS answer"):
        dns_answer(answer, QUERY)


def test_longest_name_in_an_answer() -> None:
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(name) == 255
    assert decoded(packet(address("127.0.0.2", name=name))).addresses == ("127.0.0.2",)


def test_packet_of_64_kilobytes() -> None:
    smallest = address("127.0.0.2", name=b"\0")
    count = (65535 - len(packet())) // len(smallest)
    whole = packet(*[smallest] * count)
    whole += b"\xff" * (65535 - len(whole))
    assert decoded(whole).addresses == ("127.0.0.2",) * 32
    with pytest.raises(ValueError, match="malformed"):
        dns_answer(whole[:6] + b"\xff\xff" + whole[8:], QUERY)
    with pytest.raises(ValueError, match="malformed"):
        dns_answer(packet(answers=1).ljust(65535, b"\xc0"), QUERY)
