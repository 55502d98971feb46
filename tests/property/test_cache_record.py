"""Whatever bytes a record holds, five stamps are read from it."""

import msgpack  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.cache import DISABLED, pack_stamps, parse_stamps

STAMP = st.integers(0, 2**63 - 1)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=5,
)


@given(st.tuples(STAMP, STAMP, STAMP, STAMP, STAMP))
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
