"""Versions of Postfix that the differential tests can run: how they are read, and which the page compares."""

from pathlib import Path

import pytest
from peers import postfixroot


@pytest.mark.parametrize(
    ("text", "version"),
    [("3.7.11", (3, 7, 11)), ("3.10", (3, 10)), ("3.12-20260821", (3, 12)), ("4.0.1-RC2", (4, 0, 1))],
)
def test_versions(text: str, version: postfixroot.Version) -> None:
    assert postfixroot.parsed(text) == version


@pytest.mark.parametrize("text", ["", "3", "now", "v3.7"])
def test_what_is_not_a_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a Postfix version"):
        postfixroot.parsed(text)


def test_compared_versions() -> None:
    """Without their patch levels: a new one of these is run, a new series is named first."""
    assert postfixroot.described() >= {(3, 7), (3, 10), (3, 11)}
    assert (3, 99) not in postfixroot.described()


def test_installed_one_needs_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(postfixroot.VARIABLE, "")
    assert postfixroot.chosen() is None
    assert postfixroot.enter(None, tmp_path, ["inside"]) == ["inside"]
    monkeypatch.setenv(postfixroot.VARIABLE, str(tmp_path))
    assert postfixroot.chosen() == tmp_path
    assert postfixroot.prefix(tmp_path) == ["chroot", str(tmp_path)]
