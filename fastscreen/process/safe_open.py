"""Opens and creates files as root, so that neither the daemon's user nor anybody else can redirect root elsewhere.

As root, a path is followed only where nobody but root can change it, including symbolic links in root's own folders
(/var/run). As soon as a folder on the way belongs to somebody else, or others may write to it, the file is opened with
the user's own rights, so that a malicious link gives access only to what its owner could open anyway. No open waits for
the reader of a FIFO or the holder of a lease.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct

_LINKS_MAX = 40  # as the kernel
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FILE_MODE = 0o640
_FOLDER_MODE = 0o755


class Account(Struct, frozen=True):
    """The user that the daemon becomes. groups: all of its groups, the first one included."""

    uid: int
    gid: int
    groups: frozenset[int]


def account(user: str) -> Account | None:
    """The account of a user; None for "": the process keeps its user. KeyError: the user does not exist."""
    if not user:
        return None
    entry = pwd.getpwnam(user)
    return Account(entry.pw_uid, entry.pw_gid, frozenset(os.getgrouplist(user, entry.pw_gid)))


@contextlib.contextmanager
def acting_as(who: Account) -> Iterator[None]:
    """Have this user's rights for a while, as root. For a process without threads. OSError: not permitted."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(sorted(who.groups))
    try:
        os.setegid(who.gid)
        os.seteuid(who.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


class Location:
    """Where a path leads: the descriptor of its folder, and its last name.

    root_only: only root can change where the path leads. safe_from_user: the user cannot change it.
    untrusted_link: the path leads through a link that somebody other than root may have created.
    user_link: through one that the user may have created. write_protected: the user cannot write to the last folder.
    found: the file that has the name now, or None. magic: a link in /proc, which only the kernel can follow.
    """

    def __init__(self, folder: int) -> None:
        self.folder = folder
        self.name = ""
        self.root_only = self.safe_from_user = self.write_protected = True
        self.untrusted_link = self.user_link = self.magic = False
        self.found: os.stat_result | None = None


@contextlib.contextmanager
def located(path: str, who: Account | None) -> Iterator[Location]:
    """Follow a path, including links, and find out who could have changed where it leads.

    OSError (with the path as its file name): a folder is missing, or may not be read.
    """
    location = Location(os.open("/", _FOLDER))
    try:
        try:
            _walk(location, path if path.startswith("/") else f"{Path.cwd()}/{path}", who)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        yield location
    finally:
        os.close(location.folder)


def _walk(location: Location, path: str, who: Account | None) -> None:
    names = _names(path)
    links = 0
    while names:
        name = names.pop()
        location.name = name
        location.found = _look(name, location.folder)
        _judge(location, who)
        if location.found is None:
            if names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        elif stat.S_ISLNK(location.found.st_mode):
            if location.found.st_dev == Path("/proc").stat().st_dev and not names:
                location.magic = name.isdecimal()
                if location.magic:
                    return
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            location.untrusted_link = location.untrusted_link or not location.root_only
            location.user_link = location.user_link or not location.safe_from_user
            target = os.readlink(name, dir_fd=location.folder)
            if target.startswith("/"):
                _enter(location, "/")
            names += _names(target)
            if not names:
                names = ["."]
        elif names:
            before = location.found
            _enter(location, name)
            after = os.fstat(location.folder)
            if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
                raise OSError(errno.EAGAIN, "it was replaced meanwhile")


def _names(path: str) -> list[str]:
    """The names of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name]


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _enter(location: Location, name: str) -> None:
    folder = os.open(name, _FOLDER, dir_fd=location.folder)
    os.close(location.folder)
    location.folder = folder


def _judge(location: Location, who: Account | None) -> None:
    """Find out who may replace the entry with this name in this folder."""
    folder, found = os.fstat(location.folder), location.found
    sticky = bool(folder.st_mode & stat.S_ISVTX) and found is not None  # only an entry's owner may replace it
    others = may_others_write(folder) or (bool(folder.st_mode & stat.S_IWGRP) and _has_acl(location.folder))
    if others and not (sticky and folder.st_uid == 0 and found is not None and found.st_uid == 0):
        location.root_only = False
    if who is None:
        location.safe_from_user = location.root_only
        return
    location.write_protected = not may_write(folder, who) and not (
        folder.st_mode & stat.S_IWGRP and _has_acl(location.folder)
    )
    if not location.write_protected:
        owners = {folder.st_uid, found.st_uid} if found is not None else set()
        if not sticky or who.uid in owners:
            location.safe_from_user = False


def may_others_write(folder: os.stat_result) -> bool:
    """Whether anybody but root may change what is in a folder."""
    mode = folder.st_mode
    return folder.st_uid != 0 or bool(mode & stat.S_IWOTH) or (bool(mode & stat.S_IWGRP) and folder.st_gid != 0)


def may_write(folder: os.stat_result, who: Account) -> bool:
    """Whether a user may change what is in a folder, or its mode. ACLs aside."""
    mode = folder.st_mode
    if folder.st_uid == who.uid or mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and folder.st_gid in who.groups


def _has_acl(folder: int) -> bool:
    """Where there is an ACL, the group's bits are its mask: anybody may be named in it."""
    try:
        os.getxattr(f"/proc/self/fd/{folder}", "system.posix_acl_access")
    except OSError:
        return False
    return True


def open_to_append(path: str, user: str) -> int:
    """Open a file for appending, or make it (mode 0640), so that `user` can open it again. OSError.

    user: whom the process becomes, "" if it stays who it is. ENXIO: a FIFO that nobody reads.
    """
    if os.geteuid() != 0:
        return os.open(path, _APPEND | os.O_CREAT, _FILE_MODE)
    who = account(user)
    with located(path, who) as location:
        if location.root_only:
            return _append_as_root(location, path, who)
        if who is None:
            return _append_among_others(location, path)
        try:
            with acting_as(who):
                return os.open(path, _APPEND | os.O_CREAT, _FILE_MODE)
        except PermissionError:
            if location.untrusted_link:
                raise
            if location.found is not None:
                descriptor = _own(location, path)  # as another start as root, or logrotate, has left it
            elif location.write_protected:
                descriptor = _made(location, path)  # /var/log may be a group's whose member the user is not
            else:
                raise
        os.fchown(descriptor, who.uid, who.gid)
        return descriptor


def will_be_given(path: str, user: str) -> bool:
    """Whether `open_to_append` as root makes a file the user's, whatever the user may do itself. It changes nothing."""
    with located(path, account(user)) as location:
        if location.root_only:
            return location.found is None or not stat.S_ISDIR(location.found.st_mode)
        if location.untrusted_link or location.found is None:
            return location.write_protected and not location.untrusted_link
        return stat.S_ISREG(location.found.st_mode) and (location.found.st_uid, location.found.st_nlink) == (0, 1)


def _append_as_root(location: Location, path: str, who: Account | None) -> int:
    if location.found is None:
        descriptor = _made(location, path)
    else:
        # What is a link of /proc leads to this process's own descriptors: /dev/stdout.
        flags = _APPEND if location.magic else _APPEND | os.O_NOFOLLOW
        descriptor = _opened(location, path, flags)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if who is not None and not location.magic and kind in (stat.S_IFREG, stat.S_IFIFO):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, who.uid, who.gid)
    return descriptor


def _append_among_others(location: Location, path: str) -> int:
    """As root that stays root, where others may write: only what cannot be somebody else's file."""
    if location.untrusted_link:
        raise OSError(errno.ELOOP, "a symbolic link in a folder that others may write to", path)
    if location.found is None:
        return _made(location, path)
    return _own(location, path)


def _own(location: Location, path: str) -> int:
    """Open root's own file where others may write to the folder: one of root's from elsewhere has two names there."""
    descriptor = _opened(location, path, _APPEND | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (found.st_uid != 0 or found.st_nlink != 1):
        os.close(descriptor)
        raise OSError(errno.EPERM, "not root's own file, in a folder that others may write to", path)
    return descriptor


def _opened(location: Location, path: str, flags: int) -> int:
    try:
        return os.open(location.name, flags, _FILE_MODE, dir_fd=location.folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _made(location: Location, path: str) -> int:
    return _opened(location, path, _APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)


def open_to_read(path: str, who: Account | None, as_user: Callable[[Account], AbstractContextManager[None]]) -> int:
    """Open a file for reading with more rights than `who` has, but nothing that `who` may have led it to.

    as_user: takes the additional rights away for a while. who: None if there is nobody to guard against. OSError.
    """
    if who is None:
        return os.open(path, _READ)
    with located(path, who) as location:
        if not location.user_link:
            descriptor = _opened(location, path, _READ | os.O_NOFOLLOW)
            if location.safe_from_user or os.fstat(descriptor).st_nlink == 1:
                return descriptor
            os.close(descriptor)
        with as_user(who):
            return os.open(path, _READ)


def make_folder(path: Path, user: str, mode: int = 0o750) -> None:
    """Make a folder that is the user's, and those above it, unless it is there. OSError, with a file name.

    user: "" if the process stays who it is. mode: of the folder itself.
    """
    if path.is_dir():
        return
    if os.geteuid() != 0:
        path.mkdir(parents=True, mode=mode)
        return
    who = account(user)
    base = path.parent
    missing = [path.name]
    while not base.is_dir():
        missing.append(base.name)
        base = base.parent
    with located(str(base / missing[-1]), who) as location:
        if not location.root_only:
            if who is None:
                raise OSError(errno.EPERM, "not created by root in a folder that others may write to", str(path))
            with acting_as(who):
                path.mkdir(parents=True, mode=mode)
            return
        try:
            while missing:
                name = missing.pop()
                os.mkdir(name, _FOLDER_MODE if missing else mode, dir_fd=location.folder)
                _enter(location, name)
            if who is not None:
                os.chown(".", who.uid, who.gid, dir_fd=location.folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
