"""Whether a configuration would start here: loaded, and everything that it names opened, as `fastscreen run` does it.

It is tried in a child process, which becomes the daemon's user where this one is root, and which is killed when a file
is never read to its end.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from fastscreen.config import Config, ConfigError, LogFile, LogSyslog, parse
from fastscreen.config.keys import KEYS
from fastscreen.escaping import escape_text
from fastscreen.process import privileges
from fastscreen.process.log_output import SYSLOG_SOCKET
from fastscreen.process.privileges import PrivilegeError, user_of
from fastscreen.screening import policy
from fastscreen.tls import certificates
from fastscreen.tls.context import ContextError, chains, new_context

TIMEOUT = 10.0  # seconds for reading all tables
MAX_REPORT = 1 << 20  # bytes
SOURCE = "import"  # the configuration's name in messages, which are taken apart again

_KEYS = {key.key for key in KEYS}
_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)?): (.*)", re.DOTALL)
_EVERYWHERE = ("0.0.0.0", "::")
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Problem(Struct, frozen=True):
    """key: the one at fault; empty: there is no telling. denied: only that this user may not look."""

    key: str
    text: str
    denied: bool = False


class Verdict(Struct, frozen=True):
    """problems: why it would not start. warnings: what it would start without, such as a line of a table."""

    problems: list[Problem]
    warnings: list[Problem] = []


def verify(text: str) -> Verdict:
    """Try the text of a configuration file."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            _report(writing, _told(text))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    try:
        report = _read(reading, time.monotonic() + TIMEOUT)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if report is None:
        return Verdict([Problem("", f"cannot be read in {TIMEOUT:g} s")])
    found = json.loads(report)
    return Verdict(*([Problem(**each) for each in part] for part in found))


def _told(text: str) -> Verdict:
    """In the child: whatever goes wrong is a problem, too."""
    try:
        return _tried(text)
    except Exception as error:
        return Verdict([Problem("", escape_text(f"{type(error).__name__}: {error}", 500))])


def _report(descriptor: int, verdict: Verdict) -> None:
    parts = [
        [{"key": each.key, "text": each.text, "denied": each.denied} for each in part]
        for part in (verdict.problems, verdict.warnings)
    ]
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(parts).encode())


def _read(descriptor: int, end: float) -> bytes | None:
    """What the child says; None: it did not end in time, or ended without a word."""
    content = b""
    while len(content) < MAX_REPORT:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return content or None
        content += piece
    return None


def _tried(text: str) -> Verdict:
    """In the child."""
    try:
        config = parse(text, SOURCE)
    except ConfigError as error:
        return Verdict([_problem(line) for line in error.problems])
    problems: list[Problem] = []
    for check in (_certificates, _addresses, _log, _user):
        problems += check(config)
    try:
        tables = policy.Tables(config)
        tables.policy("", lambda warning: None)
    except ConfigError as error:
        return Verdict([*problems, *(_problem(line) for line in error.problems)])
    except (OSError, ValueError, OverflowError) as error:
        return Verdict([*problems, Problem("", escape_text(str(error), 500))])
    return Verdict(problems, [_warning(line, config) for line in tables.warnings])


def _problem(line: str) -> Problem:
    """A line of a ConfigError, taken apart."""
    found = _PROBLEM.fullmatch(line.removeprefix(f"{SOURCE}: "))
    key, text = (found[1], found[2]) if found else ("", line.removeprefix(f"{SOURCE}: "))
    key = "listen.addresses" if key == "listen" else key
    denied = os.strerror(errno.EACCES) in text
    return Problem(key, text, denied) if key in _KEYS else Problem("", line, denied)


def _warning(line: str, config: Config) -> Problem:
    """A table's warning, with the key that names the table, as far as the text tells."""
    found = _problem(line)
    if found.key:
        return found
    named = {
        "access.list": config.access.list,
        "engine.forbidden_commands": config.engine.forbidden_commands,
        "engine.command_filter": (config.engine.command_filter,),
        "engine.discard_ehlo_keyword_address_maps": config.engine.discard_ehlo_keyword_address_maps,
        "engine.reject_footer_maps": config.engine.reject_footer_maps,
        "dnsbl.reply_map": (config.dnsbl.reply_map,),
    }
    for key, specs in named.items():
        if any((name := spec.partition(":")[2]) and escape_text(name) in line for spec in specs):
            return Problem(key, line)
    return Problem("access.list", line)


def _certificates(config: Config) -> Iterator[Problem]:
    """As the user that the daemon starts as."""
    if not config.tls.certificates:
        return
    try:
        files = certificates.read(config.tls.certificates)
    except OSError as error:
        text = f"{escape_text(str(error.filename), 500)}: {error.strerror}"
        yield Problem("tls.certificates", text, error.errno == errno.EACCES)
        return
    try:
        new_context(config.tls, chains(files.contents()))
    except ContextError as error:
        yield _problem(str(error))
    finally:
        files.close()


def _addresses(config: Config) -> Iterator[Problem]:
    """Whether they are this machine's. That another server has the port is no problem: it will give it up."""
    everywhere = {(":" in each.host, each.port) for each in config.listen.ports if each.host in _EVERYWHERE}
    for address, port in config.listen.ports.items():
        key = "listen.addresses" if port is None else "listen.proxy"
        if address.host not in _EVERYWHERE and (":" in address.host, address.port) in everywhere:
            yield Problem(key, f"{address} is covered by all addresses at this port")
            continue
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address.host, 0))
        except OSError as error:
            if error.errno in _ABSENT and address.host != "::":  # a kernel without IPv6 is told at the start
                yield Problem(key, f"{address.host} is not an address of this machine")


def _log(config: Config) -> Iterator[Problem]:
    to = config.log.to
    if isinstance(to, LogSyslog) and not Path(SYSLOG_SOCKET).is_socket():
        yield Problem("log.to", f"{SYSLOG_SOCKET}: no log daemon listens there")
    if not isinstance(to, LogFile):
        return
    path = Path(to.path)
    try:
        found = path.lstat().st_mode if os.path.lexists(path) else None
        if found is not None and not stat.S_ISREG(found):
            yield Problem("log.to", f"{escape_text(to.path)} is not a file")
        elif not path.parent.is_dir():
            yield Problem("log.to", f"{escape_text(to.path)}: there is no folder {escape_text(str(path.parent))}")
        elif not os.access(path.parent if found is None else path, os.W_OK):
            yield Problem("log.to", f"{escape_text(to.path)} cannot be written", denied=os.geteuid() != 0)
    except OSError as error:
        yield Problem("log.to", f"{escape_text(to.path)}: {error.strerror}", error.errno == errno.EACCES)


def _user(config: Config) -> Iterator[Problem]:
    """Become it, where this is root: what only root may read is no table for the daemon."""
    try:
        if (user := user_of(config)) and os.geteuid() == 0:
            privileges.become(user)
    except ConfigError as error:
        yield _problem(str(error))
    except PrivilegeError as error:
        yield Problem("user", str(error).removeprefix("user: "))


Verify = Callable[[str], Verdict]
