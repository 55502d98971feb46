"""The core of fastscreen, from accept to verdict and hand-off (Cython; see ext/)."""

from typing import NamedTuple, final

@final
class NetworkTable:
    """A compiled table of networks in Postfix's CIDR form, cidr_table(5): the first rule that matches, in file order.

    text: the table. Rules are `ADDRESS RESULT` or `NETWORK/LENGTH RESULT` (brackets around the address are allowed),
    `!` before the pattern negates it, `if PATTERN` ... `endif` nest up to 32 deep. An IPv4 pattern never matches an
    IPv6 client nor the other way round, negated or not. Lines that begin with white space continue the one before.
    source: what the warnings call the table.

    A bad line is skipped and gets a warning; it never raises. The memory of a table grows with the number of its
    rules (16 octets an IPv4 rule, 40 an IPv6 rule, at most 32 times that inside nested negated blocks), the time of
    a look-up with the logarithm.
    """

    def __init__(self, text: bytes, source: str) -> None: ...

    @property
    def results(self) -> list[str]:
        """The distinct results, in the order of their first appearance; octets that are not UTF-8 are surrogates."""

    @property
    def warnings(self) -> list[str]:
        """One line for each bad line of the text, with source and line number; at most 101."""

    def lookup(self, address: str) -> str | None:
        """Return the result for an IPv4 or IPv6 address; None when no rule matches or it is no address.

        IPv4-mapped IPv6 (::ffff:192.0.2.1) is looked up as IPv4, as the core treats it everywhere (reference 2.8).
        """

    def __len__(self) -> int:
        """The number of rules, without bad lines, if and endif."""

class DnsReply(NamedTuple):
    """What the answer to an A query says. TTLs are seconds; -1: no such record."""

    rcode: int
    truncated: bool
    """Ask again over TCP; no records were read."""
    addresses: tuple[str, ...]
    """In the order of the answer, the first 32."""
    ttl: int
    """The smallest of the A records."""
    soa_ttl: int
    """The smallest of the SOA records in the authority section: what a pass stamp goes by (reference 4.3)."""
    negative_ttl: int
    """How long 'not listed' may be kept: the smaller of that and SOA MINIMUM (RFC 2308 5)."""

def dns_query(id: int, address: str, domain: str) -> bytes:
    """Return the query of id 0..65535 for an address at a DNS list (RFC 5782 2.1, 2.4).

    ValueError: no address, or a domain that is no name or too long. The core builds its queries with the same code.
    """

def dns_answer(packet: bytes, query: bytes) -> DnsReply | None:
    """Decode a datagram that came in reply to a query of dns_query's.

    None: it is no reply or has another id or question, so the true answer may still come. ValueError: it is the reply,
    but malformed. TTLs with the top bit set are read as 0 (RFC 2181 8).
    """
