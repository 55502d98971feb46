"""`history.mask`: no notation of the client's address is left in its HELO name, whatever is around it."""

import ipaddress
import re

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import HISTORY_FIELDS, history_read, history_write
from fastscreen.history.mask import Mask

MASK = Mask((24, 48))


def record(client: bytes, server: bytes, name: bytes) -> bytes:
    fields = dict.fromkeys(HISTORY_FIELDS, 0) | {
        "client": client, "server": server, "score": None, "answers": (), "name": name, "weight": 1,
    }  # fmt: skip
    return history_write([fields[key] for key in HISTORY_FIELDS])


@st.composite
def notations(draw: st.DrawFn, client: bytes) -> str:
    """Of IPv4: dotted, and mapped to IPv6. Of IPv6: any run of zeros compressed or none, leading zeros or none, either
    case, the last 32 bits dotted or not."""
    tail = ".".join(str(byte).zfill(draw(st.integers(1, 3))) for byte in client[-4:])
    if len(client) == 4:
        mapped = bytes(10) + b"\xff\xff" + client
        return draw(st.one_of(st.just(tail), notations(mapped)))
    groups = [
        draw(st.sampled_from(["{:x}", "{:04x}", "{:X}"])).format(int.from_bytes(client[at : at + 2]))
        for at in range(0, 16, 2)
    ]
    if draw(st.booleans()):
        groups[6:] = [".".join(map(str, client[-4:]))]
    runs = [
        (first, last)
        for first in range(len(groups))
        for last in range(first + 1, len(groups) + 1)
        if all(re.fullmatch("0+", group) for group in groups[first:last])
    ]
    if not runs or draw(st.booleans()):
        return ":".join(groups)
    first, last = draw(st.sampled_from(runs))
    return f"{':'.join(groups[:first])}::{':'.join(groups[last:])}"


@given(st.data())
def test_no_notation_is_left(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([4, 16]))
    client = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    for at in range(data.draw(st.integers(0, size - 1))):
        client[-2 - at : -1 - at] = b"\0"  # runs of zeros
    client[-1] |= 1
    text = data.draw(notations(bytes(client)))
    assert ":" not in text or ipaddress.ip_address(text)
    before = data.draw(st.sampled_from(["", "[", "[IPv6:", "[ipv6:", "x", "x.", "(", "-"]))
    after = data.draw(st.sampled_from(["", "]", "].example", ")", "%eth0", "]:25", "-x"]))
    name = f"{before}{text}{after}".encode()[:63]
    if len(before) + len(text) > 63:
        return
    server = data.draw(st.binary(min_size=size, max_size=size))
    packed = record(bytes(client), server, name)
    masked = MASK.record(bytes(client), packed)
    found = history_read(0, bytes(client), masked)
    assert found is not None and found[-2] == server
    cut = ipaddress.ip_address(MASK.client(bytes(client)))
    kept = found[-1].decode().removeprefix(before)
    kept = kept[: len(kept) - len(name.decode()[len(before) + len(text) :])]
    value = ipaddress.ip_address(kept)
    assert value == cut or getattr(value, "ipv4_mapped", None) == cut, (name, found[-1])


@given(st.binary(max_size=63), st.sampled_from([4, 16]))
def test_other_names_stay(name: bytes, size: int) -> None:
    client = bytes(range(1, size + 1))
    packed = record(client, client, name)
    if b"1.2.3.4" not in name and b"1" not in name:
        assert MASK.record(client, packed) == packed
