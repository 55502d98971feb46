"""What all tests share: the peers of tests/peers, started once a session, and the list of those that were missing."""

from collections.abc import Iterator

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every peer that was missing, and the one command that installs them."""
    if lines := needs.summary():
        terminalreporter.section("left out")
        for line in lines:
            terminalreporter.write_line(line)
