"""What all tests share: the peers of tests/peers, started once a session, and the list of those that were missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import needs
from peers.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A real Postfix, rbldnsd and fastscreen processes in a namespace of their own."""
    peers = Lab()
    try:
        yield peers
    finally:
        peers.close()


@pytest.hookimpl(tryfirst=True)  # before xdist's own, which looks for the mark once
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several pytest processes (xdist), the peers are started in one of them only."""
    peers = Path(__file__).parent / "peers"
    for item in items:
        if peers in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("peers"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary what was missing in this one."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missed"] = needs.missed


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Gather what was missing in the other processes."""
    needs.missed += [
        reason for reason in getattr(node, "workeroutput", {}).get("missed", []) if reason not in needs.missed
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every peer that was missing, and the one command that installs them."""
    if lines := needs.summary():
        terminalreporter.section("left out")
        for line in lines:
            terminalreporter.write_line(line)
