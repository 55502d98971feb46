"""The judge of the history takes any records: it judges each, or says why not, and never invents a difference."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from property.test_history_record import records

from fastscreen.core import HISTORY_FIELDS, JUDGED, SCORERS, TESTS, HistoryJudge, history_read, history_write

BITS = 8
NUMBERS = (1, 2)
_SETTINGS = HISTORY_FIELDS.index("settings")
_ENDED = HISTORY_FIELDS.index("ended")
_LASTED = HISTORY_FIELDS.index("lasted")
START = 1_790_000_000_000_000  # µs since 1970
ACTIONS = st.sampled_from(("ignore", "enforce", "drop", "shadow"))
MASKS = st.none() | st.binary(min_size=128, max_size=128)
CLIENTS = {4: (b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02", b"\xc6\x33\x64\x01"), 16: (b"\x20\x01\x0d\xb8" + bytes(12),)}


@st.composite
def descriptions(draw: st.DrawFn) -> Any:
    names = draw(st.lists(st.sampled_from([f"list{at}" for at in range(70)]), min_size=1, max_size=66, unique=True))
    return {
        "lists": names,
        "sites": draw(
            st.lists(st.tuples(st.integers(0, len(names) - 1), MASKS, st.integers(-5, 5)), min_size=1, max_size=8)
        ),
        "tests": [(draw(st.booleans()), draw(ACTIONS), draw(st.integers(1, 10**7))) for _ in TESTS],
        "weights": {scorer.key: draw(st.integers(0, 4)) for scorer in SCORERS[1:]},
        "denylist_action": draw(ACTIONS),
        "shadow": draw(st.booleans()),
        "soft_bounce": False,
        "continues": draw(st.booleans()),
        "threshold": draw(st.integers(1, 8)),
        "allowlist_threshold": draw(st.integers(-4, 1)),
        "dnsbl_min_ttl": 60,
        "dnsbl_max_ttl": 3600,
        "greet_wait": 6.0,
        "prefix": (draw(st.sampled_from((24, 32))), draw(st.sampled_from((64, 128)))),
    }


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[int, bytes, bytes]]:
    """Records of a few clients, close to one another, and anything else in their place now and then."""
    found = []
    for at, record in enumerate(draw(st.lists(records(), max_size=12))):
        fields = list(record)
        ended = START + at * draw(st.integers(0, 10**10))
        fields[_ENDED] = ended
        fields[_LASTED] = draw(st.integers(0, 2 * 10**10))
        fields[_SETTINGS] = draw(st.sampled_from((*NUMBERS, 3)))
        client = draw(st.sampled_from(CLIENTS[len(fields[1])]))
        fields[1] = client
        packed = history_write(fields)
        if draw(st.integers(0, 9)) == 0:
            packed = draw(st.binary(max_size=60))
        found.append(((ended << BITS) + at, client, packed))
    return sorted(found)


@given(rows(), descriptions(), descriptions(), st.booleans())
def test_any_records(found: list[tuple[int, bytes, bytes]], one: Any, other: Any, collecting: bool) -> None:
    judge = HistoryJudge(other, "mx.test", BITS, detail=True, collecting=collecting)
    judge.add_settings(1, one)
    judge.add_settings(2, other)
    for row in found:
        judge.feed([row])
    judge.finish()
    assert judge.detail is not None
    assert sorted(each[0] for each in judge.detail) == [row[0] for row in found]
    assert {each[2] for each in judge.detail} <= set(JUDGED)
    assert all((each[2] == "unknown") == (each[4] != "judged") for each in judge.detail)
    summary = judge.summary()
    assert summary["records"] == len(found)
    assert sum(count for count, _ in summary["would"].values()) == summary["sessions"]
    assert judge.held == 0
    judge.collected()


NO_TESTS = {
    "lists": ["list0"], "sites": [(0, None, 0)], "tests": [(False, "ignore", 1)] * 6,
    "weights": {scorer.key: 0 for scorer in SCORERS[1:]}, "denylist_action": "ignore", "shadow": False,
    "soft_bounce": False, "continues": False, "threshold": 1, "allowlist_threshold": 0, "dnsbl_min_ttl": 60,
    "dnsbl_max_ttl": 3600, "greet_wait": 6.0, "prefix": (24, 64),
}  # fmt: skip
FIRST = 458_240_000_000_000_000
SIX = b" \x01\r\xb8" + bytes(12)
NEEDS_A_TEST = b"\x01\x80\xa0\x80\x08\x01\x01" + bytes(17)  # that its settings do not have
NEEDS_NONE = b"\x01\x80\x80\x80\x08\x01" + bytes(5)


@given(rows(), descriptions())
@example(
    [(FIRST, SIX, b""), (FIRST + 1, SIX, NEEDS_A_TEST), (FIRST + 2, b"\xc0\0\2\1", b""),
     (FIRST + 3, b"\xc0\0\2\1", NEEDS_NONE)], NO_TESTS,
)  # fmt: skip
def test_the_settings_in_force(found: list[tuple[int, bytes, bytes]], real: Any) -> None:
    """Whatever the records say: nothing else is predicted."""
    judge = HistoryJudge(real, "mx.test", BITS, detail=True)
    for number in NUMBERS:
        judge.add_settings(number, real)
    judge.feed(found)
    judge.finish()
    assert judge.detail is not None
    for number, happened, would, _, why in judge.detail:
        assert would in (happened, "unknown")
        if would == "unknown":
            (packed,) = [row[2] for row in found if row[0] == number]
            readable = history_read(1, found[0][1], packed) is not None
            assert why in ("different", "settings", "version", "pass") or not readable
