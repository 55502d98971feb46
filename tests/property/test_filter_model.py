"""Every term of the filter language against a model of it in plain Python: text, compiled, gives the model's answer."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from fastscreen.control.filters import compiled
from fastscreen.core import EVENTS, FINDINGS, STAGES, read_records

LISTS = ("zen.spamhaus.org", "bl.example", "zen.spamhaus.org", *(f"l{number}.example" for number in range(300)))
NO_SCORE = -0x7FFFFFFF
TEXT = 68  # bytes that a record has room for
_RECORD = struct.Struct("<QqqIiIHhBBBB16s68s")  # `Event` in ext/core.pxd
SESSION = len(EVENTS) - 1
assert EVENTS[SESSION] == "session"


class Sample(Struct, frozen=True):
    """One record as the model sees it."""

    kind: int
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    port: int
    session: int
    stage: int
    findings: int
    score: int
    index: int
    number: int
    worker: int
    text: bytes

    def packed(self) -> bytes:
        address = self.address.packed if self.address is not None else b""
        family = self.address.version if self.address is not None else 0
        return _RECORD.pack(
            1, 1, self.number, self.session, self.score, self.findings, self.port, self.index, self.kind, family,
            self.stage, len(self.text), address, self.text,
        )  # fmt: skip


Model = Callable[[Sample], bool]
Term = tuple[str, Model]

ADDRESSES = (
    st.sampled_from(["192.0.2.1", "192.0.2.200", "192.0.3.1", "0.0.0.0", "255.255.255.255"]).map(ipaddress.ip_address)
    | st.sampled_from(["2001:db8::1", "2001:db8:1::1", "::", "c000:201::"]).map(ipaddress.ip_address)
    | st.ip_addresses(v=4)
    | st.none()
)
WORDS = ["EHLO", "ehlo you", "relay", "GET /", "550 5.7.1", 'a "quoted" word', "back\\slash", "é", "x"]
TEXTS = st.sampled_from(WORDS).map(lambda word: f"<{word}>".encode()) | st.binary(max_size=TEXT)
SAMPLES = st.builds(
    Sample,
    kind=st.integers(1, SESSION),
    address=ADDRESSES,
    port=st.sampled_from([0, 1, 25, 65535]) | st.integers(0, 65535),
    session=st.sampled_from([0, 1, 17, 2**32 - 1]),
    stage=st.integers(0, len(STAGES) - 1),
    findings=st.integers(0, 2 ** len(FINDINGS) - 1),
    score=st.sampled_from([NO_SCORE, -3, 0, 2, 3, 4]) | st.integers(-(2**30), 2**30),
    index=st.sampled_from([-1, 0, 1, 2, 3, 255, 256, 302]),
    number=st.sampled_from([0, 10_000_000, 10_000_001, 2**40]) | st.integers(0, 2**45),
    worker=st.integers(1, 3),
    text=TEXTS,
)
COMPARE: dict[str, Callable[[int, int], bool]] = {
    "=": lambda one, other: one == other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _network(text: str) -> Term:
    network = ipaddress.ip_network(text, strict=False)
    return text, lambda it: it.address is not None and it.address in network


def _score(operator: str, value: int) -> Term:
    return f"score{operator}{value}", lambda it: it.score != NO_SCORE and COMPARE[operator](it.score, value)


def _age(operator: str, value: int) -> Term:
    """value: µs."""
    text = f"age{operator}{value // 1_000_000}.{value % 1_000_000:06}"
    return text, lambda it: it.kind == SESSION and COMPARE[operator](it.number, value)


def _kinds(chosen: list[str]) -> Term:
    return f"kind:{','.join(chosen)}", lambda it: EVENTS[it.kind] in chosen


def _stages(chosen: list[str]) -> Term:
    return f"stage:{','.join(chosen)}", lambda it: it.session != 0 and STAGES[it.stage] in chosen


def _failed(chosen: list[str]) -> Term:
    return f"failed:{','.join(chosen)}", lambda it: any(it.findings >> FINDINGS.index(one) & 1 for one in chosen)


def _list(index: int) -> Term:
    name = LISTS[index]
    return f"list:{name.upper()}.", lambda it: 0 <= it.index < len(LISTS) and LISTS[it.index] == name


def _words(word: str) -> Term:
    quoted = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return quoted, lambda it: _lower(word.encode()) in _lower(it.text)


def _lower(text: bytes) -> bytes:
    return text.lower()  # ASCII letters only


OPERATORS = st.sampled_from(sorted(COMPARE))


def _some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=4)


TERMS = st.one_of(
    st.sampled_from(
        ["192.0.2.1", "192.0.2.0/24", "192.0.2.9/25", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8::1"]
    ).map(_network),
    st.builds(_score, OPERATORS, st.integers(-5, 5) | st.integers(-999_999_999, 999_999_999)),
    st.builds(_age, OPERATORS, st.sampled_from([0, 10_000_000]) | st.integers(0, 999_999_999_999_999)),
    _some(EVENTS[1:-1]).map(_kinds),
    _some(STAGES[:-1]).map(_stages),
    _some(FINDINGS).map(_failed),
    st.sampled_from([0, 1, 2, 3, 200, 255]).map(_list),
    st.sampled_from([0, 1, 17, 999_999_999]).map(lambda value: (f"session:{value}", lambda it: it.session == value)),
    st.sampled_from([0, 1, 25, 65535, 65536]).map(lambda value: (f"port:{value}", lambda it: it.port == value)),
    st.integers(1, 3).map(lambda value: (f"worker:{value}", lambda it: it.worker == value)),
    st.sampled_from(WORDS).map(_words),
    st.sampled_from(["EHLO", "FROM:<a@b>", "é"]).map(lambda word: (word, _words(word)[1])),
)
SIGNED = st.tuples(TERMS, st.booleans())


def _typed(terms: list[tuple[Term, bool]]) -> str:
    return " ".join(("-" if negated else "") + text for (text, _), negated in terms)


def _answer(text: str, it: Sample) -> bool:
    chosen = compiled(text, LISTS)
    packed = it.packed()
    one = chosen.filter()
    assert one(packed) is bool(read_records(packed, one))
    return chosen.worker(it.worker) and one(packed)


@given(SIGNED, SAMPLES)
def test_one_term(signed: tuple[Term, bool], it: Sample) -> None:
    (_, holds), negated = signed
    assert _answer(_typed([signed]), it) is (holds(it) != negated)


@given(TERMS, SAMPLES)
def test_a_term_and_its_negation_never_agree(term: Term, it: Sample) -> None:
    assert _answer(term[0], it) is not _answer(f"-{term[0]}", it)


@given(st.lists(SIGNED, max_size=5), SAMPLES)
def test_all_terms_must_hold(terms: list[tuple[Term, bool]], it: Sample) -> None:
    assert _answer(_typed(terms), it) is all(holds(it) != negated for (_, holds), negated in terms)
