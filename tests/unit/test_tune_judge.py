"""The judge of recorded sessions, rule by rule: a record, other settings, and the result."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fastscreen.core import (
    HISTORY_DIALECT,
    HISTORY_FIELDS,
    HISTORY_MARKS,
    HISTORY_NUMBERS,
    HISTORY_OUTCOMES,
    SCORERS,
    STAGES,
    TESTS,
    HistoryJudge,
    history_write,
)

BITS = 8
START = 1_790_000_000  # s since 1970
SETTINGS = 7
GREET, DIALOGUE, HANDOFF, RELAY = (STAGES.index(stage) for stage in ("greet", "dialogue", "handoff", "relay"))
TEST = {test.key: 1 << at for at, test in enumerate(TESTS)}
MARK = {mark: 1 << at for at, mark in enumerate(HISTORY_MARKS)}
EVIDENCE = {scorer.key: 1 << at for at, scorer in enumerate(SCORERS)}
GREET_TESTS = ("pregreet", "dnsbl")
DEEP_TESTS = ("pipelining", "non_smtp_command", "bare_newline")
Description = Any
"""A JudgeDescription, of which a test may change any part."""
More = dict[str, Any]


def settings(**changes: Any) -> Description:
    """Two blocklists and an allow list; every test of postscreen's is enforced. tests: changes by key."""
    tests = {key: [True, "enforce", 86400] for key in TEST} | {"score": [False, "enforce", 86400]}
    tests["dnsbl"][2] = 3600
    for key, value in changes.pop("tests", {}).items():
        tests[key] = [value != "off", "ignore" if value == "off" else value, tests[key][2]]
    return {
        "lists": ("a.test", "b.test", "w.test"),
        "sites": [(0, None, 2), (1, None, 1), (2, None, -4)],
        "tests": [tuple(each) for each in tests.values()],
        "weights": {},
        "denylist_action": "ignore",
        "shadow": False,
        "soft_bounce": False,
        "continues": False,
        "threshold": 3,
        "allowlist_threshold": 0,
        "dnsbl_min_ttl": 60,
        "dnsbl_max_ttl": 3600,
        "greet_wait": 6.0,
        "prefix": (32, 64),
    } | changes


def row(
    at: float, outcome: str, *, address: str = "192.0.2.1", lasted: float = 7.0, **more: Any
) -> tuple[int, bytes, bytes]:
    """A record. at: when it began, in s after START. Tests, marks and evidence by name; lists as bits."""
    client = bytes(map(int, address.split(".")))
    ended = round((START + at + lasted) * 1e6)
    fields: dict[str, Any] = dict.fromkeys(HISTORY_NUMBERS, 0) | {
        "ended": ended, "client": client, "server": bytes(4), "answers": (), "name": b"", "score": None, "weight": 1,
        "lasted": round(lasted * 1e6), "settings": SETTINGS, "outcome": HISTORY_OUTCOMES.index(outcome),
    }  # fmt: skip
    for key in ("needed", "made", "found", "failed"):
        more[key] = sum(TEST[test] for test in more.get(key, ()))
    more["marks"] = sum(MARK[mark] for mark in more.get("marks", ()))
    more["evidence"] = sum(EVIDENCE[scorer] for scorer in more.get("evidence", ()))
    fields |= more
    return ended << BITS, client, history_write([fields[key] for key in HISTORY_FIELDS])


def known(at: float, **more: Any) -> tuple[int, bytes, bytes]:
    return row(at, "handed_off", lasted=0.01, stage=HANDOFF, marks=("cached", "passed"), **more)


def screened(at: float, outcome: str, *, verdict: int = 0, listed: int = 0, **more: Any) -> tuple[int, bytes, bytes]:
    """It was in the greet wait to its end, and in the dialogue; with a verdict, it has sent RCPT."""
    total = 2 * (listed & 1) + (listed >> 1 & 1) - 4 * (listed >> 2 & 1)
    fields: dict[str, Any] = {
        "needed": (*GREET_TESTS, *DEEP_TESTS), "made": (*GREET_TESTS, *DEEP_TESTS), "stage": DIALOGUE, "listed": listed,
        "lists_total": total, "lists_lowest": total, "lists_highest": total, "score": total, "pass_seconds": 600,
        "marks": ("lists_judged",), "verdict": verdict, "recipients": 1 if verdict % 100 == 50 else 0, "commands": 4,
    }  # fmt: skip
    return row(at, outcome, **(fields | more))


def deferred(at: float, **more: Any) -> tuple[int, bytes, bytes]:
    return screened(at, "deferred", verdict=450, **more)


def judged(
    rows: list[tuple[int, bytes, bytes]], other: Description, real: Description | None = None
) -> list[tuple[str, str, int, str]]:
    """What happened, the result, the reply and the reason, of each row."""
    judge = HistoryJudge(other, "mx.test", BITS, detail=True)
    judge.add_settings(SETTINGS, real or settings())
    judge.feed(sorted(rows))
    judge.finish()
    assert judge.detail is not None
    found = {number: tuple(rest) for number, *rest in judge.detail}
    return [found[each[0]] for each in rows]  # type: ignore[misc]


def result(one: tuple[int, bytes, bytes], other: Description, real: Description | None = None) -> str:
    """`rejected 550`, or `unknown: test`."""
    ((_, would, reply, why),) = judged([one], other, real)
    return f"unknown: {why}" if would == "unknown" else f"{would} {reply}"


NO_DEEP: More = {"tests": dict.fromkeys(DEEP_TESTS, "off")}
PREGREET: More = {"found": ("pregreet",), "failed": ("pregreet",)}
LISTED: More = {"listed": 0b11, "found": ("dnsbl",), "failed": ("dnsbl",)}
ONLY_GREET: More = {"needed": GREET_TESTS, "made": GREET_TESTS}
LEFT_EARLY: More = {
    "stage": GREET,
    "made": GREET_TESTS,
    "marks": ("hung_up",),
    "recipients": 0,
    "commands": 0,
    "unasked": 0b111,
}
DROPPED: More = {**LEFT_EARLY, **PREGREET, "marks": ("turned_away",)}

MANY: More = {"weights": {"rcpt_many": 3}, "tests": {"score": "enforce"}}
ALL = (*GREET_TESTS, *DEEP_TESTS, "score")
SCORED: More = {"needed": ALL, "made": ALL, "found": ("score",), "failed": ("score",)}


def scored(**more: Any) -> tuple[int, bytes, bytes]:
    """Deferred, with the score test made."""
    return deferred(0, made=ALL, needed=ALL, **more)


def seen(weight: int, least: int = 3, half_life: int = 14) -> More:
    """A weight of seen_network, and how the memory counts."""
    return {
        "weights": {"seen_network": weight}, "tests": {"score": "enforce"},
        "memory": (half_life * 86400, 90 * 86400, least, 90),
    }  # fmt: skip


# (record, settings to judge by, settings that it had or None, result)
RULES: dict[str, tuple[tuple[int, bytes, bytes], Description, Description | None, str]] = {
    "passed the deep tests": (deferred(0), settings(), None, "deferred 450"),
    "they are off": (deferred(0), settings(**NO_DEEP), None, "handed_off 0"),
    "they are on now": (
        row(0, "handed_off", stage=HANDOFF, marks=("lists_judged", "new", "passed"), **ONLY_GREET),
        settings(), settings(**NO_DEEP), "unknown: test",
    ),
    "continues": (deferred(0), settings(continues=True), None, "handed_off 0"),
    "pregreet, enforced": (screened(0, "rejected", verdict=550, **PREGREET), settings(), None, "rejected 550"),
    "pregreet, ignored now": (
        screened(0, "rejected", verdict=550, **PREGREET), settings(tests={"pregreet": "ignore"}), None, "deferred 450"),
    "pregreet, dropped now": (
        screened(0, "rejected", verdict=550, **PREGREET), settings(tests={"pregreet": "drop"}), None, "rejected 521"),
    "pregreet, soft_bounce now": (
        screened(0, "rejected", verdict=550, **PREGREET), settings(soft_bounce=True), None, "rejected 450"),
    "pregreet, in shadow mode now": (
        screened(0, "rejected", verdict=550, **PREGREET), settings(shadow=True), None, "deferred 450"),
    "pregreet was ignored, enforced now": (
        deferred(0, found=("pregreet",)), settings(), settings(tests={"pregreet": "ignore"}), "rejected 550"),
    "pregreet was dropped, ignored now": (
        screened(0, "rejected", verdict=521, **DROPPED), settings(tests={"pregreet": "ignore"}),
        settings(tests={"pregreet": "drop"}), "unknown: ended",
    ),
    "pregreet was dropped, enforced now": (
        screened(0, "rejected", verdict=521, **DROPPED),
        settings(), settings(tests={"pregreet": "drop"}), "rejected -1"),
    "pregreet is off now": (
        screened(0, "left", **LEFT_EARLY), settings(tests={"pregreet": "off"}), None, "left 0"),
    "left in the greet wait, of lists alone now": (
        screened(0, "left", **(LEFT_EARLY | {"unasked": 0})),
        settings(tests={"pregreet": "off", **NO_DEEP["tests"]}), None,
        "handed_off 0",
    ),
    "left in the greet wait": (screened(0, "left", **LEFT_EARLY), settings(threshold=1), None, "left 0"),
    "listed": (screened(0, "rejected", verdict=550, **LISTED), settings(), None, "rejected 550"),
    "listed, higher threshold": (
        screened(0, "rejected", verdict=550, **LISTED),
        settings(threshold=4), None, "deferred 450"),
    "listed, other weights": (
        screened(0, "rejected", verdict=550, **LISTED),
        settings(sites=[(0, None, 1), (1, None, 1)]), None, "deferred 450"),
    "listed, drop now": (
        screened(0, "rejected", verdict=550, **LISTED), settings(tests={"dnsbl": "drop"}), None, "rejected 521"),
    "listed, ignored now": (
        screened(0, "rejected", verdict=550, **LISTED), settings(tests={"dnsbl": "ignore"}), None, "deferred 450"),
    "listed below the threshold, lower now": (deferred(0, listed=1), settings(threshold=2), None, "rejected 550"),
    "listed, never saw a dialogue": (
        row(0, "handed_off", stage=HANDOFF, listed=1, lists_total=2, lists_lowest=2, lists_highest=2,
            marks=("lists_judged", "new", "passed"), **ONLY_GREET),
        settings(threshold=2, **NO_DEEP), settings(**NO_DEEP), "rejected -1",
    ),
    "a silent allow list": (
        deferred(0, listed=1, silent=0b100, lists_lowest=-2), settings(threshold=2), None, "deferred 450"),
    "a list that was not asked": (
        deferred(0, listed=1, unasked=0b10, lists_highest=3),
        settings(threshold=4), settings(threshold=4), "deferred 450"),
    "a list that was not asked, lower threshold": (
        deferred(0, unasked=0b1, lists_highest=2), settings(threshold=2), None, "deferred 450"),
    "a suspect list": (
        deferred(0, doubtful=1, lists_highest=2, answers=((0, 127 << 24 | 2),)),
        settings(threshold=2), None, "deferred 450"),
    "a list that is new": (
        deferred(0), settings(lists=("n.test",), sites=[(0, None, 5)]), None, "unknown: list"),
    "a list that is new, and makes no difference": (
        deferred(0), settings(lists=("n.test",), sites=[(0, None, 2)]), None, "deferred 450"),
    "a filter": (
        deferred(0, listed=1, answers=((0, 127 << 24 | 4),)),
        settings(threshold=2, sites=[(0, b"\xff" * 96 + bytes((1 << 4,)) + bytes(31), 2)]), None, "rejected 550",
    ),
    "a filter that does not match": (
        deferred(0, listed=1, answers=((0, 127 << 24 | 5),)),
        settings(threshold=2, sites=[(0, b"\xff" * 96 + bytes((1 << 4,)) + bytes(31), 2)]), None, "deferred 450",
    ),
    "a filter, answers cut": (
        deferred(0, listed=1, answers=((0, 127 << 24 | 5),), marks=("lists_judged", "answers_cut")),
        settings(threshold=2, sites=[(0, b"\xff" * 96 + bytes((1 << 4,)) + bytes(31), 2)]), None, "unknown: cut",
    ),
    "allowed now": (deferred(0, listed=4), settings(allowlist_threshold=-4), None, "handed_off 0"),
    "allowed now, but it talked": (
        screened(0, "rejected", verdict=550, listed=4, **PREGREET),
        settings(allowlist_threshold=-4), None, "unknown: order"),
    "allowed now, and talking is ignored": (
        screened(0, "rejected", verdict=550, listed=4, **PREGREET),
        settings(allowlist_threshold=-4, tests={"pregreet": "ignore"}), None, "handed_off 0",
    ),
    "was allowed, and is not now": (
        row(0, "handed_off", stage=HANDOFF, listed=4, lists_total=-4, lists_lowest=-4, lists_highest=-4,
            marks=("lists_judged", "lists_allow", "new", "passed"), needed=(*GREET_TESTS, *DEEP_TESTS),
            made=GREET_TESTS),
        settings(), settings(allowlist_threshold=-4), "unknown: test",
    ),
    "pipelining": (
        screened(0, "rejected", verdict=550, found=("pipelining",), failed=("pipelining",)),
        settings(), None, "rejected 550"),
    "pipelining, ignored now": (
        screened(0, "rejected", verdict=550, found=("pipelining",), failed=("pipelining",)),
        settings(tests={"pipelining": "ignore"}), None, "deferred 450",
    ),
    "pipelining was dropped, ignored now": (
        screened(0, "rejected", verdict=521, found=("pipelining",), failed=("pipelining",)),
        settings(tests={"pipelining": "ignore"}), settings(tests={"pipelining": "drop"}), "unknown: ended",
    ),
    "pipelining was not tested": (
        deferred(0, needed=(*GREET_TESTS, "bare_newline"), made=(*GREET_TESTS, "bare_newline")),
        settings(), settings(tests={"pipelining": "off", "non_smtp_command": "off"}), "unknown: test",
    ),
    "left in the dialogue": (screened(0, "left"), settings(), None, "left 0"),
    "left in the dialogue, no deep tests now": (screened(0, "left"), settings(**NO_DEEP), None, "handed_off 0"),
    "the score": (
        deferred(0, name=b"user-pc", listed=1),
        settings(weights={"helo_not_qualified": 1}, tests={"score": "enforce"}), None, "rejected 550",
    ),
    "the score, by another name": (
        deferred(0, name=b"mail.a-host.se", listed=1),
        settings(weights={"helo_not_qualified": 1}, tests={"score": "enforce"}), None, "deferred 450",
    ),
    "the score, no recipient": (
        screened(0, "left", name=b"user-pc", listed=1),
        settings(weights={"helo_not_qualified": 1}, tests={"score": "enforce"}), None, "left 0",
    ),
    "the score, a name that is cut": (
        deferred(0, name=b"x" * 63, listed=1),
        settings(weights={"helo_not_qualified": 1}, tests={"score": "enforce"}), None, "unknown: cut",
    ),
    "TLS was announced and not used": (
        deferred(0, listed=1, tls=1, dialect=1 << HISTORY_DIALECT.index("clear_mail")),
        settings(weights={"no_tls": 1}, tests={"score": "enforce"}), None, "rejected 550",
    ),
    "TLS was tried in vain": (
        deferred(
            0, listed=1, tls=1, dialect=sum(1 << HISTORY_DIALECT.index(each) for each in ("clear_mail", "starttls")),
        ),
        settings(weights={"no_tls": 1}, tests={"score": "enforce"}), None, "deferred 450",
    ),
    "many recipients": (
        deferred(0, listed=1, recipients=5),
        settings(weights={"rcpt_many": 1}, rcpt_many_from=5, tests={"score": "enforce"}), None, "rejected 550",
    ),
    "fewer recipients": (
        deferred(0, listed=1, recipients=4),
        settings(weights={"rcpt_many": 1}, rcpt_many_from=5, tests={"score": "enforce"}), None, "deferred 450",
    ),
    "the score failed it, the weight is 0 now": (
        screened(0, "rejected", verdict=550, listed=1, name=b"user-pc", evidence=("helo_not_qualified",),
                 found=("score",), failed=("score",), needed=(*GREET_TESTS, *DEEP_TESTS, "score"),
                 made=(*GREET_TESTS, *DEEP_TESTS, "score"), score=3),
        settings(), settings(weights={"helo_not_qualified": 1}, tests={"score": "enforce"}), "deferred 450",
    ),
    "denylisted, ignored": (deferred(0, marks=("denylisted", "lists_judged")), settings(), None, "deferred 450"),
    "denylisted, enforced now": (
        deferred(0, marks=("denylisted", "lists_judged")), settings(denylist_action="enforce"), None, "rejected 550"),
    "denylisted, dropped now": (
        deferred(0, marks=("denylisted", "lists_judged")), settings(denylist_action="drop"), None, "rejected 521"),
    "denylisted was dropped, ignored now": (
        row(0, "rejected", stage=GREET, verdict=521, marks=("denylisted", "turned_away")), settings(),
        settings(denylist_action="drop"), "unknown: ended",
    ),
    "vetoed": (deferred(0, marks=("vetoed", "lists_judged")), settings(**NO_DEEP), None, "deferred 450"),
    "allowlisted": (
        row(0, "handed_off", stage=HANDOFF, marks=("allowlisted",)), settings(threshold=1), None, "handed_off 0"),
    "bypassed": (row(0, "handed_off", stage=HANDOFF, marks=("bypassed",)), settings(threshold=1), None, "handed_off 0"),
    "too many connections": (
        row(0, "busy", stage=GREET, verdict=421, marks=("client_limit", "turned_away")), settings(threshold=1), None,
        "busy 421",
    ),
    "too many connections, in shadow mode now": (
        row(0, "busy", stage=GREET, verdict=421, marks=("client_limit", "turned_away")), settings(shadow=True), None,
        "unknown: limit",
    ),
    "the rate": (
        row(0, "busy", stage=GREET, verdict=421, needed=GREET_TESTS, marks=("rate_limit", "turned_away")),
        settings(), None,
        "busy 421",
    ),
    "the rate, but no test is left": (
        row(0, "busy", stage=GREET, verdict=421, needed=DEEP_TESTS, marks=("rate_limit", "turned_away")),
        settings(**NO_DEEP), None, "handed_off 0",
    ),
    "the MTA was not reached": (
        row(0, "failed", stage=DIALOGUE, verdict=421, marks=("lists_judged",), **ONLY_GREET), settings(**NO_DEEP),
        settings(**NO_DEEP), "failed 0",
    ),
    "many recipients, from a smaller number on": (
        scored(recipients=7), settings(**MANY, rcpt_many_from=5), settings(**MANY, rcpt_many_from=10),
        "rejected 550",
    ),
    "many recipients, from a larger number on": (
        screened(0, "rejected", verdict=550, recipients=7, evidence=("rcpt_many",), **SCORED),
        settings(**MANY, rcpt_many_from=10), settings(**MANY, rcpt_many_from=5), "deferred 450",
    ),
    "the memory said something": (
        scored(evidence=("seen_network",)), settings(**seen(3)), settings(**seen(1)), "rejected 550"),
    "the memory said nothing": (scored(), settings(**seen(3)), settings(**seen(1)), "deferred 450"),
    "the memory was not asked": (deferred(0), settings(**seen(3)), None, "unknown: memory"),
    "the memory was not asked, and would not matter": (deferred(0), settings(**seen(2)), None, "deferred 450"),
    "the memory was not asked, but the client fails anyway": (
        screened(0, "rejected", verdict=550, **PREGREET), settings(**seen(3)), None, "rejected 550"),
    "the memory was not asked, but the client sent no RCPT": (
        screened(0, "left", marks=("hung_up", "lists_judged"), recipients=0), settings(**seen(3)), None, "left 0"),
    "the client has a pass of the score test": (
        deferred(0), settings(**seen(3)), settings(**seen(1)), "deferred 450"),
    "fewer neighbors are enough, and there were more": (
        scored(evidence=("seen_network",)), settings(**seen(3, 2)), settings(**seen(1)), "rejected 550"),
    "fewer neighbors are enough": (
        scored(), settings(**seen(3, 2)), settings(**seen(1)), "unknown: memory"),
    "more neighbors are needed, and there were not even so many": (
        scored(), settings(**seen(3, 4)), settings(**seen(1)), "deferred 450"),
    "more neighbors are needed": (
        scored(evidence=("seen_network",)), settings(**seen(3, 4)), settings(**seen(1)),
        "unknown: memory",
    ),
    "another half-life": (
        scored(), settings(**seen(3, 3, 30)), settings(**seen(1)), "unknown: memory"),
    "known": (known(0), settings(threshold=1), None, "handed_off 0"),
    "not explained": (deferred(0, listed=3), settings(), None, "unknown: different"),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_rule(name: str) -> None:
    record, other, real, expected = RULES[name]
    assert result(record, other, real) == expected
    if "different" not in expected:
        own = real or settings()
        ((happened, would, _, why),) = judged([record], copy.deepcopy(own), own)
        assert (would, why) == (happened, "judged"), "by the settings that it had"


# ---- passes


def outcomes(rows: list[tuple[int, bytes, bytes]], other: Description, real: Description | None = None) -> list[str]:
    return [would if would != "unknown" else f"unknown: {why}" for _, would, _, why in judged(rows, other, real)]


def test_a_pass_that_was_not_earned() -> None:
    """By a lower threshold, the client would not have passed: its next sessions would have been tested."""
    rows = [deferred(0, listed=1), known(60), known(120, address="192.0.2.2")]
    assert outcomes(rows, settings(threshold=2)) == ["rejected", "unknown: test", "handed_off"]


def test_a_pass_that_was_earned() -> None:
    """By a higher threshold, the client would have passed: it would have been known until the pass ends."""
    rejected: More = {"verdict": 550, **LISTED}
    rows = [screened(at, "rejected", **rejected) for at in (0, 60, 4000)]
    assert outcomes(rows, settings(threshold=4)) == ["deferred", "handed_off", "handed_off"]
    assert outcomes(rows, settings(threshold=4, tests={"pipelining": "ignore"})) == [
        "deferred",
        "handed_off",
        "handed_off",
    ]
    rows = [screened(0, "rejected", **rejected), screened(90000, "rejected", **rejected)]
    assert outcomes(rows, settings(threshold=4)) == ["deferred", "deferred"], "every pass has expired"


def test_the_lists_pass_expires_first() -> None:
    """How long a pass of the lists is valid is recorded: 600 s. Afterwards they are asked again."""
    rows = [screened(0, "rejected", verdict=550, **LISTED), screened(1000, "rejected", verdict=550, **LISTED)]
    assert outcomes(rows, settings(threshold=4)) == ["deferred", "handed_off"]
    # With other lists it is not known: between min_ttl and max_ttl.
    other = settings(threshold=4, lists=("a.test", "b.test"), sites=[(0, None, 2), (1, None, 1)])
    rows += [screened(1100, "rejected", verdict=550, **(LISTED | {"listed": 0b11, "found": ("dnsbl", "pregreet")}))]
    assert outcomes(rows[:2], other) == ["deferred", "handed_off"], "whether or not the pass is still valid"
    assert outcomes([rows[0], screened(1000, "left", **LEFT_EARLY)], other) == ["deferred", "unknown: pass"]
    # With fewer lists, it is at least the recorded one: the shortest time of fewer answers.
    assert outcomes([rows[0], screened(500, "left", **LEFT_EARLY)], other) == ["deferred", "handed_off"]
    more = settings(threshold=4, lists=("a.test", "b.test", "n.test"), sites=[(0, None, 2), (1, None, 1), (2, None, 0)])
    assert outcomes([rows[0], screened(500, "left", **LEFT_EARLY)], more) == ["deferred", "unknown: pass"]


def test_passes_that_are_the_same_are_not_kept() -> None:
    rows = [deferred(0), known(10), deferred(90000), known(90010)]
    assert outcomes(rows, settings(threshold=4)) == ["deferred", "handed_off"] * 2


def test_sessions_at_the_same_time() -> None:
    """The second session begins before the first has passed; the third sees the pass."""
    first = screened(0, "rejected", lasted=8.0, verdict=550, **LISTED)
    second = screened(1, "rejected", lasted=8.0, verdict=550, **LISTED)
    third = screened(20, "rejected", lasted=8.0, verdict=550, **LISTED)
    assert outcomes([first, second, third], settings(threshold=4)) == ["deferred", "deferred", "handed_off"]


def test_a_long_relay_ends_last() -> None:
    """Its pass counts from its beginning, whenever it ends."""
    relayed = row(0, "relayed", lasted=5000.0, stage=RELAY, listed=1, lists_total=2, lists_lowest=2, lists_highest=2,
                  pass_seconds=600, marks=("lists_judged", "new", "passed"), **ONLY_GREET)  # fmt: skip
    rows = [relayed, known(60)]
    assert outcomes(rows, settings(threshold=2, **NO_DEEP), settings(**NO_DEEP)) == ["rejected", "unknown: test"]


def test_a_shorter_prefix() -> None:
    """The clients of a network share the passes that one of them earns; before, each has its own."""
    rows = [
        deferred(0),
        deferred(60, address="192.0.2.9"),
        deferred(61, address="192.0.3.1"),
        known(5, address="192.0.4.1"),
    ]
    assert outcomes(rows, settings(prefix=(24, 64))) == ["deferred", "handed_off", "deferred", "handed_off"]


def test_a_longer_prefix() -> None:
    """A pass of the network is worth nothing to one address."""
    rows = [deferred(0), known(60, address="192.0.2.9"), known(61)]
    assert outcomes(rows, settings(prefix=(32, 64)), settings(prefix=(24, 64))) == [
        "deferred", "unknown: test", "handed_off"]  # fmt: skip


def test_cut_addresses() -> None:
    """Which client of a network has a pass is not known."""
    judge = HistoryJudge(settings(threshold=4), "mx.test", BITS, detail=True, mask=(24, 48))
    judge.add_settings(SETTINGS, settings())
    judge.feed([screened(at, "rejected", address="192.0.2.0", verdict=550, **LISTED) for at in (0, 60)])
    judge.finish()
    assert judge.detail is not None
    assert [(would, why) for _, _, would, _, why in judge.detail] == [("deferred", "judged"), ("unknown", "pass")]


def test_what_is_not_known_spreads() -> None:
    """After a session that cannot be judged, whether its client has passed is not known either."""
    new = settings(lists=("n.test",), sites=[(0, None, 5)])
    assert outcomes([deferred(0), known(60)], new) == ["unknown: list", "unknown: pass"]


def test_other_versions_and_settings() -> None:
    unknown = deferred(0, settings=99)
    other = (unknown[0], unknown[1], b"\x7f" + unknown[2][1:])
    assert [each[3] for each in judged([unknown], settings())] == ["settings"]
    assert [each[3] for each in judged([other], settings())] == ["version"]


# ---- counts


def summary(
    rows: list[tuple[int, bytes, bytes]], other: Description, real: Description | None = None
) -> dict[str, Any]:
    judge = HistoryJudge(other, "mx.test", BITS)
    judge.add_settings(SETTINGS, real or settings())
    judge.feed(sorted(rows))
    judge.finish()
    return judge.summary()


def test_collateral() -> None:
    """Each reason why a client is good."""
    day = 86400
    rows = [
        deferred(0, listed=1), known(60),  # came back
        deferred(0, listed=1, address="192.0.2.2"), known(day + 60, address="192.0.2.2"),  # too late
        deferred(0, listed=1, address="192.0.2.3", mta_accepted=1),
        deferred(0, listed=5, address="192.0.2.4"),  # on an allow list
        deferred(0, listed=1, address="192.0.2.5"), known(100, address="192.0.2.5", mta_accepted=0),
        known(31 * day, address="192.0.2.5"),
        known(0, address="192.0.2.6"), known(30 * day, address="192.0.2.6"),
    ]  # fmt: skip
    found = summary(rows, settings(threshold=2))
    assert found["good"] == 5
    assert found["collateral"]["happened"]["rejected"] == (0, 0)
    assert found["collateral"]["would"]["rejected"] == (3, 3)
    assert found["collateral"]["would"]["rejected_by_kind"] == {"retried": 2, "accepted": 1, "allowed": 0, "known": 1}
    assert found["collateral"]["would"]["deferred"] == (1, 1), "the allow list saves it"
    assert found["would"]["rejected"] == (4, 4)


def test_labels_do_not_depend_on_the_settings_that_are_tried() -> None:
    """Clients are good and bad by the lists that they had: without its allow list, a client is collateral."""
    rows = [
        deferred(0, listed=0b101, address="192.0.2.1"),
        deferred(0, listed=0b001, address="192.0.2.2"),
        known(0, address="192.0.2.3"), deferred(600, listed=0b001, address="192.0.2.3"),
    ]  # fmt: skip
    for sites in ([(0, None, 2), (1, None, 1), (2, None, -4)], [(0, None, 2)], [(1, None, -1)], []):
        found = summary(rows, settings(sites=sites))
        assert (found["good"], found["bad"]) == (1, 2), sites
        assert found["misses"]["happened"]["sessions_by_kind"]["listed"] == 1, sites
    found = summary(rows, settings(sites=[(0, None, 3)]))
    assert found["collateral"]["would"]["rejected_by_kind"]["allowed"] == 1


def test_a_list_that_does_not_answer_lists_as_before() -> None:
    """Also one that the settings of a session do not have."""
    listed: More = {"listed": 0b01}
    silent: More = {"silent": 0b01, "lists_highest": 0, "lists_lowest": 0}
    rows = [deferred(0, **listed), known(30), deferred(60, **silent), known(90), deferred(120, **listed)]
    assert summary(rows, settings())["misses"]["happened"]["sessions_by_kind"]["listed"] == 0
    judge = HistoryJudge(settings(), "mx.test", BITS)
    judge.add_settings(SETTINGS, settings())
    judge.add_settings(SETTINGS + 1, settings(lists=("b.test",), sites=[(0, None, 1)]))
    judge.feed([deferred(0, **listed), known(30), deferred(60, settings=SETTINGS + 1), known(90)])
    judge.feed([deferred(120, **listed)])
    judge.finish()
    assert judge.summary()["misses"]["happened"]["sessions_by_kind"]["listed"] == 0
    rows[2] = deferred(60)
    assert summary(rows, settings())["misses"]["happened"]["sessions_by_kind"]["listed"] == 2


def test_misses() -> None:
    """A client that is admitted, and is bad within a day."""
    day = 86400
    rows = [
        known(0), deferred(600, listed=1),  # listed later
        known(0, address="192.0.2.2"), deferred(2 * day, listed=1, address="192.0.2.2"),  # much later
        known(0, address="192.0.2.3", mta_rejected=2),
        known(0, address="192.0.2.4"), screened(60, "rejected", verdict=550, address="192.0.2.4", **PREGREET),
        known(0, address="192.0.2.5"),
    ]  # fmt: skip
    found = summary(rows, settings())["misses"]["happened"]
    assert (found["sessions"], found["clients"]) == (3, 3)
    assert found["sessions_by_kind"] == {"mta": 1, "listed": 1, "test": 1}
    more = summary([screened(0, "rejected", verdict=550, **LISTED, mta_rejected=1)], settings(threshold=4, **NO_DEEP))
    assert more["misses"]["would"]["sessions_by_kind"]["mta"] == 1
    assert more["misses"]["happened"]["sessions"] == 0


def test_contributions() -> None:
    rows = [
        deferred(0, listed=1, address="192.0.2.1"),
        screened(0, "rejected", verdict=550, address="192.0.2.2", **LISTED),
        screened(0, "rejected", verdict=550, address="192.0.2.3", listed=0, **PREGREET),
        deferred(0, address="192.0.2.4", name=b"user-pc"),
    ]
    found = {each["name"]: each for each in summary(rows, settings())["features"]}
    assert (found["list:a.test"]["sessions"], found["list:a.test"]["unique"], found["list:a.test"]["decisive"]) == (
        2,
        1,
        1,
    )
    assert (found["list:b.test"]["sessions"], found["list:b.test"]["unique"], found["list:b.test"]["decisive"]) == (
        1,
        0,
        1,
    )
    assert found["list:a.test"]["both"] == {"list:b.test": 1}
    assert (found["test:pregreet"]["sessions"], found["test:pregreet"]["decisive"]) == (1, 1)
    assert found["scorer:helo_not_qualified"]["unique"] == 1, "also without a weight"


def test_contributions_of_sessions_that_cannot_be_judged() -> None:
    """Neither the lists nor the scorers count."""
    one = deferred(0, listed=1, found=("pregreet",), name=b"user-pc", commands=0)
    assert [each[3] for each in judged([one], settings())] == ["different"]
    assert [each["name"] for each in summary([one], settings())["features"] if each["sessions"]] == []


def test_records_stand_for_several_sessions() -> None:
    found = summary([known(0, weight=100), known(1, weight=100)], settings())
    assert (found["sessions"], found["records"], found["would"]["handed_off"]) == (200, 2, (200, 1))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="tests instead of"):
        HistoryJudge(settings(), "mx.test", BITS).add_settings(1, settings() | {"tests": []})
    with pytest.raises(ValueError, match="four sets"):
        HistoryJudge(settings(), "mx.test", BITS).add_settings(1, settings(sites=[(0, b"x", 1)]))


def test_strange_times() -> None:
    """Clocks that jump: sessions of 1970 that began before, of a later year, and one that lasted for months."""
    rows = [
        row(-START - 20, "handed_off", lasted=25.0, stage=HANDOFF, marks=("cached",)),
        row(-START - 1e9, "handed_off", lasted=1e9 + 9, stage=HANDOFF, marks=("cached",)),
        screened(0, "left", lasted=1e7, **LEFT_EARLY),
        deferred(1e7),
        deferred(3e8),
    ]
    judge = HistoryJudge(settings(), "mx.test", BITS, detail=True)
    judge.add_settings(SETTINGS, settings())
    for one in sorted(rows):
        judge.feed([one])
    judge.finish()
    assert judge.detail is not None
    assert sorted(number for number, *_ in judge.detail) == sorted(number for number, _, _ in rows)
    assert {would for _, _, would, _, _ in judge.detail} == {"handed_off", "left", "deferred"}
    assert judge.late >= 1
    assert judge.held == 0


def test_many_sessions_wait() -> None:
    """In the order of their beginnings, whatever the order of their ends."""
    rows = [screened(at, "rejected", verdict=550, lasted=100.0 - 20 * at, **LISTED) for at in range(4)]
    judge = HistoryJudge(settings(threshold=4), "mx.test", BITS, detail=True)
    judge.add_settings(SETTINGS, settings())
    judge.feed(sorted(rows))
    assert judge.detail == []
    assert (judge.held, judge.most_held) == (4, 4)
    judge.finish()
    assert [number for number, *_ in judge.detail] == [number for number, _, _ in rows]


def test_sessions_that_were_deferred_for_their_score() -> None:
    """Whether they would have been admitted depends on the time."""
    assert result(deferred(0), settings()) == "deferred 450"
    assert result(deferred(0, marks=("lists_judged", "score_deferred")), settings()) == "unknown: different"
