"""The access list: which decision an address gets, and in which form the core gets the steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastscreen.config import ConfigError, load
from fastscreen.screening.access_list import AccessList, Ask, Networks, Word, load_access


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "fastscreen.toml"


def access(toml: Path, *items: str, mynetworks: str = '"!10.1.0.0/16", "10.0.0.0/8"') -> AccessList:
    quoted = ", ".join(f"'{item}'" for item in items)
    toml.write_text(f"[access]\nlist = [{quoted}]\nmynetworks = [{mynetworks}]\n")
    return load_access(load(toml))


def test_first_decision_wins(toml: Path) -> None:
    steps = access(toml, "permit_mynetworks", "cidr:{{192.0.2.0/25 permit}, {192.0.2.0/24 reject}}", "reject")
    assert steps.decide("10.0.0.1") == ("permit", "permit_mynetworks")
    assert steps.decide("192.0.2.1")[0] == "permit"
    assert steps.decide("192.0.2.129")[0] == "reject"
    assert steps.decide("198.51.100.1") == ("reject", "reject")


def test_a_negated_network_of_ours_is_only_not_ours(toml: Path) -> None:
    assert access(toml, "permit_mynetworks", "cidr:{{10.1.0.0/16 reject}}").decide("10.1.2.3")[0] == "reject"
    late = access(toml, "permit_mynetworks", mynetworks='"10.0.0.0/8", "!10.1.0.0/16"')
    assert late.decide("10.1.2.3")[0] == "permit"


def test_dunno_in_a_table_goes_on_and_at_the_top_ends(toml: Path) -> None:
    steps = access(toml, "cidr:{{192.0.2.1 dunno}, {192.0.2.0/24 permit}}", "dunno", "reject")
    assert steps.decide("192.0.2.1") == (None, "dunno")
    assert steps.decide("192.0.2.2")[0] == "permit"
    assert steps.decide("198.51.100.1") == (None, "dunno")


def test_a_result_may_be_a_list(toml: Path) -> None:
    table = "cidr:{{10.0.0.0/8 permit_mynetworks, reject}, {192.0.2.0/24 DUNNO reject}, {198.51.100.1 PERMIT,reject}}"
    steps = access(toml, table, "permit")
    assert steps.decide("10.0.0.1")[0] == "permit"
    assert steps.decide("10.1.0.1")[0] == "reject"
    assert steps.decide("192.0.2.1") == ("permit", "permit")
    assert steps.decide("198.51.100.1")[0] == "permit"
    assert steps.warnings == []


def test_an_unknown_word_is_a_warning_and_no_decision(toml: Path) -> None:
    steps = access(toml, "cidr:{{192.0.2.1 OK}, {192.0.2.2 permit OK}, {192.0.2.3 cidr:/x}}", "reject")
    assert [steps.decide(f"192.0.2.{n}")[0] for n in (1, 2, 3, 4)] == [None, "permit", None, "reject"]
    assert len(steps.warnings) == 2
    assert 'unknown command: "OK"' in steps.warnings[0]
    assert "a table in a table's result" in steps.warnings[1]


def test_what_the_core_gets(toml: Path) -> None:
    steps = access(toml, "permit_mynetworks", "cidr:{{192.0.2.1 permit}, {192.0.2.2 dunno}}", "static:reject", "permit")
    ours, table, ask, word = steps.steps
    assert isinstance(ours, Networks)
    assert isinstance(table, Networks)
    assert isinstance(ask, Ask)
    assert dict(zip(ours.table.results, ours.decisions, strict=True)) == {"permit": "permit", "no": "next"}
    assert dict(zip(table.table.results, table.decisions, strict=True)) == {"permit": "permit", "dunno": "next"}
    assert ask.decide("192.0.2.9") == "reject"
    assert word == Word("permit")


def test_other_tables_are_asked(toml: Path) -> None:
    steps = access(toml, "regexp:{{/^192\\.0\\.2\\.(.)$/ $1}, {/:/ reject}}", "inline:{198.51.100.1=permit_mynetworks}")
    assert steps.decide("2001:db8::1")[0] == "reject"
    assert steps.decide("192.0.2.7")[0] is None
    assert steps.decide("192.0.2.7")[0] is None
    assert steps.decide("198.51.100.1") == (None, "")
    assert steps.warnings == [
        'regexp:{{/^192\\.0\\.2\\.(.)$/ $1}, {/:/ reject}}: unknown command: "7": no decision for its clients'
    ]


def test_warnings_of_results_stay_bounded(toml: Path) -> None:
    steps = access(toml, "regexp:{{/(.+)/ $1}}")
    for number in range(1000):
        steps.decide(f"192.0.{number >> 8}.{number & 255}")
    assert len(steps.warnings) == 100


def test_a_table_that_cannot_be_opened(toml: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        access(toml, "cidr:/nowhere")
    assert str(caught.value) == f"{toml}: access.list: cidr:/nowhere: cannot be read: No such file or directory"
    with pytest.raises(ConfigError, match=r"access\.mynetworks: /nowhere: cannot be read"):
        access(toml, mynetworks='"/nowhere"')
