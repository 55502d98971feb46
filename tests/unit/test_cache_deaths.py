"""Workers that crash in the cache: deaths are held against the file in which they happened, and no other one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from fastscreen import channel, config, supervisor
from fastscreen.cachecheck import Inode, inode_of
from fastscreen.supervisor import Supervisor


class Deaths:
    """A supervisor that starts nothing, and what it says."""

    def __init__(self, path: Path) -> None:
        settings = config.default()
        settings = msgspec.structs.replace(settings, cache=msgspec.structs.replace(settings.cache, path=str(path)))
        self.supervisor = Supervisor(None, settings)
        self.said: list[str] = []

    def die(self, inode: Inode | None) -> None:
        """And do at once what the supervisor lets a child do."""
        self.supervisor._died_in_cache(inode)
        if job := self.supervisor._jobs.pop("cache", None):
            path, file = job.args  # type: ignore[attr-defined]
            ours, theirs = channel.pair()
            with ours, theirs:
                supervisor._move_aside(self.supervisor._held, path, file, theirs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def deaths(path: Path, monkeypatch: pytest.MonkeyPatch) -> Deaths:
    made = Deaths(path)
    log = SimpleNamespace(warning=made.said.append, flush=lambda: None)
    target = SimpleNamespace(for_child=lambda: SimpleNamespace(log=log))
    monkeypatch.setattr(made.supervisor._held, "target", target, raising=False)
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
