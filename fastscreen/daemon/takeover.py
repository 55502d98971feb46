"""A restart in place, as the new program does it: take over what it inherited, and make what its configuration adds.

First in a trial (`try_out`), which reports to the old program and leaves no trace. Then for good (`finish`): there is
no way back, so what is wrong now is tried again until it works; the former processes serve meanwhile. The part of the
old program is in `restart`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path

import msgspec

from fastscreen import config
from fastscreen.config import Config, ConfigError
from fastscreen.config.changes import kept
from fastscreen.config.model import Endpoint
from fastscreen.core import EventReader
from fastscreen.daemon import reload, restart, server_sockets, systemd_sockets
from fastscreen.daemon.control_listener import ControlSocket, check_group
from fastscreen.daemon.handover import FORMAT, InheritedSocket, State
from fastscreen.daemon.preload import preload
from fastscreen.daemon.resources import Resources, close_all
from fastscreen.daemon.worker_settings import time_limit
from fastscreen.escaping import one_line, unexpected
from fastscreen.process import ipc, privileges
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, Ready, Report
from fastscreen.process.log_output import LogTarget
from fastscreen.process.oom import OomScore
from fastscreen.screening import policy
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.context import ContextError
from fastscreen.tls.key_reader import KeyReader, read_files
from fastscreen.tls.process import prepared

RETRY_SECONDS = 1.0  # between two attempts to finish a restart

# ---- the trial


def try_out(state: State, path: Path | None, answer: int) -> int:
    """Report whether a start with this configuration and these descriptors would succeed. answer: a descriptor."""
    report: Report = Ready()
    try:
        if state.format != FORMAT:
            raise ConfigError("this version cannot take over from the running one; stop and start fastscreen")
        resources = Resources(_load(state, path))
        preload(resources.config)
        if user := privileges.user_of(resources.config):
            privileges.become(user)
        adopt(resources, state, strict=True)
        resources.read(state.workers)
        if resources.wants_tls and resources.certificates is not None:
            prepared(resources.config, resources.certificates)
    except (OSError, ConfigError, ContextError, ValueError, privileges.PrivilegeError) as error:
        report = Failed(one_line(error))
    except Exception as error:
        report = Failed(unexpected(error))
    with socket.socket(fileno=answer) as end, contextlib.suppress(OSError):
        ipc.send(end, report)
    return 0


def _load(state: State, path: Path | None) -> Config:
    """ConfigError, also where a restart cannot do what it says."""
    settings = config.load(path) if path is not None else config.default()
    systemd_sockets.check_kept(state.activated, settings)
    return settings


def settings_of(state: State, path: Path | None) -> tuple[Config, str]:
    """The configuration, and what is wrong with its file: then it is the one before. ConfigError: neither."""
    try:
        with time_limit(str(path)):  # the trial has read it, but it may be a FIFO now
            return _load(state, path), ""
    except ConfigError as error:
        try:
            return msgspec.msgpack.decode(state.config, type=Config), str(error)
        except msgspec.MsgspecError:
            raise error from None


# ---- for good


def finish(
    resources: Resources, state: State, path: Path | None, problem: str
) -> tuple[int, tuple[str, ...], list[int]]:
    """Take over what was inherited. Return the number of workers, warnings, and signals that came meanwhile.

    The former processes serve. So what cannot be read now is tried again until it works, or until SIGTERM. problem: why
    the configuration of before the restart is used again; empty: it is not. ConfigError, OSError.
    """
    warnings = adopt(resources, state, strict=False)
    if problem:
        warnings.append(f"configuration not taken over: {problem}; the previous configuration stays in use")
        resources.early_conditions.append((Kind.CONFIG, warnings[-1]))
    postponed: dict[int, None] = {}
    while True:
        try:
            with time_limit("a table"):
                return state.workers, (*warnings, *resources.read(state.workers)), list(postponed)
        except (OSError, ConfigError, ValueError) as error:
            text = (
                f"restart not finished: {one_line(error)}; the former processes serve meanwhile, retried automatically"
            )
            resources.warn_rarely("restart", text)
        resources.watchdog.feed(time.monotonic())
        assert resources.signals is not None
        if select.select([resources.signals], [], [], RETRY_SECONDS)[0]:
            postponed |= dict.fromkeys(resources.signals.read())  # processes that have ended are reaped later
            if {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} & set(postponed):
                return state.workers, tuple(warnings), list(postponed)
        with contextlib.suppress(ConfigError):
            if _read_again(resources, state, path):
                postponed[signal.SIGHUP] = None  # a reload takes over the rest


def _read_again(resources: Resources, state: State, path: Path | None) -> bool:
    """Take over what the configuration says now, without addresses and certificates. Whether these have changed, too.

    ConfigError.
    """
    found, _ = settings_of(state, path)
    found, _ = reload.with_what_is_fixed(resources, found)
    if found == resources.config:
        return False
    resources.config = msgspec.structs.replace(found, listen=resources.config.listen, tls=resources.config.tls)
    return found != resources.config


def adopt(resources: Resources, state: State, *, strict: bool) -> list[str]:
    """Take over what was inherited, and make what is new in the configuration. Return warnings.

    strict: a trial. OSError: something cannot be made. Otherwise that is a warning: the daemon has to go on.
    """
    warnings: list[str] = []
    settings = resources.config
    if strict:
        check_group(settings)
    resources.key = state.key
    resources.user = ""
    resources.activated = set(state.activated)
    with contextlib.suppress(msgspec.MsgspecError):  # another version's configuration
        resources.config, waiting = kept(msgspec.msgpack.decode(state.config, type=Config), settings, at_restart=True)
        warnings += [reload.waiting_text(change) for change in waiting if change.key != "listen.workers"]
    if policy.worker_count(settings) != state.workers:
        warnings.append(
            f"listen.workers changed: {state.workers} workers stay until fastscreen is stopped and started again"
        )
    warnings += _take_log(resources, state, strict)
    warnings += _take_ports(resources, state, strict)
    warnings += _take_certificates(resources, state, strict)
    if not strict:
        if resources.oom.fd >= 0:
            os.close(resources.oom.fd)
        resources.oom = OomScore(state.oom_inherited, state.oom, own=state.oom_own)
        resources.control, found = _take_socket(
            resources, state.control, settings.control.path, Kind.CONTROL, "control.path"
        )
        warnings += found
        resources.metrics, found = _take_socket(
            resources, state.metrics, settings.metrics.listen, Kind.METRICS, "metrics.listen"
        )
        warnings += found
        resources.inboxes = [(_unix(one), _unix(other)) for one, other in state.inboxes]
        resources.former = [restart.former_child(inherited) for inherited in state.children]
    return warnings


def _unix(descriptor: int) -> socket.socket:
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)
    return end


def _take_log(resources: Resources, state: State, strict: bool) -> list[str]:
    try:
        resources.target = LogTarget(resources.config)
        problem = resources.target.problem
    except OSError as error:
        if strict and (state.log < 0 or resources.config.log != msgspec.msgpack.decode(state.config, type=Config).log):
            raise
        problem = one_line(error)
    if problem:
        resources.target = LogTarget(resources.config, inherited=state.log, problem=problem)
        return [f"log not opened again: {problem}; what was open before stays in use and opening it is retried"]
    if state.log >= 0:
        os.close(state.log)
    return []


def _take_ports(resources: Resources, state: State, strict: bool) -> list[str]:
    ports = resources.config.listen.ports
    inherited = {address: [socket.socket(fileno=fd) for fd in group] for address, group in state.groups}
    warnings = []
    for address in set(inherited) - set(ports):
        group = inherited.pop(address)
        if not strict and address not in resources.activated:
            systemd_sockets.forget(address, len(group))
        close_all(group)
    for address, group in inherited.items():
        try:
            if strict:
                continue  # the sockets are in use as they are
            by_client = ports[address] is None
            systemd_sockets.prepare(group, resources.key, resources.config.worker_prefix, by_client=by_client)
        except OSError as error:
            warnings.append(f"{address}: {one_line(error)}")
    added = {address: port for address, port in ports.items() if address not in inherited}
    try:
        opened, omitted = resources.open_ports(added, state.workers, others=len(inherited))
    except OSError as error:
        if strict:
            raise
        opened, omitted = {}, dict.fromkeys(added, f"listen: {one_line(error)}; not served until the next reload")
    if omitted:
        problems = list(dict.fromkeys(omitted.values()))
        warnings += problems
        resources.early_conditions.append((Kind.LISTEN, "; ".join(problems)))
    found = inherited | opened
    resources.groups = {address: found[address] for address in ports if address in found}
    if not strict:
        for address, group in opened.items():
            systemd_sockets.store(address, group)
    return warnings


def _take_certificates(resources: Resources, state: State, strict: bool) -> list[str]:
    """Read them again; where only root may, what was inherited is used."""
    wanted = resources.config.tls.certificates
    if state.key_reader is not None:
        reader = state.key_reader
        resources.key_reader = KeyReader(reader.pid, socket.socket(fileno=reader.end), reader.paths)
    inherited = Certificates(state.certificate_paths, state.certificate_files, state.certificate_stamps)
    if not wanted:
        inherited.close()
        return []
    try:
        resources.certificates = read_files(wanted, "", resources.key_reader)
    except OSError as error:
        text = f"tls.certificates: {error.filename}: {error.strerror}"
        if wanted == inherited.paths:
            resources.certificates = inherited
            if resources.key_reader is not None and inherited.unchanged(wanted):
                return []
            text += "; the certificates of before the restart stay in use"
            if resources.key_reader is None:
                text += "; to renew them, stop and start fastscreen"
        elif strict:
            raise OSError(error.errno, text) from None
        else:
            inherited.close()
            text += "; TLS is disabled; correct the file, then reload"
        resources.early_conditions.append((Kind.CERTIFICATES, text))
        return [text]
    inherited.close()
    return []


def _take_socket(
    resources: Resources, inherited: InheritedSocket | None, wanted: str | Endpoint | None, kind: Kind, key: str
) -> tuple[ControlSocket | None, list[str]]:
    """The socket that was inherited where it is still the one that is wanted."""
    socket_ = None
    if inherited is not None:
        listener = socket.socket(fileno=inherited.listener)
        with contextlib.suppress(OSError):  # its name is gone
            socket_ = ControlSocket(
                Path(inherited.path) if inherited.path else None,
                listener,
                Path(inherited.awaited) if inherited.awaited else None,
            )
        if socket_ is None:
            listener.close()
    if not wanted:
        if socket_ is not None:
            socket_.close()
        return None, []
    if socket_ is not None and _is_at(socket_, wanted):
        if socket_.awaited is not None:
            text = f"{key}: {wanted}: another process answers there; retried automatically"
            resources.early_conditions.append((kind, text))
        return socket_, []
    if socket_ is not None:
        socket_.close()
    socket_, problem = server_sockets.make(resources, Path(wanted) if isinstance(wanted, str) else wanted, "")
    if problem:
        text = f"{key}: {wanted}: {problem}; retried automatically"
        resources.early_conditions.append((kind, text))
        return socket_, [text]
    return socket_, []


def _is_at(socket_: ControlSocket, wanted: str | Endpoint) -> bool:
    if isinstance(wanted, str):
        return Path(wanted) in (socket_.path, socket_.awaited)
    return socket_.path is None and tuple(socket_.listener.getsockname()[:2]) == (wanted.host, wanted.port)


def share(resources: Resources, state: State) -> None:
    """Copy what the new program's shared memory takes from the old one: the lists' health, and a bypass."""
    if len(state.health) == len(resources.health.memory):
        resources.health.memory[:] = state.health
        resources.health.claim(resources.config.dnsbl.domains)
    if state.bypass:
        for ring in resources.rings:
            EventReader(ring).bypass_until = state.bypass
