"""A daemon whose core is built with sanitizers. Whatever they report is a failure: a worker that they end is missed by
the harness, and so is a word on standard error."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from robust import harness
from robust.conftest import Alter, Start, dns, folder, mta, start

from sanitizer import build

__all__ = ["Start", "dns", "folder", "mta", "start"]


@pytest.fixture(scope="session")
def core() -> Path:
    """The folder with the sanitized core's package; built once."""
    return build.build()


@pytest.fixture(autouse=True)
def sanitized(core: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the harness start the daemon with it."""
    monkeypatch.setattr(harness, "COMMAND", _program(core, folder / "sanitized", "-m fastscreen"))


@pytest.fixture
def alter(core: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Alter:
    """As that of tests/robust, with the sanitized core."""

    def first(statements: str) -> None:
        altered = folder / "altered.py"
        altered.write_text(f"import sys\nfrom fastscreen.cli import main\n{statements}\nsys.exit(main())\n")
        program = _program(core, folder / "altered", shlex.quote(str(altered)))
        monkeypatch.setattr(harness, "COMMAND", program)

    return first


def _program(core: Path, program: Path, arguments: str) -> Path:
    """Write a program that runs Python with the sanitized core."""
    settings = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in build.environment(core).items())
    program.write_text(f'#!/bin/sh\n{settings}\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def seconds() -> Iterator[float]:
    """How long a load lasts: FASTSCREEN_SANITIZER_SECONDS; by default what CI has time for."""
    yield float(os.environ.get("FASTSCREEN_SANITIZER_SECONDS", "10"))
