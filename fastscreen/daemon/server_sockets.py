"""The sockets that the control server serves, control.path and metrics.listen: bound at the start, or later, when free.

A problem is a warning and a condition: mail does not depend on them.
"""

from __future__ import annotations

import contextlib
import errno
import math
from pathlib import Path

from fastscreen.config.model import Endpoint
from fastscreen.daemon import control_listener
from fastscreen.daemon.control_listener import ControlSocket
from fastscreen.daemon.listeners import listen
from fastscreen.daemon.resources import Resources
from fastscreen.process.conditions import Kind

RETRY_SECONDS = 1.0  # between two attempts to bind, or to take over a path
RETRY_LATER_SECONDS = 10.0  # the same after MANY_ATTEMPTS
MANY_ATTEMPTS = 60


def make(resources: Resources, where: Path | Endpoint, user: str) -> tuple[ControlSocket | None, str]:
    """A listening socket, and what is wrong with it. Where another process answers, the path is taken over later."""
    group = resources.config.control.group
    try:
        if isinstance(where, Endpoint):
            (listener,) = listen(where, 1, resources.key)
            return ControlSocket(None, listener), ""
        return control_listener.make(where, user, group), ""
    except OSError as error:
        problem = error.strerror or str(error)
        if isinstance(where, Path) and error.errno in (errno.EADDRINUSE, errno.EAGAIN):
            with contextlib.suppress(OSError):
                return control_listener.make_waiting(where, user, group), problem
        return None, problem


def make_all(resources: Resources, user: str) -> list[str]:
    """Bind both at the start, as root where that is needed. Return warnings."""
    warnings = []
    if control := _control_path(resources):
        resources.control, problem = make(resources, control, user)
        if problem:
            warnings.append(f"control.path: {control}: {problem}: no control socket until it is free; retried")
            resources.early_conditions.append((Kind.CONTROL, warnings[-1]))
    if metrics := _metrics_place(resources):
        resources.metrics, problem = make(resources, metrics, user)
        if problem:
            warnings.append(f"metrics.listen: {metrics}: {problem}: no metrics until it is free; retried")
            resources.early_conditions.append((Kind.METRICS, warnings[-1]))
    return warnings


def _control_path(resources: Resources) -> Path | None:
    path = resources.config.control.path
    return Path(path) if path else None


def _metrics_place(resources: Resources) -> Path | Endpoint | None:
    where = resources.config.metrics.listen
    return Path(where) if isinstance(where, str) else where


class SocketRetry:
    """Binds what could not be bound at the start, or at a restart."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._attempts = 0
        self.due = math.inf

    def begin(self, now: float) -> None:
        """Retry from now on, if anything is missing."""
        if self._is_missing(self._resources.control, _control_path(self._resources)) or self._is_missing(
            self._resources.metrics, _metrics_place(self._resources)
        ):
            self.due, self._attempts = now, 0

    @staticmethod
    def _is_missing(bound: ControlSocket | None, where: Path | Endpoint | None) -> bool:
        return where is not None and (bound is None or bound.awaited is not None)

    def run(self, now: float) -> None:
        """Make an attempt that is due."""
        resources = self._resources
        if resources.stopping or now < self.due:
            return
        self._attempts += 1
        control, metrics = _control_path(resources), _metrics_place(resources)
        is_new = False
        if control is not None:
            resources.control, changed = self._retry(resources.control, control, Kind.CONTROL, "control.path")
            is_new |= changed
        if metrics is not None:
            resources.metrics, changed = self._retry(resources.metrics, metrics, Kind.METRICS, "metrics.listen")
            is_new |= changed
        if is_new:
            resources.control_process.kill()  # its successor serves the new socket
        if self._is_missing(resources.control, control) or self._is_missing(resources.metrics, metrics):
            self.due = now + (RETRY_SECONDS if self._attempts < MANY_ATTEMPTS else RETRY_LATER_SECONDS)
        else:
            self.due = math.inf

    def _retry(
        self, bound: ControlSocket | None, where: Path | Endpoint, kind: Kind, key: str
    ) -> tuple[ControlSocket | None, bool]:
        """Return the socket, and whether it is a new one."""
        resources = self._resources
        is_new = bound is None
        if bound is None:
            bound, problem = make(resources, where, "")
            if bound is None:
                return None, False
            if problem:
                return bound, True
        else:
            try:
                bound.take_over()
            except OSError:
                return bound, False
        if resources.conditions.end(kind):
            resources.info(f"{key}: {where} is free now and taken over")
        return bound, is_new
