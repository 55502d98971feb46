"""Opening the cache's LMDB file so that whatever lies at its path can neither stop nor kill the screener.

LMDB maps its file: a truncated one is SIGBUS, a garbled one may be SIGSEGV. So the file's size is compared with what
its meta page promises, and a child process reads it first (`python -m fastscreen.cachefile PATH MAP_SIZE`).
"""

import contextlib
import errno
import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb

# Housekeeping keys are longer than any record's key (an address, or a prefix and its length).
RECORD_KEY_MAX = 17
FORMAT_KEY = b"_FASTSCREEN_CACHE_FORMAT_"
FORMAT = b"\x01"

# Two reader slots a worker: its loop and its writer thread.
_READERS = 510
_PROBE_SECONDS = 10
_PROBE_DAMAGED = 3
_OPEN_LOCK_SECONDS = 15.0
# What reading a damaged map ends with.
CRASHES = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
_DAMAGE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.PageNotFoundError,
    lmdb.BadTxnError,
    lmdb.BadDbiError,
)


MARK_SIZE = 2 + 16
"""Bytes of shared memory by which the supervisor knows what a worker died of: one for the loop and one for the writer's
thread, not 0 while they use the file; then the file's device and inode, 8 bytes each."""

Identity = tuple[int, int]
"""Device and inode."""


def note_file(mark: memoryview, found: Identity | None) -> None:
    """The file that this process has open from now on; None: it has none."""
    device, inode = found or (0, 0)
    mark[2:MARK_SIZE] = device.to_bytes(8, "little") + inode.to_bytes(8, "little")


def noted_file(mark: memoryview) -> Identity | None:
    """The file that the worker had open."""
    found = int.from_bytes(mark[2:10], "little"), int.from_bytes(mark[10:MARK_SIZE], "little")
    return found if found != (0, 0) else None


class DamagedError(Exception):
    """The file is no sound cache file of ours; the text says why."""


class UnusableError(Exception):
    """There can be no cache file at this path now (permission, full or read-only disk, ...); the text says why."""


def move_aside(path: Path, only: Identity) -> Path | None:
    """Move a file away that no check finds fault with; return its new name. OSError: impossible.

    only: the file that is meant; None is returned when another one, or none, is at the path. Processes that have it
    open go on with it until they see that another one is at the path. May wait for other processes, for some seconds.
    """
    with _alone(path):
        found = path.stat()
        if (found.st_dev, found.st_ino) != only:
            return None
        return _move_aside(path, int(time.time()))


def reason(error: Exception) -> str:
    """What an LMDB error says, without the path and function names that it starts with."""
    return str(error).rpartition(": ")[2] or type(error).__name__


def is_damage(error: Exception) -> bool:
    """Whether an LMDB error means that the file's content is wrong, rather than the disk or the rights."""
    return isinstance(error, _DAMAGE)


def open_file(
    path: Path,
    map_size: int,
    now: Callable[[], float],
    warn: Callable[[str], None],
    damage: str | None = None,
    look_over: bool = True,
) -> Any:
    """Return an LMDB environment that is sound, after moving aside what is not.

    `map_size` is in bytes, `damage` what is known to be wrong with the file; without `look_over` another process has
    read through it just now. Raises `UnusableError`. May block for
    seconds. Not to be called while this process has the file open: closing any descriptor of the lock file would drop
    LMDB's own lock on it.
    """
    try:
        with _alone(path):
            for _ in range(3):
                try:
                    if damage is not None:
                        raise DamagedError(damage)
                    return _open_sound(path, map_size, look_over)
                except DamagedError as error:
                    aside = _move_aside(path, int(now()))
                    damage = None
                    warn(f"cache lmdb:{path} is damaged or foreign ({error}): moved to {aside}, a new one is started")
            raise UnusableError("even a new file is damaged")
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    except lmdb.Error as error:
        raise UnusableError(reason(error)) from error


def open_existing(path: Path, map_size: int) -> Any:
    """Return an environment on a file that another process made, and changes nothing when it is unsound.

    `map_size` is in bytes, at least; FileNotFoundError, `UnusableError`. As `open_file`: once a process.
    """
    path.stat()
    try:
        return _open_checked(path, map_size)
    except DamagedError as error:
        raise UnusableError(f"damaged ({error})") from error
    except lmdb.Error as error:
        raise UnusableError(reason(error)) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time checks, moves aside and creates: two workers must not move aside each other's new file."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _OPEN_LOCK_SECONDS
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield
    finally:
        os.close(directory)


def _open_sound(path: Path, map_size: int, look_over: bool) -> Any:
    lock_path = _lock_path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        # A lock file that was left alone describes another file's transactions.
        lock_path.unlink(missing_ok=True)
    else:
        if not stat.S_ISREG(found.st_mode):
            raise UnusableError("not a regular file")
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if found.st_size and look_over:
            _probe(path, map_size)
    # LMDB writes to the lock file through a map, which is SIGBUS on a full disk: take the room now.
    lock_file = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(lock_file, 0, 64 * (_READERS + 64))
    finally:
        os.close(lock_file)
    return _open_checked(path, map_size)


def _open_checked(path: Path, map_size: int) -> Any:
    """Open the environment; raise `DamagedError` for what can be seen without walking through it."""
    try:
        environment = lmdb.open(
            str(path),
            map_size=map_size,
            subdir=False,
            mode=0o600,
            metasync=False,
            readahead=False,
            meminit=False,
            max_readers=_READERS,
            max_spare_txns=1,
        )
    except lmdb.Error as error:
        if is_damage(error) or error.args[:1] == (errno.EINVAL,) or "Invalid argument" in str(error):
            raise DamagedError(reason(error)) from error
        raise
    try:
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        size = path.stat().st_size
        # A file that was just made has no pages yet.
        if environment.stat()["entries"] and size < needed:
            raise DamagedError(f"truncated to {size} of {needed} bytes")
        environment.reader_check()
        _check_format(environment)
    except BaseException as error:
        environment.close()
        if isinstance(error, lmdb.Error) and is_damage(error):
            raise DamagedError(reason(error)) from error
        raise
    return environment


def _check_format(environment: Any) -> None:
    with environment.begin() as transaction:
        found = transaction.get(FORMAT_KEY)
    if found == FORMAT:
        return
    if found is not None:
        raise DamagedError("made by a newer fastscreen")
    if environment.stat()["entries"]:
        raise DamagedError("an LMDB file of another program")
    with environment.begin(write=True) as transaction:
        transaction.put(FORMAT_KEY, FORMAT)


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + "-lock")


def _move_aside(path: Path, now: int) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{now}")
    number = 0
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{now}.{number}")
    path.rename(aside)
    # A process that still has the old file open goes on with the old lock file, never with the new one's.
    with contextlib.suppress(FileNotFoundError):
        _lock_path(path).rename(_lock_path(aside))
    return aside


def _probe(path: Path, map_size: int) -> None:
    """Let a child read the file first; raise `DamagedError` when that kills it or it finds damage."""
    command = [sys.executable, "-I", "-m", "fastscreen.cachefile", str(path), str(map_size)]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/")
    except OSError:
        return  # no program to start (a virtual environment that this user may not read): nothing is known
    if child.returncode == _PROBE_DAMAGED:
        raise DamagedError(child.stdout.strip().rpartition("\n")[2])
    # Any other signal is somebody's will, as when the whole service is stopped. A child that waits for another
    # process's write transaction has already read the file; one that has not, goes in circles.
    if -child.returncode in CRASHES or (child.returncode == -signal.SIGALRM and not child.stdout):
        raise DamagedError(f"reading it ended with {signal.Signals(-child.returncode).name}")


def _read_through(path: Path, map_size: int, seconds: float = 0.3) -> None:
    """What the child does: touch the tree in order and at random, for a bounded time, then the free list."""
    environment = _open_checked(path, map_size)
    deadline = time.monotonic() + seconds
    with environment.begin() as transaction, transaction.cursor() as cursor:
        cursor.last()
        for _ in cursor.iternext() if cursor.first() else ():
            if time.monotonic() > deadline:
                break
        for size in (4, 16):
            for _ in range(500):
                cursor.set_range(random.randbytes(size))
    print("read", flush=True)
    with environment.begin(write=True) as transaction:
        transaction.put(b"_PROBE_THAT_IS_NEVER_COMMITTED_", b"")
        transaction.abort()


def _main(arguments: list[str]) -> int:
    signal.alarm(_PROBE_SECONDS)
    try:
        _read_through(Path(arguments[0]), int(arguments[1]))
    except DamagedError as error:
        print(error)
        return _PROBE_DAMAGED
    except lmdb.Error as error:
        print(reason(error))
        return _PROBE_DAMAGED if is_damage(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
