"""What a restart in place hands over from one program to the next: `State`, in a file in memory, and execve(2).

The descriptor of that file is named by an environment variable. A change of `State`, or of `Passed` in
ext/worker_routing.pyx, must raise FORMAT: then a restart is refused, and the daemon has to be stopped and started.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from fastscreen.config.model import Endpoint
from fastscreen.escaping import one_line
from fastscreen.process import prctl
from fastscreen.tls import certificates

STATE = "FASTSCREEN_HANDOVER"
TRIAL = "FASTSCREEN_HANDOVER_TRIAL"
FORMAT = 2
"""Of `State`, and of what workers send each other through their inboxes."""


class InheritedChild(Struct, frozen=True):
    """A process that goes on. kind: worker, tls, cluster, history, control. channel: a descriptor; -1: closed, which
    says stop. is_stopping: it was told to stop. deadline: when it is killed (s, monotonic); inf: not yet known.
    """

    kind: str
    name: str
    number: int
    pid: int
    channel: int
    is_stopping: bool
    deadline: float = math.inf


class InheritedSocket(Struct, frozen=True):
    """A socket of the control server. listener: a descriptor. path, awaited: as in `ControlSocket`; empty = None."""

    listener: int
    path: str
    awaited: str


class InheritedReader(Struct, frozen=True):
    """The process that reads root's keys. end: a descriptor. paths: the files that it reads."""

    pid: int
    end: int
    paths: tuple[str, ...]


class State(Struct, frozen=True):
    """What the new program inherits; numbers are descriptors. config: that of the old program, as msgpack."""

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
    key_reader: InheritedReader | None
    control: InheritedSocket | None
    metrics: InheritedSocket | None
    log: int
    health: bytes
    bypass: float
    oom_inherited: int
    oom_own: int
    oom: int
    children: tuple[InheritedChild, ...]

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


def execute(state: State, trial: int = -1) -> int:
    """execve(2). trial: the descriptor where a trial reports; -1: not a trial. OSError: impossible, nothing changed."""
    memory = os.memfd_create("fastscreen handover")
    passed = [*state.descriptors, memory, *([trial] if trial >= 0 else [])]
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(state))
        environment = {**os.environ, STATE: str(memory)}
        if trial >= 0:
            environment[TRIAL] = str(trial)
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


def receive() -> tuple[State | None, int]:
    """What was inherited, and the descriptor where a trial reports (-1: not a trial). Once per process."""
    inherited, trial = os.environ.pop(STATE, ""), os.environ.pop(TRIAL, "")
    if not inherited.isascii() or not inherited.isdigit():
        return None, -1
    try:
        memory = int(inherited)
        try:
            state = msgspec.msgpack.decode(os.pread(memory, os.fstat(memory).st_size, 0), type=State)
        finally:
            os.close(memory)
    except (OSError, msgspec.MsgspecError) as error:
        print(
            f"fastscreen: warning: {STATE}: nothing to take over: {one_line(error)}; this is an ordinary start",
            file=sys.stderr,
        )
        return None, -1
    if state.dumpable != 1:  # execve made it so: others of the same user could look into this process
        prctl.forbid_tracing()
    for descriptor in state.descriptors:
        os.set_inheritable(descriptor, False)
    return state, int(trial) if trial.isascii() and trial.isdigit() else -1
