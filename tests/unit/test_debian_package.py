"""tools/debian_package.py: versions as dpkg sorts them, and pins that apply to a Python."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from fastscreen import __version__
from tools import debian_package

ROOT = Path(__file__).resolve().parents[2]
PINS = """\
# a comment
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
rich==15.0.0 \\
    --hash=sha256:cc
"""


def test_versions_sort_as_they_are_released() -> None:
    released = ["0.9.0", "1.0.0a1", "1.0.0b2", "1.0.0rc1", "1.0.0", "1.0.1.dev3", "1.0.1"]
    sorted_by_dpkg = [
        debian_package.debian_version(each, suite) for each in released for suite in ("bookworm", "trixie")
    ]
    for older, newer in pairwise(sorted_by_dpkg):
        assert subprocess.run(["dpkg", "--compare-versions", older, "lt", newer]).returncode == 0, (older, newer)


def test_the_version_is_that_of_the_program() -> None:
    assert debian_package.debian_version(__version__, "trixie").startswith(re.split("[a-z]", __version__)[0])


@pytest.mark.parametrize(
    ("version", "expected"), [("3.11.2", ["async-timeout==5.0.1", "rich==15.0.0"]), ("3.13.5", ["rich==15.0.0"])]
)
def test_pins_of_a_python(version: str, expected: list[str]) -> None:
    environment = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    found = list(debian_package.requirements(PINS, environment))
    assert [each.split(" ")[0] for each in found] == expected
    assert found[-1] == "rich==15.0.0 \\\n--hash=sha256:cc\n"
    assert all(";" not in each for each in found)


@pytest.mark.parametrize("name", debian_package.PINS)
def test_pins_name_no_host(name: str) -> None:
    text = (ROOT / "packaging" / name).read_text()
    assert "://" not in text
    assert (
        len(re.findall(r"^[a-z].*==.* \\$", text, re.MULTILINE)) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 1
    )
