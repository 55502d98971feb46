"""The first start: what only root can do, then the children, in an order in which a mistake is noticed soon."""

from __future__ import annotations

import os
import sys

from fastscreen.daemon import server_sockets
from fastscreen.daemon.children import Children
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.tasks import Steps
from fastscreen.process import privileges
from fastscreen.process.child import ChildState
from fastscreen.process.ipc import Failed
from fastscreen.screening import policy


def prepare(resources: Resources) -> tuple[int, tuple[str, ...]]:
    """Bind, open the log, become the unprivileged user, read the tables. Return the number of workers, and warnings.

    OSError, ConfigError, ValueError, PrivilegeError: the daemon cannot start.
    """
    if os.geteuid() == 0:
        resources.oom.protect()
    user = privileges.user_of(resources.config)
    count = policy.worker_count(resources.config)
    warnings = [*resources.bind(user, count), *server_sockets.make_all(resources, user)]
    if user:
        privileges.become(user)
    return count, (*warnings, *resources.read(count))


def start_children(resources: Resources, children: Children) -> Steps[int | None]:
    """Start the TLS processes, then the first worker, which checks the cache file, then the others.

    Mail does not depend on the cluster process and the control server: the supervisor starts them afterwards.

    Return the exit code when one cannot start, with the reason on standard error; None: all serve.
    """
    workers = resources.children
    for some in (resources.tls if resources.wants_tls else [], workers[:1], workers[1:]):
        for child in some:
            try:
                children.start(child, look_over_cache=child.number == 0)
            except OSError as error:
                print(f"fastscreen: no process for {child.name}: {error.strerror}", file=sys.stderr)
                return 1
        while any(child.state is ChildState.STARTING for child in some):
            yield
        for child in some:
            if child.state is ChildState.SERVING:
                continue
            report = child.last_report
            if isinstance(report, Failed):
                print(f"fastscreen: {report.why}", file=sys.stderr)
                return report.code
            print(f"fastscreen: {child.name} does not start", file=sys.stderr)
            return 1
    return None
