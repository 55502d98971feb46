"""Checks that fastscreen would start with a configuration on this machine: loads it and opens everything it names.

This happens in a child process, which switches to the daemon's user if it is root, and which is killed if reading a
file does not end.
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

import fastscreen.tables.patterns  # noqa: F401 the user of the daemon may be unable to read Python's files
from fastscreen.config import Config, ConfigError, LogFile, LogSyslog, parse
from fastscreen.config.keys import KEYS
from fastscreen.escaping import escape_text
from fastscreen.process import privileges
from fastscreen.process.file_type import file_type
from fastscreen.process.log_output import SYSLOG_SOCKET
from fastscreen.process.privileges import PrivilegeError, user_of
from fastscreen.screening import policy
from fastscreen.tls import certificates
from fastscreen.tls.context import ContextError, chains, new_context

TIMEOUT = 10.0  # seconds for reading all tables
MAX_REPORT = 1 << 20  # bytes
SOURCE = "import"  # the name of the configuration in messages, which are parsed again

_KEYS = {key.key for key in KEYS}
_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)?): (.*)", re.DOTALL)
_ANY_ADDRESS = ("0.0.0.0", "::")
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Problem(Struct, frozen=True):
    """key: the key with the problem; empty if unknown. denied: whether only this user lacks the right to check it."""

    key: str
    text: str
    denied: bool = False


class Result(Struct, frozen=True):
    """problems: why fastscreen would not start. warnings: what it would skip, such as a line of a table."""

    problems: list[Problem]
    warnings: list[Problem] = []


def verify(text: str) -> Result:
    """Check the text of a configuration file."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_end)
            _report(write_end, _checked(text))
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    try:
        report = _read(read_end, time.monotonic() + TIMEOUT)
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if report is None:
        return Result([Problem("", f"cannot be read in {TIMEOUT:g} s")])
    found = json.loads(report)
    return Result(*([Problem(**each) for each in part] for part in found))


def _checked(text: str) -> Result:
    """Runs in the child. An unexpected exception is a problem as well."""
    try:
        return _check(text)
    except Exception as error:
        return Result([Problem("", escape_text(f"{type(error).__name__}: {error}", 500))])


def _report(descriptor: int, result: Result) -> None:
    parts = [
        [{"key": each.key, "text": each.text, "denied": each.denied} for each in part]
        for part in (result.problems, result.warnings)
    ]
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(parts).encode())


def _read(descriptor: int, end: float) -> bytes | None:
    """The report of the child; None if it did not end in time or reported nothing."""
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


def _check(text: str) -> Result:
    """Runs in the child."""
    try:
        config = parse(text, SOURCE)
    except ConfigError as error:
        return Result([_problem(line) for line in error.problems])
    problems: list[Problem] = []
    for check in (_certificates, _addresses, _log, _user):
        problems += check(config)
    try:
        tables = policy.Tables(config)
        tables.policy("", lambda warning: None)
    except ConfigError as error:
        return Result([*problems, *(_problem(line) for line in error.problems)])
    except (OSError, ValueError, OverflowError) as error:
        return Result([*problems, Problem("", escape_text(str(error), 500))])
    return Result(problems, [_warning(line, config) for line in tables.warnings])


def _problem(line: str) -> Problem:
    """Parse a line of a ConfigError."""
    found = _PROBLEM.fullmatch(line.removeprefix(f"{SOURCE}: "))
    key, text = (found[1], found[2]) if found else ("", line.removeprefix(f"{SOURCE}: "))
    key = "listen.addresses" if key == "listen" else key
    denied = os.strerror(errno.EACCES) in text
    return Problem(key, text, denied) if key in _KEYS else Problem("", line, denied)


def _warning(line: str, config: Config) -> Problem:
    """The warning of a table, with the key that names the table if it can be found."""
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
    """Checked as the user that starts the daemon."""
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
    """Whether this machine has these addresses. A port that is in use is fine, because Postfix will release it."""
    everywhere = {(":" in each.host, each.port) for each in config.listen.ports if each.host in _ANY_ADDRESS}
    for address, port in config.listen.ports.items():
        key = "listen.addresses" if port is None else "listen.proxy"
        if address.host not in _ANY_ADDRESS and (":" in address.host, address.port) in everywhere:
            yield Problem(key, f"{address} is included in the wildcard address for this port")
            continue
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address.host, 0))
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS and address.host != "::":  # the daemon logs at start if IPv6 is missing
                yield Problem(key, f"{address.host} is not an address of this machine")


def _log(config: Config) -> Iterator[Problem]:
    to = config.log.to
    if isinstance(to, LogSyslog) and not Path(SYSLOG_SOCKET).is_socket():
        yield Problem("log.to", f"{SYSLOG_SOCKET}: syslogd is not listening")
    if not isinstance(to, LogFile):
        return
    path = Path(to.path)
    try:
        found = path.lstat().st_mode if os.path.lexists(path) else None
        if found is not None and not stat.S_ISREG(found):
            yield Problem("log.to", f"{escape_text(to.path)} is not a file")
        elif file_type(path.parent) != stat.S_IFDIR:
            yield Problem(
                "log.to", f"{escape_text(to.path)}: the folder {escape_text(str(path.parent))} does not exist"
            )
        elif not os.access(path.parent if found is None else path, os.W_OK):
            yield Problem("log.to", f"{escape_text(to.path)} cannot be written", denied=os.geteuid() != 0)
    except OSError as error:
        yield Problem("log.to", f"{escape_text(to.path)}: {error.strerror}", error.errno == errno.EACCES)


def _user(config: Config) -> Iterator[Problem]:
    """Switch to the daemon's user if this is root: tables must be readable for that user."""
    try:
        if (user := user_of(config)) and os.geteuid() == 0:
            privileges.become(user)
    except ConfigError as error:
        yield _problem(str(error))
    except PrivilegeError as error:
        yield Problem("user", str(error).removeprefix("user: "))


Verify = Callable[[str], Result]
