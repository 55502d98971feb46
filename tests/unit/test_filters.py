"""The filter language: the compiled terms, and the error messages."""

import pytest

from fastscreen.control.filters import compiled, network_of
from fastscreen.core import EVENTS, FINDINGS, STAGES, Filter

LISTS = ("zen.spamhaus.org", "bl.example", "zen.spamhaus.org")


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("192.0.2.1", ("network", "=", (4, b"\xc0\0\2\1" + bytes(12), b"\xc0\0\2\1" + bytes(12)), False)),
        ("-192.0.2.7/24", ("network", "=", (4, b"\xc0\0\2\0" + bytes(12), b"\xc0\0\2\xff" + bytes(12)), True)),
        ("::ffff:192.0.2.1", ("network", "=", (4, b"\xc0\0\2\1" + bytes(12), b"\xc0\0\2\1" + bytes(12)), False)),
        ("score>=-3", ("score", ">=", -3, False)),
        ("age>0.5", ("age", ">", 500000, False)),
        ("kind:pregreet,rank", ("kind", "=", 1 << EVENTS.index("pregreet") | 1 << EVENTS.index("rank"), False)),
        ("stage:queued", ("stage", "=", 1 << STAGES.index("queued"), False)),
        ("failed:denylisted", ("finding", "=", 1 << FINDINGS.index("denylisted"), False)),
        ("list:ZEN.spamhaus.org.", ("list", "=", [0, 2], False)),
        ("list:zen", ("list", "=", [0, 2], False)),
        ("list:*.EXAMPLE", ("list", "=", [1], False)),
        ("-list:*", ("list", "=", [0, 1, 2], True)),
        ("session:17", ("session", "=", 17, False)),
        ("GET", ("text", "=", b"GET", False)),
        ("FROM:<a@b>", ("text", "=", b"FROM:<a@b>", False)),
        ('-"two \\"words\\""', ("text", "=", b'two "words"', True)),
        ("ä", ("text", "=", "ä".encode(), False)),
    ],
)
def test_terms(text: str, term: object) -> None:
    chosen = compiled(text, LISTS)
    assert chosen.terms == (term,)
    assert isinstance(chosen.filter(), Filter)


def test_workers_are_the_hubs_affair() -> None:
    chosen = compiled("worker:2 GET")
    assert [chosen.worker(number) for number in (1, 2)] == [False, True]
    assert len(chosen.terms) == 1
    assert [compiled("-worker:2").worker(number) for number in (1, 2)] == [True, False]
    assert not any(compiled("worker:1 worker:2").worker(number) for number in (1, 2))
    assert compiled("  ").terms == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("score>", "filter: score>: a number is missing; example: score>=3"),
        ("score>x", 'filter: score>: "x" is not a number that it can be; example: score>=3'),
        ("age<-1", 'filter: age<: "-1" is not a number that it can be; example: age>10'),
        ("score>99999999999", 'filter: score>: "99999999999" is not a number that it can be; example: score>=3'),
        ('"open', 'filter: a quotation mark is missing; example: "several words"'),
        ("stage:away", "filter: stage:away is unknown; expected greet, dialogue, queued, handoff, continue, relay"),
        ("list:x", "filter: list:x is unknown; there are zen.spamhaus.org, bl.example, zen.spamhaus.org"),
        ("port:x", "filter: port:x: a number is wanted; example: port:1"),
        ("kidn:greet", 'filter: "kidn:greet": did you mean "kind:"? text stands in quotation marks'),
        ("-", "filter: a term is empty; - stands in front of one"),
        ("a\x1b", "filter: control characters cannot be searched for"),
        ("x " * 33, "filter: more than 32 terms"),
        ("x" * 65, f'filter: "{"x" * 20}...": longer than 64 bytes'),
        ("x" * 1025, "filter: longer than 1024 characters"),
    ],
)
def test_what_people_are_told(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        compiled(text, LISTS)
    assert str(caught.value) == said


def test_networks() -> None:
    assert str(network_of("192.0.2.77/24")) == "192.0.2.0/24"
    assert str(network_of("::ffff:192.0.2.77/120")) == "192.0.2.0/24"
    for wrong in ("fe80::1%eth0", "192.0.2.1/33", "", "x"):
        with pytest.raises(ValueError):
            network_of(wrong)
