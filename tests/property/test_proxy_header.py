"""The PROXY header against a model: every header that can be made is read back, at any cut, and nothing else is."""

import ipaddress
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fastscreen.core import proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MOST = 536
PORTS = some.integers(0, 65535)
IPV4 = some.builds(ipaddress.IPv4Address, some.binary(min_size=4, max_size=4))
# ::ffff:0:0/96 is IPv4.
IPV6 = some.builds(ipaddress.IPv6Address, some.binary(min_size=16, max_size=16)).filter(
    lambda address: address.ipv4_mapped is None
)
ENDS = some.tuples(IPV4, IPV4) | some.tuples(IPV6, IPV6)
Ends = tuple[ipaddress.IPv4Address, ipaddress.IPv4Address] | tuple[ipaddress.IPv6Address, ipaddress.IPv6Address]
Ports = tuple[int, int]


def v1(ends: Ends, ports: Ports, end: bytes = b"\r\n") -> bytes:
    return f"PROXY TCP{ends[0].version} {ends[0]} {ends[1]} {ports[0]} {ports[1]}".encode() + end


def v2(ends: Ends, ports: Ports, tlvs: bytes = b"", command: int = 0x21, family: int = 0) -> bytes:
    content = ends[0].packed + ends[1].packed + struct.pack("!HH", *ports) + tlvs
    return SIGNATURE + bytes([command, family or (0x11 if ends[0].version == 4 else 0x21)]) + sized(content)


def sized(content: bytes) -> bytes:
    return struct.pack("!H", len(content)) + content


def both(made: Callable[[Ends, Ports], bytes], ends: Ends, ports: Ports, rest: bytes) -> None:
    """It is read whole with whatever follows, and any part of it wants more."""
    header = made(ends, ports)
    found = proxy_header(header + rest)
    assert found is not None
    assert found.length == len(header)
    # As the core writes addresses everywhere.
    family = socket.AF_INET if ends[0].version == 4 else socket.AF_INET6
    assert found.client == (socket.inet_ntop(family, ends[0].packed), ports[0])
    assert found.server == (socket.inet_ntop(family, ends[1].packed), ports[1])
    assert [proxy_header(header[:size]) for size in range(len(header))] == [None] * len(header)


@given(ENDS, some.tuples(PORTS, PORTS), some.binary(max_size=50), some.sampled_from([b"\r\n", b"\n"]))
def test_version_1(ends: Ends, ports: Ports, rest: bytes, end: bytes) -> None:
    both(lambda ends, ports: v1(ends, ports, end), ends, ports, rest)


@given(ENDS, some.tuples(PORTS, PORTS), some.binary(max_size=50), some.binary(max_size=MOST - 52))
def test_version_2_with_what_else_it_says(ends: Ends, ports: Ports, rest: bytes, tlvs: bytes) -> None:
    both(lambda ends, ports: v2(ends, ports, tlvs), ends, ports, rest)


@given(some.binary(max_size=MOST - 16), some.integers(0, 255), some.binary(max_size=50))
def test_local(content: bytes, family: int, rest: bytes) -> None:
    """The balancer speaks for itself; whatever is in it does not matter."""
    header = SIGNATURE + bytes([0x20, family]) + sized(content)
    assert proxy_header(header + rest) == (len(header), None, None)
    assert proxy_header(header[:-1]) is None


@given(IPV4, some.tuples(PORTS, PORTS))
def test_mapped_addresses_are_ipv4(address: ipaddress.IPv4Address, ports: Ports) -> None:
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    for header in (v1((mapped, mapped), ports), v2((mapped, mapped), ports)):
        found = proxy_header(header)
        assert found is not None
        assert found.client == (str(address), ports[0])


@given(some.binary(max_size=700))
def test_noise(data: bytes) -> None:
    """Nothing that does not begin as a header is one, or waits to become one."""
    for start in (b"PROXY ", SIGNATURE):
        if data[: len(start)] == start[: len(data)]:
            return
    with pytest.raises(ValueError, match=r"^(short|unrecognized) protocol header$"):
        proxy_header(data)


@given(some.sampled_from([b"PROXY ", SIGNATURE]), some.binary(max_size=700))
def test_noise_behind_a_right_start(start: bytes, data: bytes) -> None:
    """The length is limited to 536 bytes. The result never refers to bytes after the input."""
    whole = start + data
    try:
        found = proxy_header(whole)
    except ValueError:
        return
    assert len(whole) < MOST or found is not None
    assert found is None or len(start) < found.length <= min(len(whole), MOST)


ONE = (ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.2"))
SIX = (ipaddress.IPv6Address("2001:db8::1"), ipaddress.IPv6Address("2001:db8::2"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PROXY UNKNOWN\r\n", "bad or missing protocol type"),
        (b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n", "bad or missing protocol type"),
        (b"PROXY \r\n", "bad or missing protocol type"),
        (b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", "bad or missing protocol type"),
        (b"PROXY TCP4\r\n", "bad or missing client address"),
        (b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", "bad or missing client address"),
        (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "bad or missing client address"),
        (b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", "bad or missing client address"),
        (b"PROXY TCP4 192.0.2.1\r\n", "bad or missing server address"),
        (b"PROXY TCP4 192.0.2.1 mx.example 1 2\r\n", "bad or missing server address"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2\r\n", "bad or missing client port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "bad or missing client port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", "bad or missing client port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "bad or missing client port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "bad or missing server port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25x\r\n", "bad or missing server port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2\0 1 25\r\n", "missing protocol header terminator"),
        (b"PROXY TCP4 " + b" " * 600 + b"\r\n", "missing protocol header terminator"),
        (v2(ONE, (1, 2), command=0x11), "unrecognized protocol version"),
        (v2(ONE, (1, 2), command=0x22), "bad command in proxy header"),
        (v2(ONE, (1, 2), family=0x12), "unsupported network protocol"),
        (v2(ONE, (1, 2), family=0x31), "unsupported network protocol"),
        (v2(ONE, (1, 2), family=0x21), "short address field"),
        (SIGNATURE + b"\x21\x11" + sized(bytes(11)), "short address field"),
        (v2(SIX, (1, 2), bytes(MOST)), "short version 2 protocol header"),
        (SIGNATURE + b"\x21\x11\xff\xff", "short version 2 protocol header"),
    ],
)
def test_what_is_wrong_is_worded_as_the_reference_words_it(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        proxy_header(data)


def test_words_as_loose_as_the_references() -> None:
    """Runs of spaces, any case of the family, more words behind the last."""
    for text in (b"PROXY  tcp4 192.0.2.1  192.0.2.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 more words\r\n"):
        assert proxy_header(text) == (len(text), ("192.0.2.1", 1), ("192.0.2.2", 2))
