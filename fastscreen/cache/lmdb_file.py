"""Opening the cache's LMDB file so that whatever lies at its path can neither stop nor kill the screener.

LMDB maps its file: a truncated one is SIGBUS, a garbled one may be SIGSEGV. So the meta pages are read and the file's
size is compared with what they promise (`cachecheck`), and a child process reads it first
(`python -m fastscreen.cache.lmdb_file PATH MAP_SIZE FORMAT`). No symbolic link is followed at the path itself.
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
from typing import Any, NamedTuple

import lmdb

from fastscreen.cache.file_check import DamagedError, Inode, OpenFile, check_data, inode_of, lock_path

# Housekeeping keys are longer than any record's key (an address, or a prefix and its length).
RECORD_KEY_MAX = 17
FORMAT_KEY = b"_FASTSCREEN_CACHE_FORMAT_"
FORMAT = b"\x01"


class Format(NamedTuple):
    """What the file is for, as messages name it, and the record that tells it from other LMDB files."""

    name: str
    key: bytes
    version: bytes


CACHE = Format("cache", FORMAT_KEY, FORMAT)
MEMORY = Format("score.memory", b"_FASTSCREEN_OFFENSES_FORMAT_", b"\x01")
_FORMATS = {each.name: each for each in (CACHE, MEMORY)}

# Two reader slots a worker: its loop and its writer thread.
_READERS = 510
_KEPT_ASIDE = 3
_PROBE_SECONDS = 10
_PROBE_DAMAGED = 3
LOCK_SECONDS = 15.0  # to wait for another process that checks the file or moves it aside
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
    # a node that is larger than its page, a tree that is deeper than any: LMDB calls these internal errors
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.ProblemError,
    lmdb.PanicError,
)


_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class UnusableError(Exception):
    """There can be no cache file at this path now (permission, full or read-only disk, ...); the text says why."""


def move_aside(path: Path, only: Inode | None = None) -> Path | None:
    """Take a file away that nobody's check finds fault with; return its new name. OSError: impossible.

    only: None is returned when another file is at the path by now. Processes that have the file open go on with it
    until they see that another one is at the path.
    """
    with _alone(path, LOCK_SECONDS):
        if only is not None and inode_of(path.lstat()) != only:
            return None
        return _move_aside(path, int(time.time()))


def reason(error: Exception) -> str:
    """What an LMDB error says, without the path and function names that it starts with."""
    return str(error).rpartition(": ")[2] or type(error).__name__


def is_damage(error: Exception) -> bool:
    """Whether an LMDB error means that the file's content is wrong, rather than the disk or the rights."""
    return isinstance(error, _DAMAGE)


def is_disk(error: Exception) -> bool:
    """Whether an LMDB error means that the disk takes nothing now, while what is on it can be read."""
    text = str(error)
    return isinstance(error, lmdb.DiskError | lmdb.ReadonlyError) or any(os.strerror(code) in text for code in _NO_DISK)


def open_file(
    path: Path,
    map_size: int,
    now: Callable[[], float],
    warn: Callable[[str], object],
    *,
    damaged: tuple[Inode, str] | None = None,
    look_over: bool = True,
    lock_seconds: float = LOCK_SECONDS,
    opening: Callable[[Inode], None] = lambda inode: None,
    kind: Format = CACHE,
) -> OpenFile:
    """Return an LMDB environment that is sound, after moving aside what is not.

    `map_size` is in bytes. `damaged` names a file and what is known to be wrong with it; another file at the path is
    not moved aside for it. Without `look_over` another process has read through the file just now. `opening` is called
    with the file before LMDB maps it. Raises `UnusableError`. May block for `lock_seconds` and for as long as a child
    reads the file. Not to be called while this process has the file open: closing any descriptor of the lock file
    would drop LMDB's own lock on it.
    """
    try:
        with _alone(path, lock_seconds):
            for _ in range(3):
                try:
                    if damaged is not None and _is_at(path, damaged[0]):
                        raise DamagedError(damaged[1])
                    return _open_sound(path, map_size, look_over, opening, kind)
                except DamagedError as error:
                    aside = _move_aside(path, int(now()))
                    damaged = None
                    warn(
                        f"{kind.name} lmdb:{path} is damaged or foreign ({error}): moved to {aside}, "
                        "a new file is created"
                    )
            raise UnusableError("even a new file is damaged")
    except BlockingIOError as error:
        raise UnusableError("another process holds the lock on its folder") from error
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    except lmdb.Error as error:
        raise UnusableError(reason(error)) from error


def open_existing(
    path: Path, map_size: int, kind: Format = CACHE, opening: Callable[[Inode], None] = lambda inode: None
) -> OpenFile:
    """Return an environment on a file that another process made, and changes nothing when it is unsound.

    `map_size` is in bytes, at least; FileNotFoundError, `UnusableError`. As `open_file`: once a process.
    """
    path.lstat()
    try:
        return _open_checked(path, map_size, create=False, kind=kind, opening=opening)
    except DamagedError as error:
        raise UnusableError(f"damaged ({error})") from error
    except lmdb.Error as error:
        raise UnusableError(reason(error)) from error


def _is_at(path: Path, inode: Inode) -> bool:
    try:
        return inode_of(path.lstat()) == inode
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _alone(path: Path, seconds: float) -> Iterator[None]:
    """One process at a time checks, moves aside and creates: two workers must not move aside each other's new file."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + seconds
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


def _open_sound(path: Path, map_size: int, look_over: bool, opening: Callable[[Inode], None], kind: Format) -> OpenFile:
    try:
        found = path.lstat()
    except FileNotFoundError:
        # A lock file that was left alone describes another file's transactions.
        lock_path(path).unlink(missing_ok=True)
    else:
        if stat.S_ISLNK(found.st_mode):
            raise UnusableError("a symbolic link, which is not followed")
        if not stat.S_ISREG(found.st_mode):
            raise UnusableError("not a regular file")
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if found.st_size and look_over:
            _probe(path, map_size, kind)
    return _open_checked(path, map_size, create=True, opening=opening, kind=kind)


def _open_checked(
    path: Path,
    map_size: int,
    *,
    create: bool,
    opening: Callable[[Inode], None] = lambda inode: None,
    kind: Format = CACHE,
) -> OpenFile:
    """Open the environment; raise `DamagedError` for what can be seen without walking through it."""
    # Not O_RDWR: LMDB opens it again, and says what is missing. O_NONBLOCK: a FIFO that replaced the file just now.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    data = os.open(path, flags | os.O_CREAT if create else flags, 0o600)
    lock = -1
    try:
        if not stat.S_ISREG(os.fstat(data).st_mode):
            raise UnusableError("not a regular file")
        if os.fstat(data).st_size:
            check_data(data)
        lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        # LMDB writes to the lock file through a map, which is SIGBUS on a full disk: take the room now.
        os.posix_fallocate(lock, 0, 64 * (_READERS + 64))
        opening(inode_of(os.fstat(data)))
        environment = _open_environment(path, map_size)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        os.close(data)
        raise
    opened = OpenFile(path, environment, data, lock)
    try:
        if not _is_at(path, opened.inode):
            raise UnusableError("it was replaced while it was opened")
        environment.reader_check()
        _check_format(environment, kind)
        check_data(data)
    except BaseException as error:
        opened.close()
        if isinstance(error, lmdb.Error) and is_damage(error):
            raise DamagedError(reason(error)) from error
        raise
    return opened


def _open_environment(path: Path, map_size: int) -> Any:
    try:
        return lmdb.open(
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
        # The meta pages were sound a moment ago, so what LMDB calls invalid is the lock file, or a page behind them.
        if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError):
            raise UnusableError(f"its lock file is damaged or of another LMDB ({reason(error)})") from error
        if is_damage(error) or error.args[:1] == (errno.EINVAL,) or "Invalid argument" in str(error):
            raise DamagedError(reason(error)) from error
        raise


def _check_format(environment: Any, kind: Format) -> None:
    with environment.begin() as transaction:
        found = transaction.get(kind.key)
    if found == kind.version:
        return
    if found is not None:
        raise DamagedError("made by a newer fastscreen")
    if environment.stat()["entries"]:
        raise DamagedError("an LMDB file of another program")
    with environment.begin(write=True) as transaction:
        transaction.put(kind.key, kind.version)


def _move_aside(path: Path, now: int) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{now}")
    number = 0
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{now}.{number}")
    path.rename(aside)
    # A process that still has the old file open goes on with the old lock file, never with the new one's.
    with contextlib.suppress(FileNotFoundError):
        lock_path(path).rename(lock_path(aside))
    _forget_old(path, aside)
    return aside


def _forget_old(path: Path, newest: Path) -> None:
    """Delete the files that were moved aside first: a disk that damages each new one must not be filled by them."""
    kept = [each for each in path.parent.glob(f"{path.name}.damaged-*") if not each.name.endswith("-lock")]
    kept.sort(key=lambda each: (each == newest, each.lstat().st_ctime_ns))
    for old in kept[:-_KEPT_ASIDE]:
        with contextlib.suppress(OSError):
            old.unlink()
            lock_path(old).unlink(missing_ok=True)


def _probe(path: Path, map_size: int, kind: Format) -> None:
    """Let a child read the file first; raise `DamagedError` when that kills it or it finds damage."""
    command = [sys.executable, "-I", "-m", "fastscreen.cache.lmdb_file", str(path), str(map_size), kind.name]
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


def _read_through(path: Path, map_size: int, kind: Format = CACHE, seconds: float = 0.3) -> None:
    """What the child does: touch the tree in order and at random, for a bounded time, then the free list."""
    environment = _open_checked(path, map_size, create=False, kind=kind).environment  # closed by the end of the process
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
        _read_through(Path(arguments[0]), int(arguments[1]), _FORMATS[arguments[2]] if arguments[2:] else CACHE)
    except DamagedError as error:
        print(error)
        return _PROBE_DAMAGED
    except lmdb.Error as error:
        print(reason(error))
        return _PROBE_DAMAGED if is_damage(error) else 1
    except (UnusableError, OSError) as error:
        print(error)  # the parent will meet it, too
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
