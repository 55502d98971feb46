"""The filter language of the history: what a filter becomes, and what people are told."""

import time

import pytest

from fastscreen.core import HISTORY_MARKS
from fastscreen.history.filter import END, query

NOW = 1_795_348_800.0  # 2026-11-22 12:00:00 UTC
LISTS = ("zen.example", "zed.example", "bl.example")
HOUR = 3_600_000_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_times() -> None:
    found = query("since:yesterday until:09:30 score>=3", NOW)
    assert (found.since, found.until) == (round(NOW * 1e6) - 36 * HOUR, round(NOW * 1e6) - 150 * HOUR // 60)
    assert found.timed and not found.alone
    assert found.terms == (("score", ">=", 3, False),)
    day = query("day:yesterday since:yesterdayT06:00", NOW)
    assert (day.since, day.until) == (round(NOW * 1e6) - 30 * HOUR, round(NOW * 1e6) - 12 * HOUR)
    nothing = query(" ", NOW)
    assert (nothing.since, nothing.until, nothing.terms, nothing.timed) == (0, END, (), False)
    assert nothing.compiled(lambda number: ()) is None


def test_a_client_alone() -> None:
    assert query("192.0.2.1", NOW).alone
    assert query("since:2h 2001:db8::/48", NOW).alone
    assert str(query("192.0.2.1 192.0.2.0/24 192.0.0.0/8", NOW).network) == "192.0.2.1/32"
    for text in ("192.0.2.1 score>3", "-192.0.2.1", "192.0.2.1 192.0.2.0/24", "server:192.0.2.1"):
        assert not query(text, NOW).alone
    assert query("-192.0.2.1", NOW).network is None


def test_lists_by_name() -> None:
    def value(text: str) -> object:
        return query(text, NOW, lambda: LISTS).terms[0][2]

    assert value("list:zen") == value("list:ZEN.example.") == ("zen.example",)
    assert value("list:z*") == ("zen.example", "zed.example")
    assert value("list:*") == LISTS


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("failed:dnsbl,denylisted", ("failed", "=", (2, 1 << HISTORY_MARKS.index("denylisted")), False)),
        ("-failed:vetoed", ("failed", "=", (0, 1 << HISTORY_MARKS.index("vetoed")), True)),
        ("tls:used", ("tls", "=", 0b11100, False)),
        ("tls:none,1.3", ("tls", "=", 0b10001, False)),
        ("mark:shadow_rejected", ("mark", "=", 1 << HISTORY_MARKS.index("spared"), False)),
        ("shadow:55*,none", ("spared", "=", ((550, 559), (0, 0)), False)),
        ("mta:4*", ("mta", "=", ((400, 499),), False)),
        ("lasted<0.25", ("lasted", "<", 250_000, False)),
        ("server:192.0.2.25", ("server", "=", (4, b"\xc0\0\2\x19" + bytes(12), b"\xc0\0\2\x19" + bytes(12)), False)),
        (r"helo:\303\244*\\", ("helo", "=", b"\xc3\xa4*\\", False)),
        ("helo", ("text", "=", b"helo", False)),
        ('-"a b"', ("text", "=", b"a b", True)),
    ],
)
def test_terms(text: str, term: object) -> None:
    assert query(text, NOW).terms == (term,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "since:soon",
            "since:soon is not a time; expected now, today, yesterday, monday, 09:30, yesterdayT09:30, "
            "2026-11-29, 2026-11-29T10:00, 2h or 3d",
        ),
        ("since:13:00", "since:13:00 is in the future; yesterday's is since:yesterdayT13:00"),
        ("since:2026-11-23", "since:2026-11-23 is in the future"),
        ("since:10:00 until:09:00", "no time is after since: and before until:"),
        ("day:2h", "day:2h is not a day; expected today, yesterday, monday or 2026-11-29"),
        ("-since:2h", "-since: a time cannot be negated; use until:"),
        ("-until:2h", "-until: a time cannot be negated; use since:"),
        ("until:", "until: is empty; expected until:09:30"),
        (
            "outcome:refused",
            "outcome:refused is unknown; expected left, handed_off, relayed, continued, deferred, rejected, "
            "busy, failed",
        ),
        ("mta:5", "mta:5 is not a reply code; expected 550, 5* or none"),
        ("verdict:x,450", "verdict:x is not a reply code; expected 550, 5* or none"),
        ("list:z", "list:z is the beginning of zed.example and zen.example; with * it means all"),
        ("list:x", "list:x is unknown; there are zen.example, zed.example, bl.example"),
        ("server:mx1", "server:mx1 is not an address; expected server:192.0.2.25"),
        ("kind:pregreet", '"kind:pregreet": only events have kind; text stands in quotation marks'),
        ("age>10", '"age>10": only live sessions have age; text stands in quotation marks'),
        ("outcom:left", '"outcom:left": did you mean "outcome:"? text stands in quotation marks'),
        ("sinse:2h", '"sinse:2h": did you mean "since:"? text stands in quotation marks'),
        ("scores>3", '"scores>3": did you mean "score"? text stands in quotation marks'),
        ("commands>1.5", 'commands>: "1.5" is not a number that it can be; example: commands>5'),
        ("score>=", "score>=: a number is missing; example: score>=3"),
        ("port:x", "port:x: a number is wanted; example: port:1"),
        ("helo:a\x07", "control characters cannot be searched for; write them as the output shows them: \\033"),
        ("helo:" + "x" * 65, f"helo:{'x' * 20}...: longer than 64 bytes"),
        ("mta:" + ",".join(["5*"] * 17), "mta: more than 16 codes"),
        ('"open', 'a quotation mark is missing; example: "several words"'),
        ("-", "a term is empty; - stands in front of one"),
        ("x " * 33, "more than 32 terms"),
    ],
)
def test_what_people_are_told(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        query(text, NOW, lambda: LISTS)
    assert str(caught.value) == f"filter: {said}"
