"""SECURITY.md and CONTRIBUTING.md name files and keys that exist, and the right defaults."""

import re
from pathlib import Path

import pytest

from fastscreen.config.keys import KEYS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "SECURITY.md")
PATH = re.compile(r"`((?:ext|fastscreen|tui|tests|docs|contrib|bench|tools)/[\w./-]*)`")
DEFAULTS = {key.key: key.default.strip('"') for key in KEYS}


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    named = set(PATH.findall((ROOT / page).read_text()))
    assert named
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_named_defaults() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    found = re.findall(r"`(\w+\.\w+|\w+)` \(default `([^`]*)`", text)
    assert len(found) > 30
    assert [(key, default) for key, default in found if DEFAULTS.get(key) != default.strip('"')] == []


def test_named_keys() -> None:
    tables = "|".join({key.partition(".")[0] for key in DEFAULTS if "." in key})
    named = set(re.findall(rf"`((?:{tables})\.\w+)`", (ROOT / "SECURITY.md").read_text()))
    assert named <= set(DEFAULTS)


def test_the_processes_that_security_names() -> None:
    """By the names that ps shows: each process of the daemon, and no other."""
    sources = "\n".join(path.read_text() for path in (ROOT / "fastscreen").rglob("*.py"))
    names = set(re.findall(r'\bNAME = "(fastscreen-[a-z]+)"', sources))
    assert names
    assert set(re.findall(r"`(fastscreen-[a-z]+)`", (ROOT / "SECURITY.md").read_text())) == names
