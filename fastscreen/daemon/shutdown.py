"""How the daemon stops. SIGTERM: no new clients, sessions may finish. A second SIGTERM, or SIGQUIT: at once."""

from __future__ import annotations

import contextlib
import math
import select
import signal
import time
from collections.abc import Callable, Iterable

from fastscreen.daemon import systemd_notify
from fastscreen.daemon.resources import Resources, close_all
from fastscreen.daemon.tasks import TaskQueue
from fastscreen.process import ipc
from fastscreen.process.child import Child
from fastscreen.process.ipc import Stop

WORKER_SECONDS = 40.0  # a worker gives its clients 30
AT_ONCE_SECONDS = 2.0  # after the second SIGTERM
OTHERS_SECONDS = 7.0  # a TLS process gives its clients 5
KILLED_SECONDS = 5.0  # for processes to end after SIGKILL


class Shutdown:
    """From the first SIGTERM to the end of the last child. Before that it does nothing."""

    def __init__(self, resources: Resources, tasks: TaskQueue) -> None:
        self._resources = resources
        self._tasks = tasks
        self.deadline = math.inf
        """When workers that still run are killed (s, monotonic)."""

    def request(self, *, at_once: bool = False) -> None:
        """A signal says stop."""
        resources = self._resources
        if not resources.stopping:
            resources.stopping = True
            self._tasks.cancel()  # a reload would open ports again
            systemd_notify.send("STOPPING=1", "STATUS=stopping: sessions may finish")
            self.deadline = time.monotonic() + WORKER_SECONDS
            if not resources.starting:
                resources.info("stopping: clients in hand may finish")
            self._stop_workers()
            if not at_once:
                return
        self.deadline = min(self.deadline, time.monotonic() + AT_ONCE_SECONDS)
        self._stop_workers()

    def _stop_workers(self) -> None:
        resources = self._resources
        resources.refresher.kill()
        # Closed, they refuse connections: a client that only waited in the kernel would not try another MX.
        for group in resources.groups.values():
            close_all(group)
        resources.groups.clear()
        resources.order(Stop())
        for child in resources.former:
            if child.kind == "worker" and child.channel is not None:
                with contextlib.suppress(OSError):
                    ipc.send(child.channel, Stop())
                    child.is_stopping = True

    @property
    def is_over(self) -> bool:
        """Whether all workers have ended."""
        resources = self._resources
        return resources.stopping and not any(
            child.pid for child in [*resources.children, *resources.former, *resources.trials]
        )

    def enforce_deadline(self, now: float) -> None:
        """Kill workers that do not end."""
        resources = self._resources
        if not resources.stopping or now < self.deadline:
            return
        self.deadline = now + WORKER_SECONDS
        late = [child for child in [*resources.children, *resources.former] if child.pid]
        if late:
            resources.warn(f"{', '.join(child.name for child in late)} did not stop: killed")
        kill(late)

    def end_others(self, reap: Callable[[], object]) -> None:
        """Wait for the other processes, which end when their channels are closed: the TLS processes pass on the last
        replies of the workers, the control server shows the end.
        """
        resources = self._resources
        optional = resources.optional
        others = [*resources.tls, *optional, resources.refresher, resources.control_process, *resources.trials]
        for child in others:
            child.dismiss() if child.kind == "history" else child.close_channel()
        end = time.monotonic() + OTHERS_SECONDS
        assert resources.signals is not None
        while left := [child for child in others if child.pid]:
            now = time.monotonic()
            if now >= end + KILLED_SECONDS:  # the kernel cannot end it, as while its disk does not answer
                resources.warn(f"{', '.join(child.name for child in left)} did not end")
                return
            if now >= end:
                kill(left)
            select.select([resources.signals], [], [], end - now if now < end else 1.0)
            if {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} & set(resources.signals.read()):
                end = min(end, time.monotonic())
            reap()


def kill(children: Iterable[Child]) -> None:
    """SIGKILL for those that run."""
    for child in children:
        child.kill()
