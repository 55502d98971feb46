"""Merging records of offenses: whatever another host sends, and in whatever order."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fastscreen.core import OffenseRules, offense_merge, offense_read, offense_summary

TODAY = 20_000
RULES = OffenseRules()
ROOM = {1: 256, 2: 64, 4: 32}

SIZES = st.sampled_from([1, 2, 4])
MEMBERS = st.dictionaries(
    st.integers(0, 255),
    st.tuples(
        st.integers(0, 7 * 256), st.integers(0, 4 * 256), st.integers(TODAY - 60, TODAY), st.integers(TODAY - 60, TODAY)
    ),
    max_size=10,
)


def record(size: int, members: dict[int, tuple[int, int, int, int]]) -> bytes:
    found = b"".join(
        number.to_bytes(size, "little") + b"".join(part.to_bytes(2, "little") for part in parts)
        for number, parts in members.items()
    )
    return b"\x01" + bytes([size]) + len(members).to_bytes(2, "little") + found


def known(value: bytes | None) -> dict[int, tuple[float, float]]:
    """Weights by member; None is a record without members."""
    read = offense_read(value, TODAY, RULES) if value is not None else []
    assert read is not None
    return {member[0]: (member[1], member[2]) for member in read}


def merged(value: bytes | None, other: bytes | None, size: int) -> bytes | None:
    if other is None:
        return value
    found = offense_merge(value, other, size, TODAY, RULES)
    assert found is not None
    return found[0]


@given(st.one_of(st.none(), st.binary(max_size=2500)), st.binary(max_size=2500), SIZES)
def test_any_bytes_are_harmless(value: bytes | None, other: bytes, size: int) -> None:
    found = offense_merge(value, other, size, TODAY, RULES)
    if found is None or found[0] is None or found[0] == value:
        return
    result, bad, good = found
    assert result is not None and bad >= 0 and good >= 0
    members = offense_read(result, TODAY, RULES)
    assert members is not None and 0 < len(members) <= ROOM[size]
    assert len(result) == 4 + len(members) * (size + 8)


@given(SIZES.flatmap(lambda size: st.tuples(st.just(size), st.binary(max_size=3000))))
def test_any_members_are_harmless(some: tuple[int, bytes]) -> None:
    """A header that fits its members, whatever they say."""
    size, members = some
    members = members[: len(members) // (size + 8) * (size + 8)]
    value = b"\x01" + bytes([size]) + (len(members) // (size + 8)).to_bytes(2, "little") + members
    found = offense_merge(None, value, size, TODAY, RULES)
    if len(members) // (size + 8) > ROOM[size]:
        assert found is None
        return
    assert found is not None
    if found[0] is not None:
        for _, bad, good, bad_day, good_day, _ in offense_read(found[0], TODAY, RULES) or ():
            assert 0 <= bad <= 7 and 0 <= good <= 4
            assert bad_day <= TODAY and good_day <= TODAY
        assert offense_summary(found[0], TODAY, RULES) is not None


@given(SIZES, MEMBERS, MEMBERS)
def test_merging_again_changes_nothing(size: int, ours: dict, theirs: dict) -> None:  # type: ignore[type-arg]
    once = merged(merged(None, record(size, ours), size), record(size, theirs), size)
    assert merged(once, record(size, theirs), size) == once
    assert merged(once, once, size) == once
    assert merged(once, record(size, ours), size) == once


@given(SIZES, MEMBERS, MEMBERS, MEMBERS)
@example(1, {}, {0: (0, 16, TODAY, TODAY)}, {0: (1, 0, TODAY - 60, TODAY - 60)})  # one part of it has decayed
def test_the_order_does_not_matter(size: int, one: dict, two: dict, three: dict) -> None:  # type: ignore[type-arg]
    records = [record(size, members) for members in (one, two, three)]
    found = None
    for value in records:
        found = merged(found, value, size)
    backward = None
    for value in reversed(records):
        backward = merged(backward, value, size)
    nested = merged(merged(None, records[0], size), merged(merged(None, records[1], size), records[2], size), size)
    assert known(found) == known(backward) == known(nested)


@given(SIZES, MEMBERS, MEMBERS)
def test_nothing_counts_more_than_on_one_host(size: int, ours: dict, theirs: dict) -> None:  # type: ignore[type-arg]
    one, two = (merged(None, record(size, members), size) for members in (ours, theirs))
    for number, (bad, good) in known(merged(one, two, size)).items():
        each = [known(some).get(number, (0.0, 0.0)) for some in (one, two)]
        assert bad == max(host[0] for host in each)
        assert good == max(host[1] for host in each)
