"""Becoming the unprivileged user for good, and taking all descriptors that the process may have."""

import encodings.idna  # noqa: F401  (getaddrinfo wants it: as the user, Python's own files may be out of reach)
import os
import pwd
import resource
from pathlib import Path

from fastscreen.config import Config, ConfigError, Pass
from fastscreen.process import prctl
from fastscreen.process.safe_open import make_folder


class PrivilegeError(Exception):
    """The process cannot become the user; the text is one line for a person."""


def user_of(config: Config) -> str:
    """The user to become: the configured one, or "postfix" for hand-offs to Postfix, which owns private/. Empty: stay.

    ConfigError: the user does not exist.
    """
    if config.user:
        if not _exists(config.user):
            raise ConfigError(f"{config.source}: user: {config.user!r} does not exist on this system")
        return config.user
    passes = isinstance(config.handoff.to, Pass) or isinstance(config.handoff.doubtful_to, Pass)
    return "postfix" if os.geteuid() == 0 and passes and _exists("postfix") else ""


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def give_folder(path: Path, user: str, key: str = "cache.path", mode: int = 0o750) -> None:
    """Make a folder that `user` may write to, unless it is there already; "" is who we are. OSError: impossible.

    key: what of the configuration names it, for the error.
    """
    try:
        make_folder(path, user, mode)
    except OSError as error:
        raise OSError(error.errno, f"{key}: {error.filename}: {error.strerror}") from None


def become(user: str) -> None:
    """Become `user` with its groups, in a way that cannot be undone; raise `PrivilegeError`.

    A process that is not root can only stay who it is. To be called before threads are started.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(f"user: {user!r} does not exist on this system") from None
    if os.geteuid() != 0:
        if os.geteuid() != entry.pw_uid:
            name = pwd.getpwuid(os.geteuid()).pw_name if _is_named(os.geteuid()) else str(os.geteuid())
            raise PrivilegeError(f"user: only root can become {user!r}, this is {name!r}")
    else:
        if entry.pw_uid == 0:
            raise PrivilegeError(f"user: {user!r} is root: expected an unprivileged user, such as 'postfix'")
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        _verify(entry)
    try:
        prctl.forbid_new_privileges()
    except OSError as error:
        raise PrivilegeError(f"user: PR_SET_NO_NEW_PRIVS: {error.strerror}") from None


def _is_named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _verify(entry: pwd.struct_passwd) -> None:
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != (entry.pw_gid,) * 3:
        raise PrivilegeError(f"user: the system did not change the user to {entry.pw_name!r}")
    for regain in (os.seteuid, os.setuid, os.setegid, os.setgid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise PrivilegeError("user: the process could become root again")


def raise_descriptor_limit(wanted: int = 0) -> int:
    """Raise the soft limit of open descriptors to the hard one, and that to `wanted` where root may. Return the limit.

    Further than that it is not raised: what there is may be used up by clients.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, wanted), max(hard, min(wanted, _descriptors_of_the_kernel())), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, OSError):  # not root, or without the right (CAP_SYS_RESOURCE)
            continue
        return limit
    return hard


def _descriptors_of_the_kernel() -> int:
    """The most that a process may have at all."""
    try:
        return int(Path("/proc/sys/fs/nr_open").read_text())
    except (OSError, ValueError):
        return 0
