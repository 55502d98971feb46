"""How settings reach the workers: a child reads them first, for a file may never end; then they are read and sent."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from fastscreen.allowlist import lists
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint
from fastscreen.daemon.resources import Resources, warnings_of
from fastscreen.daemon.spawn import NoReport, close_keys, run_in_child
from fastscreen.daemon.tasks import Steps
from fastscreen.escaping import one_line
from fastscreen.process import ipc
from fastscreen.process.child import ChildState
from fastscreen.process.ipc import Failed, Ready, Reload
from fastscreen.screening import policy

RELOAD_SECONDS = 30.0  # for reading the tables, and then for all workers together
READ_SECONDS = 10.0  # for reading again what a child has just read


def try_in_child(resources: Resources, source: str, load: Callable[[], Config]) -> Steps[None]:
    """Read a configuration and its tables in a child: a file may be one that is never read to its end."""
    report = yield from run_in_child(resources, lambda theirs: _read(resources, load, theirs), RELOAD_SECONDS)
    match report:
        case Failed(why):
            raise ConfigError(why)
        case NoReport():
            raise ConfigError(f"{source}: it, or a table that it names, cannot be read in {RELOAD_SECONDS:g} s")
        case None:
            raise ConfigError(f"{source}: the process that read it was killed")


def _read(resources: Resources, load: Callable[[], Config], answer: socket.socket) -> int:
    close_keys(resources)
    try:
        settings = load()
        lists.begin(settings)
        warnings_of(policy.Tables(settings), len(resources.children))
    except Exception as error:
        ipc.send(answer, Failed(one_line(error)))
        return 1
    ipc.send(answer, Ready())
    return 0


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """End a read that takes too long with ConfigError: a file that a child has just read may be another one now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(*_: object) -> None:
        raise ConfigError(f"{what} cannot be read in {READ_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, READ_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, before)


def send_to_workers(resources: Resources, memory: int, opened: dict[Endpoint, list[socket.socket]]) -> Steps[None]:
    """Send every worker the new settings, and go on when all have reported. One that cannot take them is replaced, and
    so is one that does not report in time (`children.enforce_deadlines`). The control server gets them, too.

    memory: of `ipc.settings_memory`.
    """
    deadline = time.monotonic() + RELOAD_SECONDS
    waiting = []
    for child in [*resources.children, *resources.optional]:
        if not child.pid or child.channel is None:
            continue
        own = [] if child in resources.optional else [group[child.number].fileno() for group in opened.values()]
        try:
            ipc.send(child.channel, Reload(), [memory, *own])
        except OSError as error:
            resources.warn(f"{child.name}: configuration not taken over: {one_line(error)}; it is started again")
            child.kill()
        else:
            child.expect(ChildState.RELOADING, deadline)
            waiting.append((child, child.pid))
    if resources.control_process.pid and resources.control_process.channel is not None:
        with contextlib.suppress(OSError):
            ipc.send(resources.control_process.channel, Reload(), [memory])
    # A worker that is still starting reports when its start is over; that is not waited for.
    while any(child.pid == pid and child.state is ChildState.RELOADING for child, pid in waiting):
        yield
