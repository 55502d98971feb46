"""Whatever bytes a record holds, a stamp for each test is read from it; records of other versions are read as well."""

import msgpack  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.cache.stamps import DISABLED, pack_stamps, parse_stamps
from fastscreen.core import TESTS, read_record, write_record

COUNT = len(TESTS)
OLD = 5  # stamps that every version so far has written
MOST = 15  # stamps that a record can have
STAMP = st.integers(0, 2**63 - 1)
STAMPS = st.tuples(*[st.just(DISABLED) | STAMP] * COUNT)
# Where the width of a number changes, and beyond what a stamp may be.
EDGE = st.sampled_from([0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1, -33])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=5,
)
HEADER = st.integers(0x90, 0x9F).map(lambda octet: bytes([octet]))


def is_stamp(field: object) -> bool:
    return type(field) is int and 0 <= field < 2**63


def padded(stamps: tuple[int, ...]) -> tuple[int, ...]:
    """What this version makes of the stamps of a record, by the rule of reference 7.1."""
    return (*stamps[:COUNT], *(DISABLED,) * (COUNT - len(stamps)))


@given(STAMPS)
def test_stamps_come_back(stamps: tuple[int, ...]) -> None:
    assert parse_stamps(pack_stamps(stamps)) == stamps


@given(st.binary() | st.builds(bytes.__add__, HEADER, st.binary()))
def test_any_bytes_give_a_stamp_for_each_test(value: bytes) -> None:
    stamps = parse_stamps(value)
    assert len(stamps) == COUNT
    assert all(is_stamp(stamp) for stamp in stamps)


@given(st.lists(ANYTHING, max_size=MOST + 2))
def test_each_field_is_read_by_itself(fields: list[object]) -> None:
    stamps = parse_stamps(msgpack.packb(fields))
    assert len(stamps) == COUNT
    for index, stamp in enumerate(stamps):
        field = fields[index] if index < len(fields) else None
        assert stamp == (field if is_stamp(field) else DISABLED)


@given(STAMPS)
def test_the_core_reads_what_the_core_wrote(stamps: tuple[int, ...]) -> None:
    assert read_record(write_record(stamps)) == stamps


@given(STAMPS)
def test_the_core_reads_what_msgpack_wrote_and_the_other_way_round(stamps: tuple[int, ...]) -> None:
    assert read_record(pack_stamps(stamps)) == stamps
    assert parse_stamps(write_record(stamps)) == stamps


@given(st.binary() | st.builds(bytes.__add__, HEADER, st.binary(max_size=90)))
def test_the_core_reads_no_other_stamps_from_any_bytes(value: bytes) -> None:
    assert read_record(value) in (None, parse_stamps(value))


@given(st.lists(EDGE | ANYTHING, max_size=8) | st.lists(EDGE, max_size=MOST + 2))
def test_the_core_leaves_what_is_not_stamps(fields: list[object]) -> None:
    sound = 1 <= len(fields) <= MOST and all(is_stamp(field) for field in fields)
    packed = msgpack.packb(fields)
    assert read_record(packed) == (parse_stamps(packed) if sound else None)


@given(STAMPS, st.data())
def test_the_core_leaves_a_record_that_is_cut_off_or_goes_on(stamps: tuple[int, ...], data: st.DataObject) -> None:
    record = write_record(stamps)
    cut = data.draw(st.integers(0, len(record) - 1))
    assert read_record(record[:cut]) is None
    assert read_record(record + b"\0") is None


@given(st.lists(st.integers(1, 8).map(lambda width: 2 ** (8 * width - 1)), min_size=1, max_size=MOST), st.data())
def test_the_core_reads_any_width_of_a_number(stamps: list[int], data: st.DataObject) -> None:
    value = bytes([0x90 + len(stamps)])
    for stamp in stamps:
        octets = 1 << data.draw(st.integers(0, 3))
        value += bytes([0xCB + octets.bit_length()]) + (stamp % 2 ** (8 * octets)).to_bytes(octets, "big")
    expected = parse_stamps(value)
    assert read_record(value) in (None, expected)
    if all(is_stamp(field) for field in msgpack.unpackb(value)):
        assert read_record(value) == expected


# ---- other versions


@given(st.lists(STAMP, min_size=1, max_size=MOST))
def test_records_of_older_and_newer_versions_are_read(stamps: list[int]) -> None:
    """Tests that the record does not have are disabled ones; stamps of tests that do not exist here are skipped."""
    record = msgpack.packb(stamps)
    assert read_record(record) == parse_stamps(record) == padded(tuple(stamps))


@given(STAMPS)
def test_older_versions_read_our_records(stamps: tuple[int, ...]) -> None:
    """They read five fields and ignore the others."""
    assert tuple(msgpack.unpackb(write_record(stamps))[:OLD]) == stamps[:OLD]


@given(st.tuples(*[STAMP] * OLD))
def test_a_record_does_not_grow_before_a_test_is_in_use(stamps: tuple[int, ...]) -> None:
    for record in (write_record(padded(stamps)), pack_stamps(padded(stamps))):
        assert msgpack.unpackb(record) == list(stamps)


def test_a_record_as_the_first_version_wrote_it() -> None:
    record = bytes.fromhex("95ce692101f5ce692101f6010100")
    assert read_record(record) == parse_stamps(record) == padded((0x692101F5, 0x692101F6, 1, 1, 0))
