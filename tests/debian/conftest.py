"""The packages' tests, which `make test-deb` runs as root; `make test` does not collect them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian.machine import Machine
from fastscreen import __version__
from tools import debian_package

SUITES = os.environ.get("FASTSCREEN_TEST_DEB", "").split()
OLD = "0.0.9"

collect_ignore_glob = [] if SUITES else ["test_*.py"]


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Return a Debian release."""
    return str(request.param)


@pytest.fixture(scope="session")
def packages(suite: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return an older package and the present one, in the folder that the machine has as /host."""
    folder = tmp_path_factory.mktemp(f"packages-{suite}")
    return debian_package.build(suite, [OLD, __version__], folder)


@pytest.fixture
def machine(suite: str, packages: list[Path]) -> Iterator[Machine]:
    """Return a Debian without fastscreen, which has been booted."""
    one = Machine(suite, packages[0].parent)
    try:
        one.boot()
        yield one
    finally:
        one.close()
