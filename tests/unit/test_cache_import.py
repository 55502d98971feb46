"""fastscreen cache import of postscreen's records."""

from __future__ import annotations

import fcntl
import io
import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from cachefixture import stamps

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.merge import SETTLED_SECONDS, Merged, merge
from fastscreen.cache.stamps import merged
from fastscreen.cli import main
from fastscreen.config.model import Prefix
from fastscreen.postfix import cache_dump
from fastscreen.postfix.cache_dump import SourceError, parse, read_lines

NOW = 1_763_848_061
LATER = NOW + 86400


def taken(*lines: str, prefix: Prefix = Prefix()) -> cache_dump.ParsedCache:  # noqa: B008 - a tuple of two numbers
    return parse(lines, NOW, prefix, lambda done: None)


def key(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def test_stamps_are_kept() -> None:
    found = taken(
        f"192.0.2.1\t{LATER};0;1;{NOW - 9};1\n",
        f"2001:db8::1 {LATER}\n",
        f"192.0.2.2 {LATER};1;1;1;1;77;88\n",
        f"_LAST_CACHE_CLEANUP_COMPLETED_\t{NOW}\n",
        "\n",
    )
    assert found.records == {
        key("192.0.2.1"): stamps(LATER, 0, 1, NOW - 9, 1),
        key("2001:db8::1"): stamps(LATER, 1, 1, 1, 1),
        key("192.0.2.2"): stamps(LATER, 1, 1, 1, 1),
    }
    assert (found.expired, found.damaged) == (0, 0)


def test_expired_ones_are_left_out() -> None:
    found = taken(
        f"192.0.2.1 {NOW};{NOW - 1};1;1;1", "192.0.2.2 0;0;0;0;0", "192.0.2.3 1;1;1;1;1", f"192.0.2.4 {NOW + 1}"
    )
    assert list(found.records) == [key("192.0.2.4")]
    assert found.expired == 3


@pytest.mark.parametrize(
    "line",
    [
        f"nobody {LATER}",
        f"192.0.2.300 {LATER}",
        "192.0.2.1",
        "192.0.2.1 ",
        "192.0.2.1 later",
        f"192.0.2.1 {LATER};-1",
        f"192.0.2.1 {LATER};",
        f"192.0.2.1 {'9' * 30}",
        f"192.0.2.1 {LATER}" + ";1" * 5000,
        "\0\x1b[31m",
        f"fe80::1%eth0 {LATER}",
    ],
)
def test_damaged_lines_are_named(line: str) -> None:
    found = taken(f"192.0.2.9 {LATER}", line)
    assert list(found.records) == [key("192.0.2.9")]
    assert found.damaged == 1
    assert found.examples[0].startswith("line 2: ") and found.examples[0].isprintable()


def test_only_the_first_damaged_lines_are_named() -> None:
    found = taken(*["x y"] * 100)
    assert (found.damaged, len(found.examples)) == (100, 5)


def test_clients_of_a_prefix_share_the_latest_stamps() -> None:
    found = taken(f"192.0.2.1 {LATER};5", f"192.0.2.2 7;{LATER}", prefix=Prefix(24, 64))
    assert found.records == {key("192.0.2.0") + b"\x18": stamps(LATER, LATER, 1, 1, 1)}


def test_merged() -> None:
    assert merged((0, 1, 5, 0, 9), (1, 0, 4, 0, 10)) == (1, 1, 5, 0, 10)


def opened(path: Path) -> LmdbCache:
    cache = LmdbCache(path, warn=print, log=print, wake=lambda callback: callback())
    cache.open()
    return cache


def test_the_later_stamp_wins_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    records = {key("192.0.2.1"): stamps(LATER, 1, 1, 1, 1), key("192.0.2.2"): stamps(5, 5, 5, 5, 5)}
    assert merge(path, records, lambda done: None, pytest.fail) == Merged(2, 0, 0)
    more = {
        key("192.0.2.1"): stamps(7, LATER, 1, 1, 1),
        key("192.0.2.2"): stamps(4, 4, 1, 0, 5),
        key("192.0.2.3"): stamps(9, 9, 9, 9, 9),
    }
    assert merge(path, more, lambda done: None, pytest.fail) == Merged(1, 1, 1)
    cache = opened(path)
    assert cache.lookup(key("192.0.2.1")) == stamps(LATER, LATER, 1, 1, 1)
    assert cache.lookup(key("192.0.2.2")) == stamps(5, 5, 5, 5, 5)
    cache.close()


def test_what_a_worker_writes_meanwhile_undoes_nothing(tmp_path: Path) -> None:
    """The worker, another process, stores a client that it did not know when the merge was at work."""
    path = tmp_path / "cache"
    merge(path, {key("192.0.2.9"): stamps(LATER, 1, 1, 1, 1)}, lambda done: None, pytest.fail)
    ready, go, done = os.pipe(), os.pipe(), os.pipe()
    worker = os.fork()
    if worker == 0:
        try:
            cache = opened(path)
            cache.lookup(key("192.0.2.1"))
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            cache.store(key("192.0.2.1"), (LATER + 5, 0, 0, 0, 0))
            cache.close()
            os.write(done[1], b"x")
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        os.write(go[1], b"x")
        os.read(done[0], 1)

    merge(path, {key("192.0.2.1"): stamps(LATER, LATER, 1, 1, 1)}, lambda done: None, pytest.fail, wait)
    os.waitpid(worker, 0)
    assert waited == [SETTLED_SECONDS]
    cache = opened(path)
    assert cache.lookup(key("192.0.2.1")) == stamps(LATER + 5, LATER, 1, 1, 1)
    cache.close()


@pytest.mark.parametrize("source", ["lmdb", "lmdb:", "", "lmdb:/nowhere/cache", "btree:/nowhere/cache"])
def test_sources_that_are_none(source: str) -> None:
    with pytest.raises(SourceError):
        list(read_lines(source, None))


def program(folder: Path, text: str) -> str:
    """A postmap of the test's own."""
    path = folder / "postmap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_of_a_line_that_is_no_record_only_the_beginning_is_kept() -> None:
    long = "x" * 100_000
    lines = list(cache_dump.truncated_lines(io.StringIO(f"one\n{long}\n192.0.2.1 {LATER}\n{long}")))
    assert [len(line) for line in lines] == [4, cache_dump.MAX_LINE + 1, len(lines[2]), cache_dump.MAX_LINE + 1]
    found = taken(*lines)
    assert (list(found.records), found.damaged) == ([key("192.0.2.1")], 3)


def test_what_postmap_says_cannot_hold_it_up(tmp_path: Path) -> None:
    """More than a pipe holds, before the records."""
    warns = f"yes warning | head -c 300000 >&2; echo '192.0.2.1\t{LATER}'"
    assert list(read_lines("cdb:x", program(tmp_path, warns))) == [f"192.0.2.1\t{LATER}\n"]
    fails = f"{warns}; echo postmap: fatal: this >&2; exit 1"
    with pytest.raises(SourceError, match=r"^postmap: fatal: this$"):
        list(read_lines("cdb:x", program(tmp_path, fails)))
    with pytest.raises(SourceError, match=r"^cdb:x: postmap ended with signal 9$"):
        list(read_lines("cdb:x", program(tmp_path, "kill -9 $$")))


def test_lmdb_is_read_where_postmap_does_not_know_it(tmp_path: Path) -> None:
    postmap = program(tmp_path, "echo 'postmap: fatal: unsupported dictionary type: lmdb' >&2; exit 1")
    made_lmdb(tmp_path / "x.lmdb", "192.0.2.1")
    for source in (f"lmdb:{tmp_path}/x", f"proxy:lmdb:{tmp_path}/x"):
        assert list(read_lines(source, postmap)) == ["192.0.2.1\t1"]
    with pytest.raises(SourceError, match="unsupported"):
        list(read_lines(f"cdb:{tmp_path}/x", postmap))


def made_lmdb(path: Path, *keys: str) -> None:
    with lmdb.open(str(path), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        for each in keys:
            transaction.put(f"{each}\0".encode(), b"1\0")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10])
def test_an_lmdb_file_is_read_in_slices(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_dump, "_BATCH", size)
    made_lmdb(tmp_path / "x.lmdb", "a", "b", "bb", "k" * 510)
    assert list(read_lines(f"lmdb:{tmp_path}/x", None)) == ["a\t1", "b\t1", "bb\t1", f"{'k' * 510}\t1"]


@pytest.mark.parametrize("lock", [fcntl.lockf, fcntl.flock])
def test_an_lmdb_file_is_not_read_while_postscreen_writes(lock: Callable[..., None], tmp_path: Path) -> None:
    """Another process holds Postfix's lock, and writes when it sees that the lock is waited for."""
    path = tmp_path / "x.lmdb"
    made_lmdb(path, "a")
    ready = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            with path.open("r+b") as file:
                lock(file, fcntl.LOCK_EX)
                os.write(ready[1], b"x")
                waiting = re.compile(rf"-> .* {os.getppid()} [0-9a-f:]+:{path.stat().st_ino} ")
                while not waiting.search(Path("/proc/locks").read_text()):
                    time.sleep(0.01)
                record = tmp_path / "new.lmdb"
                made_lmdb(record, "a", "b")
                file.write(record.read_bytes())
                file.flush()
                lock(file, fcntl.LOCK_UN)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    try:
        assert list(read_lines(f"lmdb:{tmp_path}/x", None)) == ["a\t1", "b\t1"]
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


@pytest.mark.parametrize("lock", [fcntl.lockf, fcntl.flock])
def test_a_btree_that_postscreen_has_open(lock: Callable[..., None], tmp_path: Path) -> None:
    """It keeps its lock as long as it runs, and postmap would wait for that."""
    path = tmp_path / "x.db"
    path.touch()
    ready = os.pipe()
    postscreen = os.fork()
    if postscreen == 0:
        with path.open("r+b") as file:
            lock(file, fcntl.LOCK_EX)
            os.write(ready[1], b"x")
            signal.pause()
    os.read(ready[0], 1)
    try:
        with pytest.raises(SourceError, match="in use by postscreen"):
            list(read_lines(f"btree:{tmp_path}/x", "/nowhere/postmap"))
    finally:
        os.kill(postscreen, signal.SIGKILL)
        os.waitpid(postscreen, 0)


@pytest.mark.parametrize(
    ("source", "name"), [("lmdb", "x.lmdb"), ("btree", "x.db"), ("hash", "x.db"), ("texthash", "x")]
)
def test_nobody_waits_at_a_pipe(source: str, name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "toml").write_text(f'[cache]\npath = "{tmp_path}/cache"\n')
    words = ["cache", "import", "--dry-run", "-c", str(tmp_path / "toml"), f"{source}:{tmp_path}/x"]
    command = [sys.executable, "-m", "fastscreen", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fastscreen: {tmp_path}/{name}: is a pipe; ")


def test_a_btree_without_postmap(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with pytest.raises(SourceError, match="postmap is missing on this machine"):
        list(read_lines(f"btree:{tmp_path}/x", None))


def test_memcache_lists_nothing() -> None:
    with pytest.raises(SourceError, match="backup table that is named"):
        list(read_lines("memcache:/etc/postfix/memcache.cf", "/nowhere/postmap"))


def test_a_file_that_is_no_lmdb(tmp_path: Path) -> None:
    (tmp_path / "x.lmdb").write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(SourceError, match=r"x\.lmdb: "):
        list(read_lines(f"lmdb:{tmp_path}/x", None))


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "fastscreen.toml"
    path.write_text(f'handoff.to = "sink:"\ncache.path = "{tmp_path}/state/cache"\ncontrol.path = ""\n')
    return path


def test_the_command(settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    later = int(time.time()) + 1000
    text = f"192.0.2.1\t{later}\n192.0.2.2\t5\nbroken\n"
    for words, said in (
        (["--dry-run"], "1 entry would be stored; skipped: 1 expired, 1 damaged"),
        ([], "1 added, 0 extended, 0 unchanged; skipped: 1 expired, 1 damaged"),
        ([], "0 added, 0 extended, 1 unchanged; skipped: 1 expired, 1 damaged"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert main(["cache", "import", *words, "-c", str(settings)]) == 0
        assert capsys.readouterr().err.splitlines() == ['fastscreen: skipped a damaged entry: line 3: "broken"', said]
        assert (settings.parent / "state").exists() != bool(words)


def test_nothing_but_damage_is_a_failure(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("what\nis this\n"))
    assert main(["cache", "import", "-c", str(settings)]) == 1
    assert capsys.readouterr().err.endswith("skipped: 0 expired, 2 damaged\n")
