"""Whatever is done to the cache's files while two processes use them: when it is over, passes are stored and found
again, without a restart. A process that a truncated map kills is started again, as the supervisor does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers import needs

from robust import cacheuser
from robust.harness import wait_until

SECONDS = 60.0  # to hang; healing takes 1 to 10 s on an idle machine
Damage = Callable[[Path, random.Random], Callable[[], None]]


class User:
    """A process that uses the cache, started again when it is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.deaths = 0
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, cacheuser.__file__, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self._expect("ready")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.lines.extend(process.stderr)

    def _expect(self, *answers: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line not in answers:
            raise BrokenPipeError(line)
        return line

    def ask(self, command: str, key: bytes) -> bool:
        """True for a key that was found. A dead process is replaced, and has found nothing."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(f"{command} {key.hex()}\n")
            self.process.stdin.flush()
            return command == "find" and self._expect("0", "1") == "1"
        except BrokenPipeError:
            self.process.wait()
            assert self.process.returncode < 0, "".join(self.lines)  # by a signal, not by an exception
            self.deaths += 1
            self._start()
            return False

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=SECONDS)


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 16 MB, for nobody."""
    needs.root("a separate file system")
    libc = ctypes.CDLL(None, use_errno=True)
    made = Path(f"/tmp/fastscreen-cache-{os.getpid()}-{time.monotonic_ns()}")
    made.mkdir()
    if libc.mount(b"fastscreen-test", bytes(made), b"tmpfs", 0, b"size=16m") != 0:
        needs.miss(f"mount: {os.strerror(ctypes.get_errno())}")
    os.chown(made, cacheuser.NOBODY, cacheuser.NOBODY)
    try:
        yield made
    finally:
        libc.umount2(bytes(made), 2)
        shutil.rmtree(made)


def own(path: Path) -> None:
    os.chown(path, cacheuser.NOBODY, cacheuser.NOBODY, follow_symlinks=False)


def meta_pages(path: Path, chance: random.Random) -> Callable[[], None]:
    with path.open("r+b") as file:
        file.write(chance.randbytes(8192))
    return lambda: None


def one_meta_page(path: Path, chance: random.Random) -> Callable[[], None]:
    """Only its numbers: which page is the last, which transaction it was."""
    with path.open("r+b") as file:
        file.seek(chance.choice((0, 4096)) + 136)
        file.write(chance.randbytes(7) + b"\0" + chance.randbytes(7) + b"\0")
    return lambda: None


def somewhere(path: Path, chance: random.Random) -> Callable[[], None]:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(chance.randrange(max(1, size)))
        file.write(chance.randbytes(chance.choice((10, 4096, 100_000))))
    return lambda: None


def truncated(path: Path, chance: random.Random) -> Callable[[], None]:
    os.truncate(path, chance.choice((0, 1, 4096, 8192, path.stat().st_size // 2)))
    return lambda: None


def replaced(path: Path, chance: random.Random) -> Callable[[], None]:
    other = path.with_name("other")
    other.write_bytes(chance.randbytes(chance.choice((0, 100, 50_000))))
    own(other)
    other.rename(path)
    return lambda: None


def deleted(path: Path, chance: random.Random) -> Callable[[], None]:
    path.unlink()
    if chance.random() < 0.5:
        path.with_name("cache-lock").unlink()
    return lambda: None


def no_rights(path: Path, chance: random.Random) -> Callable[[], None]:
    what = chance.choice((path, path.parent, path.with_name("cache-lock")))
    mode = what.stat().st_mode
    what.chmod(0)
    return lambda: what.chmod(mode)


def directory(path: Path, chance: random.Random) -> Callable[[], None]:
    path.unlink()
    path.mkdir()
    return path.rmdir


def symlink(path: Path, chance: random.Random) -> Callable[[], None]:
    target = path.with_name("target")
    target.write_bytes(b"not to be touched")
    own(target)
    what = chance.choice((path, path.with_name("cache-lock")))
    what.unlink()
    what.symlink_to(target)
    return what.unlink


def lock_removed(path: Path, chance: random.Random) -> Callable[[], None]:
    path.with_name("cache-lock").unlink()
    return lambda: None


def lock_overwritten(path: Path, chance: random.Random) -> Callable[[], None]:
    with path.with_name("cache-lock").open("r+b") as file:
        file.write(chance.choice((bytes(16), chance.randbytes(16))))
    return lambda: None


def no_space(path: Path, chance: random.Random) -> Callable[[], None]:
    filler = path.with_name("filler")
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler.unlink


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        *(meta_pages, one_meta_page, somewhere, truncated, replaced, deleted, no_rights, directory, symlink),
        *(lock_removed, lock_overwritten, no_space),
    )
}


def heals(path: Path, users: list[User], chance: random.Random) -> None:
    """What one process stores from now on is found by the other, each way."""
    for storing, finding in (users, users[::-1]):
        keys: list[bytes] = []

        def passed(storing: User = storing, finding: User = finding, keys: list[bytes] = keys) -> bool:
            key = b"\x0b" + chance.randbytes(3)
            keys.append(key)
            storing.ask("store", key)
            time.sleep(0.5)
            return any(finding.ask("find", each) for each in keys)

        wait_until(passed, lambda: "a stored pass:\n" + "".join(users[0].lines + users[1].lines), SECONDS)


@pytest.fixture
def users(disk: Path) -> Iterator[list[User]]:
    users = [User(disk / "cache") for _ in range(2)]
    yield users
    for user in users:
        user.close()


@pytest.mark.parametrize("name", list(DAMAGES))
def test_heals(name: str, disk: Path, users: list[User]) -> None:
    path, chance = disk / "cache", random.Random(name)
    heals(path, users, chance)
    for _ in range(2):
        time.sleep(chance.random())
        mend = DAMAGES[name](path, chance)
        time.sleep(chance.uniform(0, 3))
        mend()
        heals(path, users, chance)
    if name == "symlink":
        assert (disk / "target").read_bytes() == b"not to be touched"
    if name in ("meta_pages", "directory", "no_space", "no_rights"):
        assert [user.deaths for user in users] == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_heals_from_several_at_once(seed: int, disk: Path, users: list[User]) -> None:
    path, chance = disk / "cache", random.Random(seed)
    heals(path, users, chance)
    for _ in range(3):
        mends = []
        for name in chance.sample(list(DAMAGES), 3):
            # One may take away what the next one wants to damage.
            with contextlib.suppress(OSError):
                mends.append(DAMAGES[name](path, chance))
            time.sleep(chance.random())
        for mend in reversed(mends):
            with contextlib.suppress(OSError):
                mend()
        heals(path, users, chance)
