"""A restart in place (SIGUSR2): the program is replaced (execve) under the same process ID, as after an upgrade.

The old program: a child tries whether the new one would start (`takeover.try_out`); if so, the process becomes the new
program, which inherits sockets and children (`handover.State`, `takeover.finish`). The former processes go on serving.
When a new worker serves, its predecessor stops accepting and lets its clients finish (`retire`). So no connection is
refused, and none waits for the start.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from fastscreen.core import EventReader
from fastscreen.daemon import handover, spawn, systemd_notify
from fastscreen.daemon.control_listener import ControlSocket
from fastscreen.daemon.handover import FORMAT, InheritedChild, InheritedReader, InheritedSocket, State
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.spawn import NoReport
from fastscreen.daemon.tasks import Steps
from fastscreen.escaping import unexpected
from fastscreen.process import ipc, prctl
from fastscreen.process.child import Child, ChildState
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, Ready, Stop, WriteThrough

TRIAL_SECONDS = 30.0
FORMER_WORKER_SECONDS = 40.0  # a worker gives its clients 30
FORMER_OTHERS_SECONDS = 10.0


def restart(resources: Resources, is_over: Callable[[], bool]) -> Steps[None]:
    """Become the program as it is on the disk now. What keeps it from starting leaves everything as it is.

    is_over: whether the restart before this one is over.
    """
    resources.reload_state.restart.begin()
    wait_until = time.monotonic() + spawn.START_SECONDS
    while not is_over() and time.monotonic() < wait_until:
        yield
    resources.info("restarting: the new program is tried first")
    try:
        problem = yield from run_trial(resources)
        if not problem:
            systemd_notify.reloading()
            resources.order(WriteThrough())
            become_new_program(resources)
    except GeneratorExit:
        resources.reload_state.restart.end(False, "restart refused: fastscreen is being stopped")
        raise
    except Exception as error:  # whatever it is: this program goes on
        problem = unexpected(error)
    text = f"restart refused: {problem}"
    resources.warn(f"{text}; the running daemon goes on")
    resources.conditions.begin(Kind.CONFIG, f"{text}; the running program stays in use")
    resources.reload_state.restart.end(False, text)
    systemd_notify.send("READY=1")


# ---- the trial


def run_trial(resources: Resources) -> Steps[str]:
    """Let a child run the new program on what it would inherit. Return why it would not start; empty: it would."""
    report = yield from spawn.run_in_child(resources, lambda channel: _become_trial(resources, channel), TRIAL_SECONDS)
    match report:
        case Ready():
            return ""
        case Failed(why):
            return why
        case NoReport():
            return f"the new program gives no report within {TRIAL_SECONDS:g} s"
    return "the new program does not start; its output has the reason"


def _become_trial(resources: Resources, channel: socket.socket) -> int:
    try:
        return handover.execute(_state(resources), channel.fileno())
    except OSError as error:
        ipc.send(channel, Failed(f"{handover.command()[0]}: {error.strerror}"))
        return 1


# ---- the replacement


def become_new_program(resources: Resources) -> None:
    """Replace this program. OSError: impossible; nothing has changed."""
    running = [*resources.children, *resources.tls, *resources.optional, resources.control_process]
    children = [
        *(_inherited(child) for child in running if child.pid and child.channel is not None),
        *(_inherited(child) for child in resources.former if child.pid),
    ]
    resources.refresher.kill()
    resources.target.log.flush()
    handover.execute(_state(resources, children))


def _inherited(child: Child) -> InheritedChild:
    channel = child.channel.fileno() if child.channel is not None else -1
    deadline = child.deadline if child.is_former else math.inf
    return InheritedChild(child.kind, child.name, child.number, child.pid, channel, child.is_stopping, deadline)


def _state(resources: Resources, children: Sequence[InheritedChild] | None = None) -> State:
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
        key_reader=_key_reader(resources) if children is not None else None,
        control=_socket(resources.control),
        metrics=_socket(resources.metrics),
        log=resources.target.descriptor,
        health=bytes(resources.health.memory),
        bypass=max(EventReader(ring).bypass_until for ring in resources.rings),
        oom_inherited=resources.oom.inherited,
        oom_own=resources.oom.own,
        oom=resources.oom.fd if children is not None else -1,
        children=tuple(children or ()),
    )


def _key_reader(resources: Resources) -> InheritedReader | None:
    reader = resources.key_reader
    return InheritedReader(reader.pid, reader.end.fileno(), reader.paths) if reader is not None else None


def _socket(bound: ControlSocket | None) -> InheritedSocket | None:
    if bound is None:
        return None
    return InheritedSocket(bound.listener.fileno(), str(bound.path or ""), str(bound.awaited or ""))


# ---- the former processes, in the new program


def former_child(inherited: InheritedChild) -> Child:
    """A process that the program before the restart has started."""
    child = Child(inherited.name, inherited.number, inherited.kind)
    child.assign(inherited.pid, socket.socket(fileno=inherited.channel) if inherited.channel >= 0 else None)
    child.is_former = True
    child.expected = sys.maxsize  # its reports are ignored
    child.is_stopping = inherited.is_stopping
    child.deadline = inherited.deadline
    if inherited.is_stopping or inherited.kind == "control" or inherited.channel < 0:
        child.deadline = min(child.deadline, time.monotonic() + FORMER_WORKER_SECONDS)
    return child


def retire(resources: Resources, now: float) -> None:
    """Let former workers stop whose successors serve, and the other former processes once no worker needs them."""
    former = [each for each in resources.former if each.pid]
    for child in former:
        if child.kind == "worker" and not child.is_stopping and child.channel is not None:
            successor = resources.children[child.number % len(resources.children)]
            if successor.state in (ChildState.SERVING, ChildState.RELOADING):
                with contextlib.suppress(OSError):
                    ipc.send(child.channel, Stop(successor=True))
                    child.is_stopping = True
                    child.deadline = now + FORMER_WORKER_SECONDS
        elif child.kind == "control" and child.channel is not None:
            child.close_channel()  # it ends; callers connect again, to the successor
            child.deadline = now + FORMER_OTHERS_SECONDS
    if not any(child.kind == "worker" for child in former):
        for child in former:
            if child.kind in ("tls", "cluster", "history") and child.channel is not None:
                child.dismiss() if child.kind == "history" else child.close_channel()
                child.deadline = now + FORMER_OTHERS_SECONDS
