"""The filter on recorded sessions against a model of it in plain Python, which judges the decoded session."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import historyfiles
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastscreen.core import (
    FINDINGS,
    HISTORY_MARKS,
    HISTORY_OUTCOMES,
    HISTORY_TLS,
    SCORERS,
    STAGES,
    TESTS,
    history_read,
)
from fastscreen.history.day import COUNT_BITS, Row
from fastscreen.history.fields import MARKS
from fastscreen.history.filter import query
from fastscreen.history.session import Session, named

OTHER = 7  # the number of settings with the lists in another order
LISTS = {historyfiles.NUMBER: historyfiles.LISTS, OTHER: ("bl.example", "zen.example", "dyn.zen.example")}
ALL_LISTS = ("zen.example", "bl.example", "allow.example", "dyn.zen.example")
TEST_KEYS = tuple(test.key for test in TESTS)
SCORER_KEYS = tuple(scorer.key for scorer in SCORERS)
MARK_NAMES = tuple(MARKS.get(mark, mark) for mark in HISTORY_MARKS)

NAMES = (b"mail.example", b"MAIL.Example", b"[192.0.2.1]", b"user-pc", b"'; DROP TABLE sessions; --", b"a*b", b"=1+1",
         b"\x1b[31mred\xff", b"\\134", b"")  # fmt: skip


def _sets(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.sets(st.sampled_from(names), max_size=4)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    fields: dict[str, Any] = {
        "server": None,
        "client_port": draw(st.sampled_from((0, 1, 25, 65535))),
        "worker": draw(st.integers(1, 3)),
        "lasted": draw(st.sampled_from((0, 999_999, 10_000_000, 10_000_001, 2**40))),
        "commands": draw(st.integers(0, 7)),
        "recipients": draw(st.integers(0, 3)),
        "score": draw(st.sampled_from((None, -3, 0, 2, 3, 4))),
        "stage": draw(st.sampled_from(STAGES)),
        "outcome": draw(st.sampled_from(HISTORY_OUTCOMES)),
        "tls": draw(st.sampled_from(HISTORY_TLS)),
        "evidence": draw(_sets(SCORER_KEYS)),
        "marks": draw(_sets(HISTORY_MARKS)),
        "settings": draw(st.sampled_from((historyfiles.NUMBER, OTHER, 8))),
        "listed": draw(st.integers(0, 7)),
        "doubtful": draw(st.sampled_from((0, 0, 1, 4))),
        "name": draw(st.sampled_from(NAMES) | st.binary(max_size=63)),
    }
    fields |= {field: draw(_sets(TEST_KEYS)) for field in ("found", "made", "failed")}
    fields |= {
        code: draw(st.sampled_from((0, 250, 450, 451, 550))) for code in ("verdict", "reply", "mta_reply", "spared")
    }
    client = draw(st.sampled_from(("192.0.2.1", "192.0.2.200", "192.0.3.1", "2001:db8::1", "::", "c000:201::")))
    version = ipaddress.ip_address(client).version
    servers = ("198.51.100.7", "198.51.100.8") if version == 4 else ("2001:db8::7", "2001:db8::8")
    return historyfiles.row(draw(st.integers(0, 9)), client, **fields | {"server": draw(st.sampled_from(servers))})


Model = Callable[[Session], bool]
Term = tuple[str, Model]
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": lambda one, other: one == other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
CODES = {"verdict": "verdict", "reply": "reply", "mta": "mta_reply", "shadow": "spared"}


def _network(text: str) -> Term:
    network = ipaddress.ip_network(text, strict=False)
    return text, lambda it: ipaddress.ip_address(it.address) in network


def _server(text: str) -> Term:
    network = ipaddress.ip_network(text, strict=False)
    return f"server:{text}", lambda it: ipaddress.ip_address(it.server) in network


def _number(field: str, operator: str, value: int) -> Term:
    return (
        f"{field}{operator}{value}",
        lambda it: getattr(it, field) is not None and COMPARE[operator](getattr(it, field), value),
    )


def _lasted(operator: str, value: int) -> Term:
    text = f"lasted{operator}{value // 1_000_000}.{value % 1_000_000:06}"
    return text, lambda it: COMPARE[operator](round(it.lasted * 1e6), value)


def _one(field: str, chosen: list[str]) -> Term:
    also = {"1.2", "1.3"} if field == "tls" and "used" in chosen else set()
    return f"{field}:{','.join(chosen)}", lambda it: getattr(it, field) in also | set(chosen)


def _any(field: str, chosen: list[str]) -> Term:
    return f"{field}:{','.join(chosen)}", lambda it: not set(chosen).isdisjoint(getattr(it, field))


def _marks(chosen: list[str]) -> Term:
    return f"mark:{','.join(chosen)}", lambda it: any(MARKS.get(mark, mark) in chosen for mark in it.marks)


def _failed(chosen: list[str]) -> Term:
    return f"failed:{','.join(chosen)}", lambda it: any(one in (*it.failed, *it.marks) for one in chosen)


def _code(field: str, text: str) -> Term:
    def holds(it: Session) -> bool:
        code = getattr(it, CODES[field])
        return code == 0 if text == "none" else f"{code:03}".startswith(text.rstrip("*"))

    return f"{field}:{text}", holds


def _lists(text: str, names: set[str]) -> Term:
    def holds(it: Session) -> bool:
        return any(answer.name in names for answer in it.lists if answer.state in ("listed", "doubtful"))

    return f"list:{text}", holds


def _glob(pattern: bytes, text: bytes) -> bool:
    """In the plainest way: by recursion."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(_glob(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[:1] in (b"?", text[:1]) and _glob(pattern[1:], text[1:])


def _helo(typed: str, pattern: bytes) -> Term:
    return f"helo:{typed}", lambda it: _glob(pattern.lower(), it.helo.lower())


def _contains(word: str) -> Term:
    quoted = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return quoted, lambda it: word.encode().lower() in it.helo.lower()


OPERATORS = st.sampled_from(sorted(COMPARE))


def _some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=4)


TERMS = st.one_of(
    st.sampled_from(["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0", "::ffff:192.0.2.1"]).map(
        lambda text: _network(text) if "ffff" not in text else (text, _network("192.0.2.1")[1])
    ),
    st.sampled_from(["198.51.100.7", "198.51.100.0/28", "2001:db8::7"]).map(_server),
    st.builds(_number, st.sampled_from(("score", "commands", "recipients")), OPERATORS, st.integers(0, 5)),
    st.builds(_number, st.just("score"), OPERATORS, st.integers(-5, 5)),
    st.builds(_lasted, OPERATORS, st.sampled_from([0, 999_999, 10_000_000, 10_000_001])),
    _some(STAGES[:-1]).map(lambda chosen: _one("stage", chosen)),
    _some(HISTORY_OUTCOMES).map(lambda chosen: _one("outcome", chosen)),
    _some(HISTORY_TLS).map(lambda chosen: _one("tls", chosen)),
    st.builds(_any, st.sampled_from(("found", "made")), _some(TEST_KEYS)),
    _some(SCORER_KEYS[1:]).map(lambda chosen: _any("evidence", chosen)),
    _some(MARK_NAMES).map(_marks),
    _some(FINDINGS).map(_failed),
    st.builds(_code, st.sampled_from(sorted(CODES)), st.sampled_from(["none", "450", "4*", "45*", "5*", "250", "999"])),
    st.sampled_from(
        [
            ("zen.example", {"zen.example"}),
            ("ZEN.", {"zen.example"}),
            ("*zen*", {"zen.example", "dyn.zen.example"}),
            ("bl", {"bl.example"}),
            ("*", set(ALL_LISTS)),
            ("dyn", {"dyn.zen.example"}),
        ]
    ).map(lambda pair: _lists(*pair)),
    st.sampled_from(
        [
            ("mail.example", b"mail.example"),
            ("*.EXAMPLE", b"*.example"),
            ("*", b"*"),
            ("*a*e*", b"*a*e*"),
            ("u??r-*", b"u??r-*"),
            ("'*TABLE*", b"'*table*"),
            (r"\033[31m*", b"\x1b[31m*"),
            ("*\\377", b"*\xff"),
            (r"\\134", rb"\134"),
            ("?", b"?"),
        ]
    ).map(lambda pair: _helo(*pair)),
    st.sampled_from(["mail", "EXAMPLE", "drop table", "\\", "'", "=1"]).map(_contains),
    st.sampled_from([0, 1, 25, 65535, 65536]).map(lambda value: (f"port:{value}", lambda it: it.port == value)),
    st.integers(1, 3).map(lambda value: (f"worker:{value}", lambda it: it.worker == value)),
)
SIGNED = st.tuples(TERMS, st.booleans())


def session_of(row: Row) -> Session:
    found = history_read(row[0] >> COUNT_BITS, row[1], row[2])
    assert found is not None
    session = named(found, None)
    names = LISTS.get(session.settings, ())
    return named(found, replace(historyfiles.SETTINGS, lists=names) if names else None)


def _answers(terms: list[tuple[Term, bool]], among: list[Row]) -> list[Row]:
    typed = " ".join(("-" if negated else "") + text for (text, _), negated in terms)
    chosen = query(typed, historyfiles.NOON, lambda: ALL_LISTS).compiled(lambda number: LISTS.get(number, ()))
    if chosen is None:
        return among
    found = chosen.chosen(among)
    assert chosen.unreadable == 0
    return found


@given(SIGNED, rows())
def test_one_term(signed: tuple[Term, bool], row: Row) -> None:
    (_, holds), negated = signed
    assert _answers([signed], [row]) == ([row] if holds(session_of(row)) != negated else [])


@given(st.lists(SIGNED, max_size=5), st.lists(rows(), max_size=6))
def test_all_terms_must_hold(terms: list[tuple[Term, bool]], among: list[Row]) -> None:
    wanted = [row for row in among if all(holds(session_of(row)) != negated for (_, holds), negated in terms)]
    assert _answers(terms, among) == wanted


WORDS = st.sampled_from(
    [
        "score",
        "lasted",
        "since:",
        "until:",
        "day:",
        "mta:",
        "verdict:",
        "helo:",
        "list:",
        "tls:",
        "mark:",
        "server:",
        ">",
        "<=",
        "=",
        "-",
        '"',
        "\\",
        "5*",
        "yesterday",
        "now",
        "09:30",
        "2026-11-22",
        "T",
        "@",
        "2h",
        "1",
        "none",
        "192.0.2.1",
        "/24",
        "::",
        ",",
        "\x00",
        "é",
        "*",
        "zen",
        "\\303",
    ]
) | st.just(" ")


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map("".join)), rows())
def test_a_filter_or_one_line(text: str, row: Row) -> None:
    try:
        found = query(text, historyfiles.NOON, lambda: ALL_LISTS)
    except ValueError as error:
        assert str(error).startswith("filter: ")
        assert str(error).isprintable()
        return
    assert 0 <= found.since < found.until
    chosen = found.compiled(lambda number: LISTS.get(number, ()))
    if chosen is not None:
        assert len(chosen.chosen([row])) <= 1


@given(st.binary(max_size=90), st.binary(max_size=16), rows())
def test_rows_that_are_damaged(packed: bytes, client: bytes, row: Row) -> None:
    chosen = query("score>=-9", historyfiles.NOON).compiled(lambda number: ())
    assert chosen is not None
    damaged: list[Any] = [(1, client, packed), (2, None, packed), (3, client, "text"), (4, 5.0, 6)]
    chosen.chosen(damaged)
    assert chosen.unreadable >= 3
