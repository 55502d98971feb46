"""The values of [history]."""

import pytest

from fastscreen import config
from fastscreen.config import ConfigError
from fastscreen.config.model import History


def history(text: str) -> History:
    return config.parse(f"[history]\n{text}\n", "x.toml").history


def test_it_is_off_by_default() -> None:
    assert config.parse("", "x.toml").history == History() == config.default().history
    assert History().path == "" and History().keep == 30 * 86400 and History().max_size == 4 << 30


@pytest.mark.parametrize(
    ("text", "known"),
    [("all", 1), ("ALL", 1), ("none", 0), ("sample 1/10", 10), ("sample 1/1", 1), ("sample 1/1000000", 10**6)],
)
def test_known(text: str, known: int) -> None:
    assert history(f'known = "{text}"').known == known


@pytest.mark.parametrize(
    ("text", "mask"), [("", None), ("/24 /48", (24, 48)), ("/8 /16", (8, 16)), ("/32 /128", (32, 128))]
)
def test_mask(text: str, mask: tuple[int, int] | None) -> None:
    assert history(f'mask = "{text}"').mask == mask


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('known = "sample 1/0"', 'history.known: unknown value "sample 1/0"; expected "all", "none", or "sample 1/N"'),
        ('known = "sample 2/3"', "unknown value"),
        ('known = "sample 1/1000001"', "unknown value"),
        ("known = 1", "1 is not a string"),
        ('mask = "/24"', 'history.mask: bad mask "/24"; expected two prefix lengths, such as "/24 /48"'),
        ('mask = "/7 /48"', "bad mask"),
        ('mask = "/24 /129"', "bad mask"),
        ('mask = "24 48"', "bad mask"),
        ('path = "history"', 'history.path: bad path "history"; expected an absolute path'),
        ('max_size = "15M"', "history.max_size: size"),
        ('keep = "0d"', "history.keep: time"),
    ],
)
def test_mistakes(line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        history(line)
    (found,) = raised.value.problems
    assert problem in found
