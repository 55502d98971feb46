"""Workers that crash in the cache: deaths are counted for the file in which they happened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.cache.file_check import Inode, inode_of
from fastscreen.daemon import spawn
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.spawn import Steps
from fastscreen.daemon.supervisor import Supervisor
from fastscreen.process.ipc import Ready, Report


class Child:
    """The log of the child that moves the file, and the child: its work is done in this process."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.log = self

    def for_child(self) -> Child:
        return self

    def warning(self, text: str) -> None:
        self.said.append(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def run_in_child(
        self, resources: Resources, work: Callable[[socket.socket], int], _: float
    ) -> Steps[Report | None]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            yield
            assert work(theirs) == 0
        return Ready()


class Deaths:
    """A supervisor that does not start processes, and its log."""

    def __init__(self, path: Path) -> None:
        settings = config.default()
        settings = msgspec.structs.replace(settings, cache=msgspec.structs.replace(settings.cache, path=str(path)))
        self.supervisor = Supervisor(None, settings)
        self.child = Child()
        self.said = self.child.said

    def die(self, inode: Inode | None) -> None:
        """Have the supervisor bury a worker, and do all that it then has to do."""
        self.supervisor._died_in_cache(inode)
        self.supervisor._starting = False
        while self.supervisor._job is not None or self.supervisor._jobs:
            self.supervisor._go_on()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def deaths(path: Path, monkeypatch: pytest.MonkeyPatch) -> Deaths:
    made = Deaths(path)
    monkeypatch.setattr(made.supervisor._resources, "warn", made.said.append)
    monkeypatch.setattr(made.supervisor._resources, "target", made.child, raising=False)
    monkeypatch.setattr(spawn, "run_in_child", made.child.run_in_child)
    return made


def test_two_deaths_in_one_file_cost_it(deaths: Deaths, path: Path) -> None:
    inode = inode_of(path.stat())
    deaths.die(inode)
    assert path.exists()
    deaths.die(inode)
    assert not path.exists()
    assert len(deaths.said) == 1


def test_a_death_in_each_of_two_files_costs_none(deaths: Deaths, path: Path) -> None:
    deaths.die(inode_of(path.stat()))
    other = path.with_name("other")
    other.write_bytes(b"two")
    other.rename(path)
    deaths.die(inode_of(path.stat()))
    assert path.read_bytes() == b"two"
    assert deaths.said == []


def test_the_file_that_replaced_the_damaged_one_stays(deaths: Deaths, path: Path) -> None:
    """Both workers die of a truncated file; one of them has a sound one again before the second death is seen."""
    old = inode_of(path.stat())
    deaths.die(old)
    other = path.with_name("other")
    other.write_bytes(b"two")
    other.rename(path)
    deaths.die(old)
    assert path.read_bytes() == b"two"
    assert deaths.said == []


def test_a_death_elsewhere_does_not_count(deaths: Deaths, path: Path) -> None:
    for _ in range(3):
        deaths.die(None)
    assert path.exists()
