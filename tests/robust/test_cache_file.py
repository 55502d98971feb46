"""Anything else at the path of the cache is logged once, and clients are served."""

import os
import random
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import TEASER, Screener, wait_until


def with_cache(folder: Path) -> dict[str, dict[str, str]]:
    return {"cache": {"path": str(folder / "cache")}}


def give(path: Path, folder: Path) -> None:
    """Make the file the screener's own."""
    found = folder.stat()
    os.chown(path, found.st_uid, found.st_gid)


def new_and_old(screener: Screener, source: str) -> None:
    """The cache works: a client is new once."""
    with screener.connect(source) as client:
        assert client.read() == TEASER + FROM_MTA
        screener.line(rf"PASS NEW {client.pattern}")

    def passes_old() -> bool:
        # A second session next to one whose hand-off is not confirmed yet does not log a PASS line (reference 2.3).
        with screener.connect(source) as again:
            assert again.read() == FROM_MTA
            return bool(screener.lines(rf"PASS OLD {again.pattern}"))

    wait_until(passes_old, "PASS OLD")


@pytest.mark.parametrize("content", ["noise", "text", "truncated", "garbled"])
def test_damaged_file_is_moved_aside(start: Start, folder: Path, mta: FakeMta, content: str) -> None:
    path = folder / "cache"
    if content in ("truncated", "garbled"):
        screener = start(with_cache(folder))
        clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 101)]
        for client in clients:
            assert client.read() == TEASER + FROM_MTA
        screener.stop()
        sound = path.read_bytes()
        page = 4096
        noise = random.Random(1).randbytes(len(sound))
        path.write_bytes(sound[: 2 * page + 100] if content == "truncated" else sound[: 2 * page] + noise[2 * page :])
    else:
        path.write_bytes(random.Random(1).randbytes(100000) if content == "noise" else b"192.0.2.1 OK\n" * 1000)
        give(path, folder)
    screener = start(with_cache(folder))
    screener.line(
        r"warning: cache lmdb:\S+ is damaged or foreign \(.+\): moved to \S+\.damaged-\d+, a new file is created"
    )
    assert len(list(folder.glob("cache.damaged-*[0-9]"))) == 1
    new_and_old(screener, "127.1.1.1")
    assert len(screener.lines("warning")) == 1


def test_file_that_vanishes_while_it_is_used(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(with_cache(folder))
    new_and_old(screener, "127.1.0.1")
    (folder / "cache").unlink()
    wait_until(lambda: (folder / "cache").exists(), "a new file")
    new_and_old(screener, "127.1.0.2")


@pytest.mark.parametrize("what", ["folder in its place", "folder not writable", "file of another"])
def test_file_that_cannot_be_opened(start: Start, folder: Path, mta: FakeMta, what: str) -> None:
    """One warning; every client is new, and served."""
    path = folder / "sub" / "cache"
    path.parent.mkdir()
    if what == "folder in its place":
        path.mkdir()
        give(path.parent, folder)
    elif what == "folder not writable":
        path.parent.chmod(0o555)
    else:
        give(path.parent, folder)
        path.touch(mode=0o400)
    screener = start(with_cache(path.parent))
    descriptors = screener.descriptors()
    for _ in range(2):
        with screener.connect("127.1.0.1") as client:
            assert client.read() == TEASER + FROM_MTA
        wait_until(lambda: screener.descriptors() == descriptors, "the end of the hand-off")
    assert len(screener.lines("PASS NEW")) == 2
    assert len(screener.lines(r"warning: cache lmdb:\S+: cannot be opened: .+; every client is new")) == 1
    assert len(screener.lines("warning")) == 1


def test_folder_that_becomes_read_only(start: Start, folder: Path, mta: FakeMta) -> None:
    """What is open goes on."""
    screener = start(with_cache(folder))
    folder.chmod(0o555)
    try:
        new_and_old(screener, "127.1.0.1")
    finally:
        folder.chmod(0o755)
