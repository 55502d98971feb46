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
def _has(file: str, words: str) -> bool:
    return words in (ROOT / file).read_text()


def _scope(file: str) -> str:
    """The group of a file, whose tests run one after the other in one process; "" if every test is independent."""
    for folder in ("tests/soak/", "tests/sanitizer/"):
        if file.startswith(folder):
            return folder
    if file.startswith("tests/peers/"):
        return "lab" if _has(file, "lab: Lab") else file
    return file if _has(file, 'scope="module"') else ""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """Runs groups of tests in one process each: all tests that use the lab, every other file of tests/peers, the soak
    test, the loads of tests/sanitizer, and every file with a fixture for all its tests, which takes half a minute in
    some. All other tests are distributed one by one.

    xdist's own groups (--dist loadgroup) cannot be used, because they change the names of tests, which pytest 9.2 does
    not allow.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it sorts by number of tests, and would start the soak test last

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0]) or nodeid


_LONGEST = (
    "tests/peers/test_bench.py",
    "tests/soak/",
    "lab",
    "tests/sanitizer/",
    "tests/robust/test_tune_daemon.py",
    "tests/peers/test_bench_pairs.py",
)
"""Groups that take minutes. Each is started first, in its own process."""
_FOLDERS = ("tests/peers", "tests/robust", "tests/tui", "tests/property")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several pytest processes, start the longest tests first, so that all processes end at the same time."""
    if not hasattr(config, "workerinput"):
        return

    def rank(item: pytest.Item) -> tuple[int, int]:
        file = item.nodeid.partition("::")[0]
        group, folder = _scope(file), file.rpartition("/")[0]
        return (
            _LONGEST.index(group) if group in _LONGEST else len(_LONGEST),
            _FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS),
        )

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Use this scheduler for every --dist."""
    return GroupScheduling(config, log)


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
