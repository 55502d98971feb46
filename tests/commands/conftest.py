"""A server for a test, and the command line to ask it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from commands.fakeserver import FakeServer
from fastscreen.cli import main

Server = Callable[..., FakeServer]
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start a server with some answers."""
    with ExitStack() as stack:

        def start(answers: dict[str, Any] | None = None, **more: Any) -> FakeServer:
            return stack.enter_context(FakeServer(tmp_path / "control", answers, **more))

        yield start


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command against it; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--socket", str(tmp_path / "control")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
