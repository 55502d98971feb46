"""DNS packets: the core's own code for them, called through Python, which makes an object of each packet."""

import struct
from itertools import repeat

from bench.micro.conftest import Measure
from bench.micro.samples import addresses
from fastscreen.core import dns_answer, dns_query

COUNT = 1_000
ZONE = "zen.dnsbl.example.org"
HEADER = struct.Struct("!6H")
RECORD = struct.Struct("!HHHIH")  # with a pointer for its name
NAME_AT = 0xC000 | HEADER.size


def _queries() -> list[bytes]:
    return list(map(dns_query, range(COUNT), addresses(2, COUNT), repeat(ZONE)))


def _listed(query: bytes) -> bytes:
    """The answer 127.0.0.2 (RFC 1035 4.1; RFC 5782 2.1)."""
    number = HEADER.unpack_from(query)[0]
    record = RECORD.pack(NAME_AT, 1, 1, 300, 4) + bytes([127, 0, 0, 2])
    return HEADER.pack(number, 0x8180, 1, 1, 0, 0) + query[HEADER.size :] + record


def _not_listed(query: bytes) -> bytes:
    """NXDOMAIN, with the SOA that says how long it is valid (RFC 2308 3)."""
    number = HEADER.unpack_from(query)[0]
    data = b"\2ns\0" + b"\4root\0" + struct.pack("!5I", 1, 3600, 600, 86400, 150)
    record = RECORD.pack(NAME_AT, 6, 1, 900, len(data)) + data
    return HEADER.pack(number, 0x8183, 1, 0, 1, 0) + query[HEADER.size :] + record


def test_encode(measure: Measure) -> None:
    clients = addresses(2, COUNT)
    queries = measure(
        "DNS: building a query from an address in text form",
        COUNT,
        lambda: list(map(dns_query, range(COUNT), clients, repeat(ZONE))),
    )
    assert len(set(queries)) == COUNT


def test_decode_listed(measure: Measure) -> None:
    queries = _queries()
    answers = list(map(_listed, queries))
    replies = measure("DNS: parsing an answer, listed", COUNT, lambda: list(map(dns_answer, answers, queries)))
    assert all(reply is not None and reply.addresses == ("127.0.0.2",) and reply.ttl == 300 for reply in replies)


def test_decode_not_listed(measure: Measure) -> None:
    queries = _queries()
    answers = list(map(_not_listed, queries))
    replies = measure("DNS: parsing an answer, not listed", COUNT, lambda: list(map(dns_answer, answers, queries)))
    assert all(reply is not None and reply.rcode == 3 and reply.negative_ttl == 150 for reply in replies)
