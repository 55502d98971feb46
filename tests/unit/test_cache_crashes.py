"""Workers that crash in the cache: a crash counts for the file in which it happened, and for no other one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.cache import lmdb_file
from fastscreen.cache.file_check import Inode, inode_of
from fastscreen.daemon import spawn
from fastscreen.daemon.cache_crashes import CacheCrashes
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.tasks import Steps, TaskQueue
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


class Crashes:
    """What the supervisor does about crashes, without processes, and what it says."""

    def __init__(self, path: Path) -> None:
        settings = config.default()
        settings = msgspec.structs.replace(settings, cache=msgspec.structs.replace(settings.cache, path=str(path)))
        self.resources = Resources(settings)
        self.tasks = TaskQueue()
        self.crashes = CacheCrashes(self.resources, self.tasks)
        self.child = Child()
        self.said = self.child.said

    def add(self, inode: Inode | None) -> None:
        """A worker has crashed; do all that follows from that."""
        self.crashes.add(inode)
        while not self.tasks.is_idle:
            self.tasks.resume()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def crashes(path: Path, monkeypatch: pytest.MonkeyPatch) -> Crashes:
    made = Crashes(path)
    monkeypatch.setattr(made.resources, "warn", made.said.append)
    monkeypatch.setattr(made.resources, "target", made.child, raising=False)
    monkeypatch.setattr(spawn, "run_in_child", made.child.run_in_child)
    return made


def test_two_crashes_in_one_file_move_it_aside(crashes: Crashes, path: Path) -> None:
    inode = inode_of(path.stat())
    crashes.add(inode)
    assert path.exists()
    crashes.add(inode)
    assert not path.exists()
    assert len(crashes.said) == 1


def test_crashes_in_the_memory_of_offenses_are_held_against_that_file(crashes: Crashes, path: Path) -> None:
    memory = path.with_name("offenses")
    memory.write_bytes(b"one")
    settings = crashes.resources.config
    score = msgspec.structs.replace(settings.score, memory=str(memory))
    crashes.resources.config = msgspec.structs.replace(settings, score=score)
    inode = inode_of(memory.stat())
    for _ in range(2):
        crashes.crashes.add(inode, lmdb_file.MEMORY)
    while not crashes.tasks.is_idle:
        crashes.tasks.resume()
    assert (memory.exists(), path.exists()) == (False, True)
    (text,) = crashes.said
    assert text.startswith(f"score.memory lmdb:{memory}: two workers crashed while they used it: moved to ")
    assert text.endswith("a new file is created and nothing is known of any client")


def test_a_crash_in_each_of_two_files_moves_none(crashes: Crashes, path: Path) -> None:
    crashes.add(inode_of(path.stat()))
    other = path.with_name("other")
    other.write_bytes(b"two")
    other.rename(path)
    crashes.add(inode_of(path.stat()))
    assert path.read_bytes() == b"two"
    assert crashes.said == []


def test_the_file_that_replaced_the_damaged_one_stays(crashes: Crashes, path: Path) -> None:
    """Both workers die of a truncated file; one of them has a sound one again before the second crash is seen."""
    old = inode_of(path.stat())
    crashes.add(old)
    other = path.with_name("other")
    other.write_bytes(b"two")
    other.rename(path)
    crashes.add(old)
    assert path.read_bytes() == b"two"
    assert crashes.said == []


def test_a_death_elsewhere_does_not_count(crashes: Crashes, path: Path) -> None:
    for _ in range(3):
        crashes.add(None)
    assert path.exists()
