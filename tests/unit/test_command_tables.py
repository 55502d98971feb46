"""Forbidden commands and the command filter."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastscreen.screening.command_tables import CommandFilter, ForbiddenCommands
from fastscreen.tables import TableError

DEFAULT = ("CONNECT", "GET", "POST", "regexp:{{/^[^A-Z]/ Bogus}}")


@pytest.mark.parametrize("word", [b"GET", b"get", b"Connect", b"123", b"\x16\x03", b"\xff\xfe", b"{"])
def test_forbidden_by_default(word: bytes) -> None:
    assert ForbiddenCommands(DEFAULT).match(word)


@pytest.mark.parametrize("word", [b"FOO", b"gett", b""])
def test_not_forbidden_by_default(word: bytes) -> None:
    assert not ForbiddenCommands(DEFAULT).match(word)


def test_order_negation_and_files(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("PUT, DELETE\n# comment\nHEAD\n")
    made = ForbiddenCommands(["!GET", "static:x"])
    assert not made.match(b"get")
    assert made.match(b"put")
    made = ForbiddenCommands([f"{tmp_path}/words", "inline:{OPTIONS=x}"])
    assert [made.match(word) for word in (b"put", b"head", b"options", b"get")] == [True, True, True, False]


def test_a_command_filter() -> None:
    made = CommandFilter("pcre:{{/^foo (.*)/ NOOP $1}, {/^bar/}}")
    assert made.apply(b" \tFOO b\xffr") == (b"NOOP b\xffr", 'replacing command " ?FOO b?r" with "NOOP b?r"')
    assert made.apply(b"EHLO x") == (b"EHLO x", None)


def test_a_filter_logs_a_hundred_characters_of_each() -> None:
    _, logged = CommandFilter("regexp:{{/(.*)/ <$1>}}").apply(b"x" * 500)
    assert logged == f'replacing command "{"x" * 100}" with "<{"x" * 99}"'


def test_no_filter() -> None:
    assert CommandFilter("").apply(b"EHLO x") == (b"EHLO x", None)


def test_tables_that_are_not_there() -> None:
    with pytest.raises(TableError, match=r"^engine\.command_filter: pcre:/nowhere"):
        CommandFilter("pcre:/nowhere")
    with pytest.raises(TableError, match=r"^engine\.forbidden_commands: pcre:/nowhere"):
        ForbiddenCommands(["pcre:/nowhere"])
