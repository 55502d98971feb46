"""Five stamps are read from a record with any bytes."""

import msgpack  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.cache.stamps import DISABLED, pack_stamps, parse_stamps
from fastscreen.core import read_record, write_record

STAMP = st.integers(0, 2**63 - 1)
STAMPS = st.tuples(STAMP, STAMP, STAMP, STAMP, STAMP)
# Where the width of a number changes, and beyond what a stamp may be.
EDGE = st.sampled_from([0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1, -33])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=5,
)


@given(STAMPS)
def test_stamps_come_back(stamps: tuple[int, ...]) -> None:
    assert parse_stamps(pack_stamps(stamps)) == stamps


@given(st.binary() | st.binary().map(lambda rest: b"\x95" + rest))
def test_any_bytes_give_five_stamps(value: bytes) -> None:
    stamps = parse_stamps(value)
    assert len(stamps) == 5
    assert all(type(stamp) is int and 0 <= stamp < 2**63 for stamp in stamps)


@given(st.lists(ANYTHING, max_size=8))
def test_each_field_is_read_by_itself(fields: list[object]) -> None:
    stamps = parse_stamps(msgpack.packb(fields))
    assert len(stamps) == 5
    for index, stamp in enumerate(stamps):
        field = fields[index] if index < len(fields) else None
        sound = type(field) is int and 0 <= field < 2**63
        assert stamp == (field if sound else DISABLED)


@given(STAMPS)
def test_the_core_reads_what_the_core_wrote(stamps: tuple[int, ...]) -> None:
    assert read_record(write_record(stamps)) == stamps


@given(STAMPS)
def test_the_core_reads_what_msgpack_wrote_and_the_other_way_round(stamps: tuple[int, ...]) -> None:
    assert read_record(pack_stamps(stamps)) == stamps
    assert parse_stamps(write_record(stamps)) == stamps


@given(st.binary() | st.binary(max_size=50).map(lambda rest: b"\x95" + rest))
def test_the_core_reads_no_other_stamps_from_any_bytes(value: bytes) -> None:
    assert read_record(value) in (None, parse_stamps(value))


@given(st.lists(EDGE | ANYTHING, max_size=8) | st.lists(EDGE, min_size=5, max_size=5))
def test_the_core_leaves_what_is_no_five_stamps(fields: list[object]) -> None:
    sound = len(fields) == 5 and all(type(field) is int and 0 <= field < 2**63 for field in fields)
    packed = msgpack.packb(fields)
    assert read_record(packed) == (parse_stamps(packed) if sound else None)


@given(STAMPS, st.data())
def test_the_core_leaves_a_record_that_is_cut_off_or_goes_on(stamps: tuple[int, ...], data: st.DataObject) -> None:
    record = write_record(stamps)
    cut = data.draw(st.integers(0, len(record) - 1))
    assert read_record(record[:cut]) is None
    assert read_record(record + b"\0") is None


@given(st.tuples(*[st.integers(1, 8).map(lambda width: 2 ** (8 * width - 1))] * 5), st.data())
def test_the_core_reads_any_width_of_a_number(stamps: tuple[int, ...], data: st.DataObject) -> None:
    value = b"\x95"
    for stamp in stamps:
        octets = 1 << data.draw(st.integers(0, 3))
        value += bytes([0xCB + octets.bit_length()]) + (stamp % 2 ** (8 * octets)).to_bytes(octets, "big")
    expected = parse_stamps(value)
    assert read_record(value) in (None, expected)
    if all(type(field) is int and field < 2**63 for field in msgpack.unpackb(value)):
        assert read_record(value) == expected
