"""Network tables, compared with a simple model, and with random input."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import NetworkTable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# A line of a table: what it is ("if", "endif" or "rule"), negated, network, result.
Line = tuple[str, bool, Network, str]

# Few distinct bits, so that networks nest, touch and coincide.
ADDRESSES = st.one_of(
    st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xC0000200, 0xC00002FF, 0xC0000300, 0xFFFFFFFE, 0xFFFFFFFF]).map(
        ipaddress.IPv4Address
    ),
    st.integers(0, 63).map(lambda low: ipaddress.IPv4Address(0xC0000200 + low)),
    st.sampled_from([0, 1, (1 << 64) - 1, 1 << 64, (1 << 64) + 1, (1 << 127) - 1, 1 << 127, (1 << 128) - 1]).map(
        ipaddress.IPv6Address
    ),
    st.integers(0, 63).map(lambda low: ipaddress.IPv6Address((0x20010DB8 << 96) + (low << 59))),
    st.ip_addresses(),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(ADDRESSES)
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network((address, length), strict=False)


LINES = st.tuples(
    st.sampled_from(["rule", "rule", "rule", "rule", "if", "endif"]),
    st.booleans(),
    networks(),
    st.sampled_from(["permit", "reject", "dunno"]),
)


def matches(network: Network, negated: bool, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return network.version == address.version and (address in network) != negated


def expected(lines: list[Line], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    blocks: list[bool] = []
    for kind, negated, network, result in lines:
        if kind == "if":
            blocks.append(matches(network, negated, address))
        elif kind == "endif":
            if blocks:
                blocks.pop()
        elif all(blocks) and matches(network, negated, address):
            return result
    return None


def text_of(lines: list[Line]) -> bytes:
    text = []
    for kind, negated, network, result in lines:
        pattern = f"{'!' if negated else ''}{network}"
        text.append({"if": f"if {pattern}", "endif": "endif", "rule": f"{pattern} {result}"}[kind])
    return "\n".join(text).encode()


@given(st.lists(LINES, max_size=30), st.lists(ADDRESSES, max_size=10))
def test_look_up_is_that_of_a_plain_search(
    lines: list[Line], clients: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> None:
    table = NetworkTable(text_of(lines), "model")
    ends = [end for _, _, network, _ in lines for end in (network[0], network[-1])]
    around = [end + step for end in ends for step in (-1, 1) if 0 <= int(end) + step < 1 << end.max_prefixlen]
    for client in [*clients, *ends, *around]:
        if getattr(client, "ipv4_mapped", None) is None:
            assert table.lookup(str(client)) == expected(lines, client), client


@given(st.binary(max_size=400))
def test_any_octets_are_read(text: bytes) -> None:
    table = NetworkTable(text, "fuzz")
    assert table.lookup("192.0.2.1") in [None, *table.results]
    assert len(table) >= len(table.results)


@given(st.lists(st.sampled_from(list(b"0129afAF.:/[]!# \tif\nendif\n\x00\r\xff")), max_size=200).map(bytes))
def test_any_text_of_the_alphabet_is_read(text: bytes) -> None:
    table = NetworkTable(text, "fuzz")
    for warning in table.warnings:
        assert warning.startswith("cidr table fuzz, line ")
        assert warning.isprintable()
    assert table.lookup("::1") in [None, *table.results]
