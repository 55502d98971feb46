"""The packed record of a session: whatever is written is read again, and no bytes are read as more than they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.config.sites import parse_site
from fastscreen.core import HISTORY_FIELDS, HISTORY_NUMBERS, history_read, history_write
from fastscreen.history.settings import filter_text

if TYPE_CHECKING:
    from fastscreen.core import HistoryTuple

SIZES = {
    "lasted": 50, "listed": 64, "doubtful": 64, "silent": 64, "unasked": 64, "client_port": 16, "server_port": 16,
    "worker": 8, "proxied": 8, "stage": 8, "outcome": 8, "tls": 8, "settings": 32, "marks": 32, "evidence": 32,
    "pass_seconds": 32, "dialect": 32, "syn_ip": 32, "syn_tcp": 32, "syn_options": 32,
}  # fmt: skip
SIGNED = ("lists_total", "lists_lowest", "lists_highest")
OCTETS = st.binary(min_size=32, max_size=32).filter(any)


@st.composite
def records(draw: st.DrawFn) -> HistoryTuple:
    size = draw(st.sampled_from((4, 16)))
    address = st.binary(min_size=size, max_size=size)
    found = {"ended": draw(st.integers(2**50, 2**51)), "client": draw(address), "server": draw(address)}
    for key in HISTORY_NUMBERS:
        if key in SIGNED:
            found[key] = draw(st.integers(-(2**31), 2**31 - 1))
        elif key == "score":
            found[key] = draw(st.none() | st.integers(-(2**31) + 2, 2**31 - 1))
        elif key == "weight":
            found[key] = draw(st.integers(1, 2**32 - 1))
        else:
            found[key] = draw(st.integers(0, 2 ** SIZES.get(key, 16) - 1))
    answer = st.tuples(st.integers(0, 63), st.integers(127 << 24, (128 << 24) - 1))
    found["answers"] = tuple(draw(st.lists(answer, max_size=16)))
    found["name"] = draw(st.binary(max_size=63))
    return tuple(found[key] for key in HISTORY_FIELDS)


@given(records())
def test_what_is_written_is_read(record: HistoryTuple) -> None:
    packed = history_write(record)
    assert history_read(record[0], record[1], packed) == record
    assert all(history_read(record[0], record[1], packed[:cut]) is None for cut in range(3))
    assert history_read(record[0], record[1], b"\2" + packed[1:]) is None, "another version"


def test_a_record_from_before() -> None:
    """Of a version without dialect, SYN packet and the MTA's recipients: number 32, the weight, was the last."""
    packed = bytes.fromhex("01 8380808010 e807 03 05 00 c6336407 612e7465 7374".replace(" ", ""))
    found = history_read(2**50, b"\xc0\x00\x02\x01", packed)
    assert found is not None
    fields = dict(zip(HISTORY_FIELDS, found, strict=True))
    assert (fields["lasted"], fields["listed"], fields["weight"]) == (1000, 3, 6)
    assert (fields["server"], fields["name"]) == (b"\xc63d\x07", b"a.test")
    assert [fields[key] for key in HISTORY_NUMBERS[33:]] == [0] * 6
    assert history_write(found) == packed


@given(st.binary(max_size=200), st.sampled_from((b"", b"\1" * 4, b"\1" * 16)))
def test_any_bytes(packed: bytes, client: bytes) -> None:
    found = history_read(1, client, b"\1" + packed)
    if found is not None:
        assert len(found) == len(HISTORY_FIELDS)
        assert history_read(1, client, history_write(found)) == found


@given(st.tuples(OCTETS, OCTETS, OCTETS, OCTETS))
def test_filter_text(octets: tuple[bytes, bytes, bytes, bytes]) -> None:
    site = parse_site(f"list.example={filter_text(octets)}")
    assert site.octets == (None if all(each == b"\xff" * 32 for each in octets) else octets)
    msgspec.json.encode(filter_text(octets))
