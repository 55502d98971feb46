"""What all tests share: the peers of tests/peers, started once a session, and the list of those that were missing."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import needs
from peers.lab import Lab
from xdist.scheduler import LoadScopeScheduling


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A real Postfix, rbldnsd and fastscreen processes in a namespace of their own."""
    peers = Lab()
    try:
        yield peers
    finally:
        peers.close()


ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def _uses_lab(file: str) -> bool:
    return "lab: Lab" in (ROOT / file).read_text()


class LabTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """With several pytest processes, the lab is started in one of them only; every other file of tests/peers stays in
    one, for what it has started itself, and the loads of tests/sanitizer come one after the other, for they take all of
    the machine. Every other test is for itself.

    xdist's own groups (--dist loadgroup) are written into the tests' names, which pytest 9.2 does not let it.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/sanitizer/"):
            return file
        if not file.startswith("tests/peers/"):
            return nodeid
        return "lab" if _uses_lab(file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LabTogether:
    """Whatever --dist says."""
    return LabTogether(config, log)


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
