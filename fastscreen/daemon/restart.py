"""A restart in place: the program is replaced (execve), by an upgraded one perhaps, under the same process ID.

The new program inherits the listening sockets, the workers' inboxes, the control socket, the certificates and the
processes of the old one, which go on serving. A child tries the new program first. When a new worker serves, its
predecessor stops accepting and lets its clients finish. So no connection is refused, and none waits for the start.

What is inherited is described by `State`, in a file in memory whose descriptor an environment variable names.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from fastscreen import config
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint
from fastscreen.core import EventReader
from fastscreen.daemon import reload, spawn, systemd_sockets
from fastscreen.daemon.control_listener import ControlSocket, check_group
from fastscreen.daemon.resources import Resources, close_all
from fastscreen.daemon.spawn import Silent, Steps
from fastscreen.escaping import one_line, unexpected
from fastscreen.process import ipc, prctl, privileges
from fastscreen.process.child import Child
from fastscreen.process.child import State as ChildState
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, Ready, Report, Stop
from fastscreen.process.log_output import LogTarget
from fastscreen.process.oom import OomScore
from fastscreen.screening import policy
from fastscreen.tls import certificates
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.context import ContextError
from fastscreen.tls.key_reader import KeyReader, read_files
from fastscreen.tls.process import prepared

STATE = "FASTSCREEN_HANDOVER"
TRIAL = "FASTSCREEN_HANDOVER_TRIAL"
FORMAT = 1
"""Of `State`, and of what workers pass each other through their inboxes (`Passed` in ext/worker_routing.pyx)."""
TRIAL_SECONDS = 30.0
FORMER_STOP_SECONDS = 40.0  # a worker gives its clients 30
OTHERS_STOP_SECONDS = 10.0


class Inherited(Struct, frozen=True):
    """A process that goes on. kind: worker, tls or hub. told: to stop. channel: a descriptor; -1: closed, which told it
    to stop. by: when it is killed (s, monotonic); inf: not yet known.
    """

    kind: str
    name: str
    number: int
    pid: int
    channel: int
    told: bool
    by: float = math.inf


class ServerSocket(Struct, frozen=True):
    """A socket of the hub's. listener: a descriptor. path, awaited: as in `ControlSocket`; empty = None."""

    listener: int
    path: str
    awaited: str


class Reader(Struct, frozen=True):
    """The process that reads root's keys. end: a descriptor. paths: the files that it reads."""

    pid: int
    end: int
    paths: tuple[str, ...]


class State(Struct, frozen=True):
    """What the new program inherits; numbers are descriptors. config: the old one's, as msgpack."""

    format: int
    dumpable: int
    config: bytes
    workers: int
    key: int
    groups: tuple[tuple[Endpoint, tuple[int, ...]], ...]
    activated: tuple[Endpoint, ...]
    inboxes: tuple[tuple[int, int], ...]
    certificate_paths: tuple[str, ...]
    certificate_files: tuple[int, ...]
    certificate_stamps: tuple[certificates.Stamp, ...]
    key_reader: Reader | None
    control: ServerSocket | None
    metrics: ServerSocket | None
    log: int
    health: bytes
    bypass: float
    oom_inherited: int
    oom_own: int
    oom: int
    children: tuple[Inherited, ...]

    @property
    def descriptors(self) -> Iterator[int]:
        """All of them."""
        for _, group in self.groups:
            yield from group
        for pair in self.inboxes:
            yield from pair
        yield from self.certificate_files
        if self.key_reader is not None:
            yield self.key_reader.end
        yield from (socket_.listener for socket_ in (self.control, self.metrics) if socket_ is not None)
        yield from (fd for fd in (self.log, self.oom) if fd >= 0)
        yield from (inherited.channel for inherited in self.children if inherited.channel >= 0)


class Former(Child):
    """A process that the program before a restart had started."""

    def __init__(self, inherited: Inherited) -> None:
        super().__init__(inherited.name, inherited.number)
        self.kind = inherited.kind
        self.told = inherited.told
        self.take(inherited.pid, socket.socket(fileno=inherited.channel) if inherited.channel >= 0 else None)
        self.expected = sys.maxsize  # its reports are ignored
        self.by = inherited.by
        if inherited.told or inherited.kind == "hub" or inherited.channel < 0:
            self.by = min(self.by, time.monotonic() + FORMER_STOP_SECONDS)


# ---- the old program


def run_in_child(resources: Resources) -> Steps[str]:
    """Let a child run the new program on what it would inherit. Return why it would not start; empty: it would."""
    report = yield from spawn.run_in_child(resources, lambda theirs: _become_trial(resources, theirs), TRIAL_SECONDS)
    match report:
        case Ready():
            return ""
        case Failed(why):
            return why
        case Silent():
            return f"the new program says nothing within {TRIAL_SECONDS:g} s"
    return "the new program does not start; its output has the reason"


def _become_trial(resources: Resources, answer: socket.socket) -> int:
    try:
        return _execute(_state(resources), answer.fileno())
    except OSError as error:
        ipc.send(answer, Failed(f"{command()[0]}: {error.strerror}"))
        return 1


def replace(resources: Resources) -> None:
    """Become the new program. OSError: impossible; nothing has changed."""
    children = [
        *_children("worker", resources.children),
        *_children("tls", resources.tls),
        *_children("hub", [resources.control_process]),
        *(
            _child(each.kind, each, told=each.told, by=each.by)
            for each in resources.former
            if isinstance(each, Former) and each.pid
        ),
    ]
    resources.refresher.kill()
    resources.target.log.flush()
    _execute(_state(resources, children))


def _is_there(child: Child) -> bool:
    return bool(child.pid) and child.channel is not None


def _children(kind: str, children: Sequence[Child]) -> Iterator[Inherited]:
    return (_child(kind, child, told=False) for child in children if _is_there(child))


def _child(kind: str, child: Child, *, told: bool, by: float = math.inf) -> Inherited:
    descriptor = child.channel.fileno() if child.channel is not None else -1
    return Inherited(kind, child.name, child.number, child.pid, descriptor, told, by)


def _state(resources: Resources, children: Sequence[Inherited] | None = None) -> State:
    """children: None for a trial."""
    own = resources.certificates
    return State(
        format=FORMAT,
        dumpable=prctl.dumpable(),
        config=msgspec.msgpack.encode(resources.config),
        workers=len(resources.children),
        key=resources.key,
        groups=tuple((address, tuple(one.fileno() for one in group)) for address, group in resources.groups.items()),
        activated=tuple(resources.activated),
        inboxes=tuple((one.fileno(), other.fileno()) for one, other in resources.inboxes),
        certificate_paths=own.paths if own is not None else (),
        certificate_files=own.descriptors if own is not None else (),
        certificate_stamps=own.stamps if own is not None else (),
        key_reader=_reader(resources) if children is not None else None,
        control=_door(resources.control),
        metrics=_door(resources.metrics),
        log=resources.target.descriptor,
        health=bytes(resources.health.memory),
        bypass=max(EventReader(ring).bypass_until for ring in resources.rings),
        oom_inherited=resources.oom.inherited,
        oom_own=resources.oom.own,
        oom=resources.oom.fd if children is not None else -1,
        children=tuple(children or ()),
    )


def _reader(resources: Resources) -> Reader | None:
    reader = resources.key_reader
    return Reader(reader.pid, reader.end.fileno(), reader.paths) if reader is not None else None


def _door(socket_: ControlSocket | None) -> ServerSocket | None:
    if socket_ is None:
        return None
    return ServerSocket(socket_.listener.fileno(), str(socket_.path or ""), str(socket_.awaited or ""))


def _execute(state: State, answer: int = -1) -> int:
    """execve. answer: where a trial reports; -1: it is no trial. OSError: impossible."""
    memory = os.memfd_create("fastscreen handover")
    passed = [*state.descriptors, memory, *([answer] if answer >= 0 else [])]
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(state))
        environment = {**os.environ, STATE: str(memory)}
        if answer >= 0:
            environment[TRIAL] = str(answer)
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
        program, *words = command()
        os.execve(program, [program, *words], environment)
    except BaseException:
        for descriptor in passed:
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
        os.close(memory)
        raise


def command() -> list[str]:
    """The command line of this process. A script is executed itself: an upgrade may bring another interpreter."""
    script = sys.argv[0]
    if sys.orig_argv[1:2] == [script] and "/" in script and os.access(script, os.X_OK):
        return [script, *sys.orig_argv[2:]]
    return [sys.executable, *sys.orig_argv[1:]]


# ---- the new program


def take() -> tuple[State | None, int]:
    """What was inherited, and where a trial reports (-1: it is no trial); taken once."""
    inherited, answer = os.environ.pop(STATE, ""), os.environ.pop(TRIAL, "")
    if not inherited.isascii() or not inherited.isdigit():
        return None, -1
    try:
        memory = int(inherited)
        try:
            state = msgspec.msgpack.decode(os.pread(memory, os.fstat(memory).st_size, 0), type=State)
        finally:
            os.close(memory)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"fastscreen: nothing to take over from a program before: {one_line(error)}", file=sys.stderr)
        return None, -1
    if state.dumpable != 1:  # execve made it so: others of the same user could look into this process
        prctl.forbid_tracing()
    for descriptor in state.descriptors:
        os.set_inheritable(descriptor, False)
    return state, int(answer) if answer.isascii() and answer.isdigit() else -1


def try_out(state: State, path: Path | None, answer: int) -> int:
    """Say whether a start with this configuration and these descriptors would succeed. It leaves no trace."""
    report: Report = Ready()
    try:
        if state.format != FORMAT:
            raise ConfigError("this version cannot take over from the running one: stop and start it")
        resources = Resources(_load(state, path))
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
        with reload.bounded(reload.READ_SECONDS, str(path)):  # the trial has read it, but it may be a FIFO now
            return _load(state, path), ""
    except ConfigError as error:
        try:
            return msgspec.msgpack.decode(state.config, type=Config), str(error)
        except msgspec.MsgspecError:
            raise error from None


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
        resources.control, found = _take_door(
            resources, state.control, settings.control.path, Kind.CONTROL, "control.path"
        )
        warnings += found
        resources.metrics, found = _take_door(
            resources, state.metrics, settings.metrics.listen, Kind.METRICS, "metrics.listen"
        )
        warnings += found
        resources.inboxes = [(_unix(one), _unix(other)) for one, other in state.inboxes]
        resources.former = [Former(inherited) for inherited in state.children]
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
        return [f"log not opened again: {problem}"]
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
        opened, omitted = {}, dict.fromkeys(added, f"listen: {one_line(error)}: not served")
    if omitted:
        problems = list(dict.fromkeys(omitted.values()))
        warnings += problems
        resources.faults.append((Kind.LISTEN, "; ".join(problems)))
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
            text += ": the certificates of before the restart stay in use"
            if resources.key_reader is None:
                text += "; to renew them, stop and start fastscreen"
        elif strict:
            raise OSError(error.errno, text) from None
        else:
            inherited.close()
            text += ": no TLS"
        resources.faults.append((Kind.CERTIFICATES, text))
        return [text]
    inherited.close()
    return []


def _take_door(
    resources: Resources, inherited: ServerSocket | None, wanted: str | Endpoint | None, kind: Kind, key: str
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
            resources.faults.append((kind, f"{key}: {wanted}: in use"))
        return socket_, []
    if socket_ is not None:
        socket_.close()
    socket_, problem = resources.make_door(Path(wanted) if isinstance(wanted, str) else wanted, "")
    if problem:
        text = f"{key}: {wanted}: {problem}"
        resources.faults.append((kind, text))
        return socket_, [text]
    return socket_, []


def _is_at(socket_: ControlSocket, wanted: str | Endpoint) -> bool:
    if isinstance(wanted, str):
        return Path(wanted) in (socket_.path, socket_.awaited)
    return socket_.path is None and tuple(socket_.listener.getsockname()[:2]) == (wanted.host, wanted.port)


def share(resources: Resources, state: State) -> None:
    """What the shared memory of the new program takes from the old one: the lists' health, and a bypass."""
    if len(state.health) == len(resources.health.memory):
        resources.health.memory[:] = state.health
        resources.health.claim(resources.config.dnsbl.domains)
    if state.bypass:
        for ring in resources.rings:
            EventReader(ring).bypass_until = state.bypass


def retire(resources: Resources, now: float) -> None:
    """Tell former workers to stop whose successors serve, and other former processes once no worker needs them."""
    formers = [each for each in resources.former if isinstance(each, Former) and each.pid]
    for former in formers:
        if former.kind == "worker" and not former.told and former.channel is not None:
            successor = resources.children[former.number % len(resources.children)]
            if successor.state in (ChildState.SERVING, ChildState.RELOADING):
                with contextlib.suppress(OSError):
                    ipc.send(former.channel, Stop(successor=True))
                    former.told = True
                    former.by = now + FORMER_STOP_SECONDS
        elif former.kind == "hub" and former.channel is not None:
            former.leave()  # it ends; callers come again, to its successor
            former.by = now + OTHERS_STOP_SECONDS
    if not any(former.kind == "worker" for former in formers):
        for former in formers:
            if former.kind == "tls" and former.channel is not None:
                former.leave()
                former.by = now + OTHERS_STOP_SECONDS
