"""A hub for a test, and the command line to ask it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from commands.fakehub import FakeHub
from fastscreen.cli import main

Hub = Callable[..., FakeHub]
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Start a hub with some answers."""
    with ExitStack() as stack:

        def start(answers: dict[str, Any] | None = None, **more: Any) -> FakeHub:
            return stack.enter_context(FakeHub(tmp_path / "control", answers, **more))

        yield start


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command against it; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--socket", str(tmp_path / "control")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
