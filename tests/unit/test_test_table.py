"""The tables of tests and scorers, and all that follows from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastscreen.cache.stamps import POSTSCREEN_TESTS
from fastscreen.config.keys import KEYS
from fastscreen.control.filters import compiled
from fastscreen.core import EVENTS, FINDINGS, FIRST_EVIDENCE, SCORERS, TESTS
from fastscreen.core import Test as Row
from fastscreen.report.lines import KIND_NAMES, TEST_KINDS, VERBS
from fastscreen.report.tally import LABELS
from fastscreen.screening.policy import DEEP_TESTS
from fastscreen.tui.views.overview import RARE_VERDICTS, VERDICTS
from fastscreen.tui.wording import ROLES

ROOT = Path(__file__).resolve().parents[2]
FAILURES = [test for test in TESTS if test.event == test.key]
"""All but dnsbl, whose event "rank" comes whatever the score is."""


def test_names_are_unique() -> None:
    for names in ([test.key for test in TESTS], [test.label for test in TESTS], [test.log_words for test in TESTS]):
        assert len(set(names)) == len(TESTS)
    assert len({scorer.key for scorer in SCORERS}) == len(SCORERS)


def test_postscreens_tests_come_first_and_in_its_order() -> None:
    """Their stamps are in every record."""
    names = ["pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline"]
    assert [test.key for test in TESTS if not test.own] == names
    assert [test.key for test in TESTS[:POSTSCREEN_TESTS]] == names


def test_there_is_room() -> None:
    """In a record of the cache for 15 stamps, and in an event's findings below those of scorers, which are 16."""
    assert len(TESTS) <= 15
    assert len(FINDINGS) <= FIRST_EVIDENCE
    assert len(SCORERS) <= 32 - FIRST_EVIDENCE


def test_findings_and_events() -> None:
    assert (*(test.key for test in TESTS), "denylisted", "vetoed") == FINDINGS
    assert all(test.event in EVENTS for test in TESTS)
    assert [test.key for test in TESTS if test not in FAILURES] == ["dnsbl"]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.key)
def test_filter_words(test: Row) -> None:
    number = TESTS.index(test)
    assert compiled(f"failed:{TESTS[number].key}").terms == (("finding", "=", 1 << number, False),)


@pytest.mark.parametrize("number", range(1, len(SCORERS)))
def test_filter_words_of_scorers(number: int) -> None:
    expected = (("finding", "=", 1 << FIRST_EVIDENCE + number, False),)
    assert compiled(f"evidence:{SCORERS[number].key}").terms == expected


def test_keys() -> None:
    keys = {key.key: key for key in KEYS}
    for test in TESTS:
        if test.key in DEEP_TESTS:
            assert keys[f"deep.{test.key}_after_fail"].default == f'"{test.action}"'
            assert keys[f"deep.{test.key}_ttl"].default == f'"{test.ttl}"'
            assert test.about in keys[f"deep.{test.key}"].about
            assert f"postscreen_{test.key}_action" in keys[f"deep.{test.key}"].parameters
    for scorer in SCORERS[1:]:
        assert keys[f"score.{scorer.key}"].default == "0"
        assert scorer.about in keys[f"score.{scorer.key}"].about


def test_lines_of_the_report() -> None:
    for test in TESTS:
        assert KIND_NAMES[TEST_KINDS[test.key]] == test.key
        assert VERBS[test.log_words.encode()] == TEST_KINDS[test.key]
        assert LABELS[test.key] == test.label
    assert len(KIND_NAMES) == len(set(KIND_NAMES))


def test_rows_and_roles_of_the_view() -> None:
    rows = dict(VERDICTS) | dict(RARE_VERDICTS)
    for test in FAILURES:
        assert rows[test.event] == test.label
        assert ROLES[test.event]


def test_a_test_is_described_once() -> None:
    """Apart from the tables, only its hook, Postfix's parameters and the demo name it."""
    expected = {"ext/core.pxd", "ext/test_table.pyx", "ext/smtp_engine.pyx", "fastscreen/postfix/defaults.py"}
    expected |= {"fastscreen/core.pxd"}  # what is installed has a copy of that in ext/, and no link to it
    sources = [
        path
        for folder in ("ext", "fastscreen", "tui")
        for path in (ROOT / folder).rglob("*.p[yx]*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi") and not path.is_symlink() and path.parent.name != "demo"
    ]
    assert len(sources) > 150
    word = re.compile(r"\bbare_newline\b|\bBARE_NEWLINE\b")
    named = {str(path.relative_to(ROOT)) for path in sources if word.search(path.read_text())}
    assert named <= expected, named - expected
