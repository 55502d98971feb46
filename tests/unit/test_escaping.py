"""Text from the network reaches a terminal only as printable ASCII."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.escaping import MAX_ERROR, MAX_TEXT, cleaned, escape_bytes, one_line, printable, unexpected

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=40) | st.text(max_size=40)


def texts(value: Any) -> list[str]:
    """All strings in a structure."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    return [text for part in value for text in texts(part)] if isinstance(value, list) else []


def test_c_escapes_as_in_the_log() -> None:
    assert escape_bytes(b'EHLO \x1b]0;x\x07 \\ "\x00\x7f\xc3\xa9\r\n\t\b\v\f') == (
        r'EHLO \033]0;x\a \\ "\000\177\303\251\r\n\t\b\v\f'
    )


def test_text_of_the_daemons_own() -> None:
    assert printable(r"talked \r\n too soon") == r"talked \r\n too soon"
    assert printable("a\u202eb\u0301\x1b[31m") == r"a\342\200\256b\314\201\033[31m"
    assert printable("\udc80") == r"\355\262\200"


def test_bounds() -> None:
    assert escape_bytes(b"x" * 2000) == "x" * MAX_TEXT + "..."
    assert printable("x" * 2000) == "x" * MAX_TEXT + "..."
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    assert "<list>" in str(cleaned(deep))


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4)))
def test_only_printable_ascii_is_left(value: Any) -> None:
    assert all(text.isascii() and text.isprintable() for text in texts(cleaned(value)))


def test_numbers_that_are_no_times() -> None:
    assert cleaned([float("nan"), float("inf"), 1e300, 5.5]) == [0.0, 0.0, 0.0, 5.5]


class Mute(Exception):
    """Its text cannot even be made."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "line", "with_type"),
    [
        (ValueError("a\n  b"), "a b", "ValueError: a b"),
        (OSError(2, "No such file", "/x/y"), "/x/y: No such file", "FileNotFoundError: /x/y: No such file"),
        (OSError(28, "No space left"), "No space left", "OSError: No space left"),
        (OSError("no descriptors"), "no descriptors", "OSError: no descriptors"),
        (KeyError(), "KeyError", "KeyError"),
        (ValueError("x" * 5000), "x" * MAX_ERROR, "ValueError: " + "x" * MAX_ERROR),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str, with_type: str) -> None:
    assert one_line(error) == line
    assert unexpected(error) == with_type


def test_an_error_without_a_text() -> None:
    assert unexpected(Mute()) == "Mute: ?"
