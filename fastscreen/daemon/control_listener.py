"""The control socket's place in the file system: made by the supervisor, so that it outlives the control server."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from pathlib import Path

from fastscreen.config import Config, ConfigError
from fastscreen.process.safe_open import Account, account, acting_as, located, make_folder

BACKLOG = 64
MAX_PATH = 107  # bytes in sockaddr_un
MODE = 0o660


class ControlSocket:
    """A listening socket and its name; None: it has none. `listener` is for the control server; `close` removes the
    name.

    awaited: the name that it is to have once it is free; until then it has another one next to that. who: whose rights
    take the name away, as long as the process is root; None: its own.
    """

    def __init__(
        self, path: Path | None, listener: socket.socket, awaited: Path | None = None, who: Account | None = None
    ) -> None:
        self.listener = listener
        self.path = path
        self.awaited = awaited
        self._who = who
        self._found = _identity(path) if path is not None else None

    def take_over(self) -> None:
        """Take the awaited name. OSError: impossible, or another process still answers there."""
        if self.awaited is None or self.path is None:
            return
        folder = os.open(self.awaited.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder)
            _clear(self.awaited)
            self.path.rename(self.awaited)
        finally:
            os.close(folder)
        self.path, self.awaited = self.awaited, None

    def close(self) -> None:
        """The name stays when it has become another's, or when its folder is not ours to write to."""
        self.listener.close()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            if self._who is not None and os.geteuid() == 0:
                stack.enter_context(acting_as(self._who))
            if self.path is not None and _identity(self.path) == self._found:
                self.path.unlink()


def make(path: Path, user: str, group: str) -> ControlSocket:
    """Bind, with folder, owner and mode. OSError: impossible, or another process answers there.

    user: who owns it, "" is who we are. group: whose members may connect, "" is nobody's. Called before the process has
    threads: the mode is the umask's.
    """
    return _make(path, path, user, group)


def make_waiting(path: Path, user: str, group: str) -> ControlSocket:
    """The same where another process answers: bind next to the name, so that `take_over` needs no privileges."""
    made = _make(path.with_name(path.name + ".next"), path, user, group)
    made.awaited = path
    return made


def _make(path: Path, wanted: Path, user: str, group: str) -> ControlSocket:
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"longer than {MAX_PATH - len(path.name) + len(wanted.name)} bytes")
    make_folder(path.parent, user, mode=0o755)
    gid = grp.getgrnam(group).gr_gid if group else -1
    who = account(user) if os.geteuid() == 0 else None
    if who is None:
        return _bound(path, -1, gid, None)
    with located(str(path), who) as location:
        if location.root_only:  # nobody can change the way while root goes it
            return _bound(path, who.uid, who.gid if gid < 0 else gid, None)
    with acting_as(who):
        made = _bound(path, -1, -1, who)
        name = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # The user need not be in the group. What the name stands for now is a socket of the user's, and no other file.
        found = os.fstat(name)
        if gid >= 0 and stat.S_ISSOCK(found.st_mode) and found.st_uid == who.uid and found.st_nlink == 1:
            os.chown(f"/proc/self/fd/{name}", -1, gid)
    finally:
        os.close(name)
    return made


def _bound(path: Path, uid: int, gid: int, who: Account | None) -> ControlSocket:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _lock(folder)  # two that start at a time must not take each other's new socket for a dead one
        _clear(path)
        before = os.umask(0o777 & ~MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, uid, gid, follow_symlinks=False)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        return ControlSocket(path, listener, who=who)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EAGAIN, "another process is at work in its folder") from None


def _clear(path: Path) -> None:
    """Take a socket away that nobody answers at."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "a file that is not a socket is in its place")
    code = _connected(path)
    if code == errno.EACCES and os.getuid() == 0 != os.geteuid():  # one of root's, in the user's folder
        user = os.geteuid()
        os.seteuid(0)
        try:
            code = _connected(path)
        finally:
            os.seteuid(user)
    if code != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, "another process answers there")
    path.unlink()


def _connected(path: Path) -> int:
    """Try to connect; return errno."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path))


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def check_group(config: Config) -> None:
    """ConfigError: the group does not exist."""
    if config.control.group:
        try:
            grp.getgrnam(config.control.group)
        except KeyError:
            raise ConfigError(
                f"{config.source}: control.group: {config.control.group!r} does not exist on this system"
            ) from None
