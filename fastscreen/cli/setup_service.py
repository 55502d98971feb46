"""The programs that `fastscreen setup` runs: Postfix's, systemd's, and fastscreen itself."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from msgspec import Struct

from fastscreen.config import Endpoint
from fastscreen.config.environment import PREFIX, SWITCH, variable
from fastscreen.escaping import escape_text, printable

OF_POSTFIX = {"master", "postscreen", "smtpd"}
"""Names of the processes that have Postfix's listening sockets."""
UNITS = ("fastscreen.service",)
_SYSTEMD = Path("/run/systemd/system")  # exists if systemd has booted the machine
_CONFIGURATION_OF_UNITS = Path("/etc/fastscreen/fastscreen.toml")
GREETING_TIME = 20.0  # s: the greet wait, and a slow start
FREE_TIME = 30.0  # s for the port to become free
_TIMEOUT = 120  # s for a command
_PAUSE = 0.05
_MAX_GREETING = 4096  # bytes
_LISTENS = "0A"  # in /proc/net/tcp
_NOT_IN_USE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EACCES)
"""Nobody can listen there, or only root can."""


class ServiceError(Exception):
    """A program failed. The message is one line."""


class Account(Struct):
    """The user and the groups of a process."""

    name: str
    uid: int
    gid: int
    groups: list[int]


class PostfixCommand:
    """`postfix -c DIR`. Only `is_running` may be called without the operator's consent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = shutil.which("postfix", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        self._command = [program or "postfix", "-c", str(folder)]

    def is_running(self) -> bool:
        return _run([*self._command, "status"])[0] == 0

    def check(self) -> None:
        """Raises ServiceError with what Postfix finds wrong."""
        code, said = _run([*self._command, "check"])
        if code:
            raise ServiceError(f"postfix check: {said or f'exit code {code}'}")

    def reload(self) -> None:
        """Raises ServiceError."""
        code, said = _run([*self._command, "reload"])
        if code:
            raise ServiceError(f"postfix reload: {said or f'exit code {code}'}")


def _run(command: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the last line of the output. Raises ServiceError."""
    code, said = _output(command)
    lines = [line for line in said.splitlines() if line.strip()]
    return code, escape_text(lines[-1], 500) if lines else ""


def _output(command: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the output. Raises ServiceError."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{Path(command[0]).name}: {escape_text(str(error), 500)}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace")


def fastscreen_command() -> list[str]:
    """How to call this fastscreen."""
    program = Path(sys.executable).with_name("fastscreen")
    return [str(program)] if program.is_file() else [sys.executable, "-m", "fastscreen"]


def checked(
    config: Path, account: Account | None = None, *, folders: Sequence[str] = (), credentials: bool = False
) -> tuple[list[str], list[str]]:
    """`fastscreen check`: problems with which port 25 would not work, and the other ones. Raises ServiceError.

    In a process of its own, because it switches to the daemon's user for good. account: as which systemd starts the
    daemon; it then gives it these folders, so nothing is said about those that it cannot write to yet, and with
    credentials also the files of the certificates.
    """
    command = [*fastscreen_command(), "check", "--json", "-c", str(config)]
    environment: dict[str, str] | None = None
    if account is not None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    if environment is not None and credentials:
        environment |= {SWITCH: "read", variable("tls.level"): "none", variable("tls.certificates"): "[]"}
    try:
        done = _as_account(command, account, environment)
        found = json.loads(done.stdout)["checks"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise ServiceError(f"fastscreen check: {escape_text(str(error), 500)}") from None
    not_given = [f"{folder}/" for folder in folders if account is not None and not can_access(account, folder, "-w")]
    essential = ("configuration", "handoff.to", "user", "listen.addresses")
    fatal: list[str] = []
    others: list[str] = []
    for check in found:
        if not check["ok"] and not any(folder in check["detail"] for folder in not_given):
            (fatal if check["what"] in essential else others).append(printable(f"{check['what']}: {check['detail']}"))
    return fatal, others


def can_access(account: Account, path: str, how: str, more: Sequence[int] = ()) -> bool:
    """Whether an account can use a path, with further groups. how: `-r` or `-w`, as for `test`."""
    tried = subprocess.run(
        ["test", how, path],
        user=account.uid,
        group=account.gid,
        extra_groups=[*account.groups, *more],
        cwd="/",
        check=False,
    )
    return tried.returncode == 0


def _as_account(
    command: Sequence[str], account: Account | None, environment: Mapping[str, str] | None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command. Raises OSError, TimeoutExpired."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
        cwd="/",
        env=environment,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=account.groups if account else None,
    )


# ---- systemd


def systemd_units(config: Path) -> list[str]:
    """The units of fastscreen that this machine has; empty without systemd, and for another configuration.

    Without the socket unit, whose addresses would have to be those of the configuration.
    """
    if not _SYSTEMD.is_dir() or config != _CONFIGURATION_OF_UNITS:
        return []
    return [unit for unit in UNITS if _run(["systemctl", "cat", unit])[0] == 0]


def unit_properties(unit: str, names: Sequence[str]) -> dict[str, str]:
    """Properties of a unit; empty if they are not set. Raises ServiceError."""
    code, said = _output(["systemctl", "show", f"--property={','.join(names)}", unit])
    if code:
        raise ServiceError(f"systemctl show {unit}: {escape_text(said.strip(), 500) or f'exit code {code}'}")
    lines = (line.partition("=") for line in said.splitlines())
    return dict.fromkeys(names, "") | {name: value for name, _, value in lines}


def reload_units() -> None:
    """Let systemd read the units again, if it runs. Raises ServiceError."""
    if not _SYSTEMD.is_dir():
        return
    code, said = _run(["systemctl", "daemon-reload"])
    if code:
        raise ServiceError(f"systemctl daemon-reload: {said or f'exit code {code}'}")


def enable(units: Sequence[str]) -> None:
    """Start the units, now and at boot. Raises ServiceError with the last line that a unit has written itself."""
    for words in (("enable", *units), ("restart", *units)):
        began = int(time.time())
        code, said = _run(["systemctl", *words])
        if code:
            problem = f"systemctl {' '.join(words)}: {said or f'exit code {code}'}"
            raise ServiceError("; ".join([problem, *filter(None, (_last_line_of(unit, began) for unit in units))]))


def _last_line_of(unit: str, since: int) -> str:
    """The last line in the journal that the unit has written itself since then (s); empty if nothing is found."""
    journal = ["journalctl", "--quiet", "--lines=1", "--output=cat", f"--since=@{since}", f"_SYSTEMD_UNIT={unit}"]
    with contextlib.suppress(ServiceError):
        code, said = _run(journal)
        return "" if code else said
    return ""


def disable(units: Sequence[str]) -> None:
    """Stop the units, now and at boot. Raises ServiceError."""
    code, said = _run(["systemctl", "disable", "--now", *units])
    if code:
        raise ServiceError(f"systemctl disable --now {' '.join(units)}: {said or f'exit code {code}'}")


# ---- without systemd


class Background:
    """`fastscreen run`, in a session of its own, where systemd does not run it."""

    def __init__(self, config: Path) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as this object
        try:
            self._process = subprocess.Popen(
                [*fastscreen_command(), "run", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            raise ServiceError(f"fastscreen run: {error.strerror}") from None

    def failure(self) -> str:
        """The last line of its output if it has ended; empty if it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return f"fastscreen run: {escape_text(lines[-1], 500) if lines else f'exit code {code}'}"

    def terminate(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GREETING_TIME)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def stop(config: Path) -> None:
    """Stop the fastscreen of a configuration if it runs: what does not answer holds no port, which is checked after."""
    subprocess.run(
        [*fastscreen_command(), "stop", "-c", str(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
    )


# ---- ports


def is_free(address: Endpoint) -> bool:
    """Whether a program could listen there now."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed do not count
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address.host, address.port))
            probe.listen(1)
    except OSError as error:
        return error.errno in _NOT_IN_USE
    return True


def users_of(addresses: Sequence[Endpoint]) -> set[str]:
    """Names of the programs that listen at the ports of these addresses, as far as this user may see them."""
    ports = {each.port for each in addresses}
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) in ports:
                    inodes.add(f"socket:[{fields[9]}]")
    names = set()
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):
            if str(link.readlink()) in inodes:
                names.add(link.parents[1].joinpath("comm").read_text().strip())
    return names


def wait_until_free(addresses: Sequence[Endpoint], seconds: float, tell: Callable[[str], None]) -> bool:
    """Wait until nobody listens at any of them; False if that takes longer."""
    end = time.monotonic() + seconds
    told = time.monotonic() + 2
    while busy := [each for each in addresses if not is_free(each)]:
        if time.monotonic() > end:
            return False
        if time.monotonic() > told:
            told = end + 1
            tell(f"{busy[0]} is still in use, by sessions that have not ended; waiting for at most {seconds:.0f} s")
        time.sleep(_PAUSE)
    return True


def _connected(address: Endpoint, seconds: float) -> socket.socket:
    """Raises OSError."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return socket.create_connection((host, address.port), seconds)


def wait_for_greeting(address: Endpoint, failure: Callable[[], str], *, proxied: bool = False) -> None:
    """Wait until a server greets its clients with 220. Raises ServiceError with the reason.

    proxied: it first expects the PROXY protocol, so it only has to accept connections.
    """
    end = time.monotonic() + GREETING_TIME
    while problem := _greeting_problem(address, proxied):
        if why := failure():
            raise ServiceError(why)
        if time.monotonic() > end:
            raise ServiceError(problem)
        time.sleep(_PAUSE)


def _greeting_problem(address: Endpoint, proxied: bool) -> str:
    """Why a server does not greet a client; empty if it does."""
    try:
        with _connected(address, GREETING_TIME) as client:
            reply = b"220" if proxied else client.recv(_MAX_GREETING)
    except OSError:
        reply = b""
    if reply.startswith(b"220"):
        return ""
    return _unexpected(address, reply) if reply else f"no server answers with 220 at {address}"


def _unexpected(address: Endpoint, reply: bytes) -> str:
    return f"{address}: replied {escape_text(reply.decode('ascii', 'replace').rstrip(), 500)}; expected 220"


def verify_handoff(address: Endpoint, greet_wait: float) -> None:
    """Read the whole greeting of fastscreen: its teaser, and the MTA's line. Raises ServiceError with the reason.

    greet_wait: how long fastscreen holds a client, in s.
    """
    end = time.monotonic() + GREETING_TIME + greet_wait
    read = b""
    try:
        with _connected(address, GREETING_TIME) as client:
            while (line := _last_line(read)) is None:
                client.settimeout(max(end - time.monotonic(), _PAUSE))
                some = client.recv(_MAX_GREETING)
                if not some or len(read) > _MAX_GREETING:
                    raise ServiceError(f"{address}: the connection was closed before the greeting of the mail server")
                read += some
            client.sendall(b"QUIT\r\n")
    except OSError as error:
        raise ServiceError(f"{address}: no greeting of the mail server: {error.strerror or error}") from None
    if not line.startswith(b"220"):
        raise ServiceError(_unexpected(address, line))


def _last_line(reply: bytes) -> bytes | None:
    """The last line of a reply; None if it is not complete."""
    lines = reply.split(b"\n")[:-1]
    return next((line.rstrip(b"\r") for line in lines if line[3:4] != b"-"), None)
