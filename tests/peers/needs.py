"""What tests need of the machine: Debian packages and root. What is missing is named at the end of the run."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# program -> (where Debian puts it when that is not on PATH, package)
PROGRAMS = {
    "postfix": ("/usr/sbin/postfix", "postfix"),
    "postfix-lmdb": ("/usr/lib/postfix/postfix-lmdb.so", "postfix-lmdb"),
    "postfix-pcre": ("/usr/lib/postfix/postfix-pcre.so", "postfix-pcre"),
    "rbldnsd": ("/usr/sbin/rbldnsd", "rbldnsd"),
    "swaks": ("/usr/bin/swaks", "swaks"),
    "swaks over IPv6": ("/usr/share/perl5/IO/Socket/INET6.pm", "libio-socket-inet6-perl"),
    "pflogsumm": ("/usr/sbin/pflogsumm", "pflogsumm"),
    "logwatch": ("/usr/sbin/logwatch", "logwatch"),
    "fail2ban-regex": ("/usr/bin/fail2ban-regex", "fail2ban"),
    "haproxy": ("/usr/sbin/haproxy", "haproxy"),
    "redis-server": ("/usr/bin/redis-server", "redis-server"),
    "openssl": ("/usr/bin/openssl", "openssl"),
    "nsd": ("/usr/sbin/nsd", "nsd"),
    "curl": ("/usr/bin/curl", "curl"),
    "ip": ("/usr/sbin/ip", "iproute2"),
    "ss": ("/usr/bin/ss", "iproute2"),
    "setpriv": ("/usr/bin/setpriv", "util-linux"),
    "unshare": ("/usr/bin/unshare", "util-linux"),
    "script": ("/usr/bin/script", "bsdutils"),
    "chromium": ("/usr/bin/chromium", "chromium"),
    "promtool": ("/usr/bin/promtool", "prometheus"),
    "systemd-analyze": ("/usr/bin/systemd-analyze", "systemd"),
    "systemd-socket-activate": ("/usr/bin/systemd-socket-activate", "systemd"),
    "man": ("/usr/bin/man", "man-db"),
    "mandoc": ("/usr/bin/mandoc", "mandoc"),
    "logrotate": ("/usr/sbin/logrotate", "logrotate"),
    "strace": ("/usr/bin/strace", "strace"),
    "faketime": ("/usr/bin/faketime", "faketime"),
    "tmux": ("/usr/bin/tmux", "tmux"),
    "bash": ("/bin/bash", "bash"),
    "fish": ("/usr/bin/fish", "fish"),
    "zsh": ("/usr/bin/zsh", "zsh"),
}
LAB = ("openssl", "postfix", "postfix-lmdb", "postfix-pcre", "rbldnsd", "ip", "unshare")

missed: list[str] = []
"""Why tests were skipped, in the order in which it was found."""


def required() -> bool:
    """Tell whether a missing peer is a failure: FASTSCREEN_TEST_PEERS=required, as CI sets it."""
    return os.environ.get("FASTSCREEN_TEST_PEERS") == "required"


def program(name: str) -> str:
    """Return the path of a program; skip the test (or fail it, see `required`) when it is not installed."""
    path = _path(name)
    if path is None:
        miss(f"needs {name} (Debian package {PROGRAMS[name][1]})")
    return path


def root(what: str) -> None:
    """Skip the test (or fail it) when it does not run as root, which `what` needs."""
    if os.geteuid() != 0:
        miss(f"needs root: {what}")


def _path(name: str) -> str | None:
    usual, _ = PROGRAMS[name]
    return usual if Path(usual).exists() else shutil.which(name)


def miss(reason: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing, and remember why for the end of the run."""
    if reason not in missed:
        missed.append(reason)
    if required():
        pytest.fail(f"{reason}, and FASTSCREEN_TEST_PEERS=required", pytrace=False)
    pytest.skip(reason)


def summary() -> list[str]:
    """Return the lines for the end of the run; none when nothing was missing.

    When something was, every absent package is named, also those that a test would have asked for later.
    """
    if not missed:
        return []
    packages = sorted({package for name, (_, package) in PROGRAMS.items() if _path(name) is None})
    lines = [*missed, *(f"peer not installed: {package}" for package in packages)]
    if packages:
        lines.append(f"install with: apt-get install --no-install-recommends {' '.join(packages)}")
    return lines
