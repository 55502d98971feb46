"""Shared by all tests: the peers of tests/peers, started once per session, and the list of missing peers."""

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
    """A real Postfix, rbldnsd and fastscreen processes in a separate namespace."""
    peers = Lab()
    try:
        yield peers
    finally:
        peers.close()


ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def _uses_lab(file: str) -> bool:
    return "lab: Lab" in (ROOT / file).read_text()


def _scope(file: str) -> str:
    """The group of a file, whose tests run one after the other in one process; "" if every test is independent."""
    if file.startswith("tests/soak/") or file == "tests/peers/test_bench.py":
        return "long"
    if file.startswith("tests/peers/"):
        return "lab" if _uses_lab(file) else file
    return "tests/sanitizer" if file.startswith("tests/sanitizer/") else ""


class LabTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """With several pytest processes, the lab is started in one of them only; every other file of tests/peers stays in
    one, for what it has started itself. Loads that take all of the machine come one after the other: those of
    tests/sanitizer, and the soak test and the benchmarks, which take minutes. Every other test is for itself.

    xdist's own groups (--dist loadgroup) are written into the tests' names, which pytest 9.2 does not let it.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by number of tests: the soak test, which is one, would come last

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0]) or nodeid


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several pytest processes, begin with what takes longest, so that no process is left alone with it."""
    if not hasattr(config, "workerinput"):
        return
    first = {"long": 0, "lab": 1, "tests/sanitizer": 2}
    scopes = {file: _scope(file) for file in {item.nodeid.partition("::")[0] for item in items}}

    def turn(item: pytest.Item) -> int:
        scope = scopes[item.nodeid.partition("::")[0]]
        return first.get(scope, 3 if scope else 4)

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LabTogether:
    """Use this scheduler for every --dist."""
    return LabTogether(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the missing peers of this process to the one that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missed"] = needs.missed


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Collect the missing peers of the other processes."""
    needs.missed += [
        reason for reason in getattr(node, "workeroutput", {}).get("missed", []) if reason not in needs.missed
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List all missing peers, and the command that installs them."""
    if lines := needs.summary():
        terminalreporter.section("skipped because of missing peers")
        for line in lines:
            terminalreporter.write_line(line)
