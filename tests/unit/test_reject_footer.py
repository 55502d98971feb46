"""The reject footer (reference 5.8)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fastscreen.config import load
from fastscreen.screening.reject_footer import Footer

NOW = 1795334806.0
BUSY = b"421 4.3.2 All server ports are busy\r\n"


def footer(folder: Path, template: str, maps: str = "", more: str = "") -> Footer:
    (folder / "f.toml").write_text(
        f"hostname = 'mx.example.test'\n[engine]\nreject_footer = '{template}'\nreject_footer_maps = [{maps}]\n{more}\n"
    )
    config = load(folder / "f.toml")
    return Footer(config.engine, config.hostname)


def apply(made: Footer, reply: bytes) -> bytes:
    return made.apply(reply, "127.0.0.31", 51234, NOW)


def test_the_reference_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    made = footer(tmp_path, r"\c. See help at $client_address $server_name\nLine two $localtime")
    assert apply(made, BUSY) == (
        b"421-4.3.2 All server ports are busy. See help at 127.0.0.31 mx.example.test\r\n"
        b"421 4.3.2 Line two Nov 22 08:06:46\r\n"
    )
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("template", "reply", "wanted"),
    [
        ("", BUSY, BUSY),
        ("Help", b"250 2.1.0 Ok\r\n", b"250 2.1.0 Ok\r\n"),
        ("Help", b"550 5.7.1 No\r\n", b"550-5.7.1 No\r\n550 5.7.1 Help\r\n"),
        ("Help", b"500 Syntax: ETRN domain\r\n", b"500-Syntax: ETRN domain\r\n500 Help\r\n"),
        (r"\c: help", b"458 Unable\r\n", b"458 Unable: help\r\n"),
        (r"one\ntwo\n", b"458 Unable\r\n", b"458-Unable\r\n458-one\r\n458 two\r\n"),
        ("port ${client_port} $(client_port) $$", b"458 No\r\n", b"458-No\r\n458 port 51234 51234 $\r\n"),
        ("${client_port?{yes}:{no}} ${nope:none}", b"458 No\r\n", b"458-No\r\n458 yes none\r\n"),
        (r"\c${client_port?{ a }}${nope: b }", b"458 No\r\n", b"458 No a  b \r\n"),  # white space counts, as in Postfix
        ("${{$client_port} > {9} ? {high} : {low}}", b"458 No\r\n", b"458-No\r\n458 high\r\n"),
        ("a", b"450-4.3.2 one\r\n450 4.3.2 two\r\n", b"450-4.3.2 one\r\n450-4.3.2 two\r\n450 4.3.2 a\r\n"),
    ],
)
def test_templates(tmp_path: Path, template: str, reply: bytes, wanted: bytes) -> None:
    assert apply(footer(tmp_path, template), reply) == wanted


def test_an_unknown_name_is_empty_and_warned_of_once(tmp_path: Path) -> None:
    made = footer(tmp_path, "a${helo}b")
    for _ in range(2):
        assert apply(made, BUSY).endswith(b"421 4.3.2 ab\r\n")
    assert made.warnings == ['unknown macro name "helo" in expansion request']


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("${client_port", 'truncated macro reference: "${client_port"'),  # as postscreen says it
        ("$ x", 'empty macro name: "$ x"'),
        ("${}", 'empty macro name: ""'),
        ("${client_port!x}", 'bad macro name: "client_port!x"'),
        ("${client_port?{a}:{b}c}", 'bad text after }: "client_port?{a}:{b}c"'),
        ("${nope?{a}b}", 'bad text after }: "nope?{a}b"'),
    ],
)
def test_a_template_that_cannot_be_read_changes_nothing(tmp_path: Path, template: str, said: str) -> None:
    made = footer(tmp_path, template)
    assert apply(made, BUSY) == BUSY
    assert made.warnings == [said]


def test_maps_come_first_and_see_the_reply(tmp_path: Path) -> None:
    made = footer(tmp_path, "plain", '"regexp:{{/^521 5.3.2 Service/ mapped}, {/blocked using ([^ ]+)$/ see $1}}"')
    assert apply(made, b"521 5.3.2 Service currently unavailable\r\n").endswith(b"521 5.3.2 mapped\r\n")
    assert apply(made, b"550 5.7.1 Service unavailable; blocked using bl.test\r\n").endswith(
        b"550 5.7.1 see bl.test\r\n"
    )
    assert apply(made, BUSY).endswith(b"421 4.3.2 plain\r\n")


def test_the_expansion_filter_rules_values_and_not_the_template(tmp_path: Path) -> None:
    made = footer(tmp_path, "1: $client_address", more='expansion_filter = "0127"')
    assert apply(made, BUSY).endswith(b"421 4.3.2 1: 127_0_0__1\r\n")


def test_active(tmp_path: Path) -> None:
    assert not footer(tmp_path, "").active
    assert footer(tmp_path, "x").active
    assert footer(tmp_path, "", '"static:x"').active
