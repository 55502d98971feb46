"""What SIGHUP does. `supervisor.py` receives the signal, notifies systemd, and runs `reload` as a task of its loop:

1. The log is opened again in every process (`reopen_log`, also SIGUSR1).
2. A child reads the configuration file and its tables, and reports what is wrong with them; then the supervisor does.
   Keys that need a restart keep their values. New addresses are opened, and workers chosen by the new rules. Any error
   up to here is logged, and the previous configuration stays in use as a whole.
3. The new configuration takes effect in the supervisor. Removed addresses are closed; the TLS processes get the
   certificates as they are now (`tls_reload`). An error in `[tls]` keeps the previous `[tls]`.
4. Every worker, the cluster process and the control server get the new settings (`worker_settings.send_to_workers`).
5. `supervisor.py` follows the new settings of the allow lists, the control socket and the metrics port.

Nothing here blocks: at each `yield` the supervisor's loop replaces dead children and takes signals.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from fastscreen import config
from fastscreen.allowlist import lists
from fastscreen.config import Config
from fastscreen.config.changes import Change, kept
from fastscreen.config.keys import Restart
from fastscreen.config.model import Endpoint
from fastscreen.daemon import systemd_sockets, tls_reload
from fastscreen.daemon.listeners import choose_by_client, choose_freely
from fastscreen.daemon.resources import Resources, close_all, warnings_of
from fastscreen.daemon.tasks import Steps
from fastscreen.daemon.worker_settings import send_to_workers, time_limit, try_in_child
from fastscreen.escaping import one_line, unexpected
from fastscreen.process import ipc
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import ReopenLog
from fastscreen.screening import policy


def reload(resources: Resources, path: Path | None) -> Steps[None]:
    """Open the log again, take over a new configuration or keep the old one as a whole. Clients notice nothing.

    path: of the configuration; None: the built-in settings, which do not change.
    """
    try:
        yield from _reload(resources, path)
    except GeneratorExit:
        _refused(resources, "configuration not taken over: fastscreen is being stopped")
        raise
    except Exception as error:  # whatever it is: `fastscreen reload` waits to hear how it ended
        _refused(resources, f"configuration not taken over: {unexpected(error)}")


def _reload(resources: Resources, path: Path | None) -> Steps[None]:
    resources.reload_state.reload.begin()
    reopen_log(resources)
    if path is None:
        resources.reload_state.accepted(resources.conditions, "built-in settings: no file to read; the log is reopened")
        return
    count = len(resources.children)
    opened: dict[Endpoint, list[socket.socket]] = {}
    memory = -1
    try:
        yield from try_in_child(resources, str(path), lambda: config.load(path))
        with time_limit(f"{path}: it, or a table that it names,"):
            settings, waiting = with_what_is_fixed(resources, config.load(path))
            systemd_sockets.check_kept(resources.activated, settings)
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings = (*map(waiting_text, waiting), *warnings_of(tables, count))
        added = {address: port for address, port in settings.listen.ports.items() if address not in resources.groups}
        opened, omitted = resources.open_ports(added, count, others=len(settings.listen.ports) - len(added))
        memory = ipc.settings_memory(settings, tuple(opened))
        _choose_workers_again(resources, settings)
    except Exception as error:  # whatever it is: the old one stays
        for group in opened.values():
            close_all(group)
        if memory >= 0:
            os.close(memory)
        _refused(resources, f"configuration not taken over: {one_line(error)}")
        return
    try:
        before = resources.config
        resources.health.claim(settings.dnsbl.domains, in_use=before.dnsbl.domains)
        resources.config, resources.tables, resources.list_versions = settings, tables, versions
        resources.conditions.end(Kind.TABLES)
        for warning in warnings:
            resources.target.log.warning(warning)
        try:
            _take_ports(resources, opened, omitted)
            yield from tls_reload.renew(resources, before.tls)
        except Exception as error:
            resources.warn(f"[tls] not taken over: {unexpected(error)}; the previous settings stay in use")
        if resources.config != settings:
            with contextlib.suppress(OSError):  # then only [tls], which workers do not use, differs
                renewed = ipc.settings_memory(resources.config, tuple(opened))
                os.close(memory)
                memory = renewed
        yield from send_to_workers(resources, memory, opened)
    except Exception as error:
        _refused(resources, f"configuration not given to every process: {unexpected(error)}")
        return
    finally:
        os.close(memory)
    resources.info("configuration reloaded")
    resources.reload_state.accepted(resources.conditions, _outcome(waiting))


def reopen_log(resources: Resources, *, tell: bool = False) -> None:
    """Open the log again in every process. tell: log that it was; LogTarget logs what went wrong."""
    resources.reload_state.reopen.begin()
    before = resources.target.problem
    resources.target.reopen()
    why = resources.target.problem
    if tell and not why and not before:  # else the target has logged that it is open again
        resources.info("log opened again")
    resources.reload_state.reopen.end(not why, f"log not opened again: {why}" if why else "log reopened")
    resources.order(ReopenLog())


def waiting_text(change: Change) -> str:
    """The log line about a key that needs more than a reload."""
    return f"{change.key} changed: the old value stays in use; to apply the new one, {change.remedy}"


def _outcome(waiting: Sequence[Change]) -> str:
    """What `fastscreen reload` prints when it succeeded."""
    parts = ["configuration reloaded"]
    for restart, what in ((Restart.NEEDED, "a restart"), (Restart.STOP_AND_START, "a stop and a start")):
        if keys := [change.key for change in waiting if change.restart is restart]:
            parts.append(f"{what} of fastscreen is needed to apply {', '.join(keys)}")
    return "; ".join(parts)


def _refused(resources: Resources, text: str) -> None:
    resources.warn(text)
    resources.reload_state.refused(resources.conditions, text)


def _take_ports(
    resources: Resources, opened: dict[Endpoint, list[socket.socket]], omitted: dict[Endpoint, str]
) -> None:
    """Close the addresses that are no longer configured; serve those that were opened."""
    for address in set(resources.groups) - set(resources.config.listen.ports):
        group = resources.groups.pop(address)
        if address not in resources.activated:
            systemd_sockets.forget(address, len(group))
        close_all(group)
    resources.groups |= opened
    for address, group in opened.items():
        systemd_sockets.store(address, group)
    if omitted:
        text = "; ".join(omitted.values())
        if resources.conditions.begin(Kind.LISTEN, text):
            resources.warn(text)
    else:
        resources.conditions.end(Kind.LISTEN)


def _choose_workers_again(resources: Resources, settings: Config) -> None:
    """Where a port becomes a balancer's, or is one no longer, another rule chooses the worker. OSError: no change."""
    before, now = resources.config.listen.ports, settings.listen.ports
    done: list[tuple[list[socket.socket], bool]] = []
    try:
        for address, group in resources.groups.items():
            if len(group) > 1 and address in now and (before[address] is None) != (now[address] is None):
                done.append((group, before[address] is None))
                _choose(resources, group, by_client=now[address] is None)
    except OSError:
        for group, by_client in done:
            with contextlib.suppress(OSError):
                _choose(resources, group, by_client=by_client)
        raise


def _choose(resources: Resources, group: Sequence[socket.socket], *, by_client: bool) -> None:
    if by_client:
        choose_by_client(group[0], len(group), resources.key, resources.config.worker_prefix)
    else:
        choose_freely(group[0])


def with_what_is_fixed(resources: Resources, settings: Config) -> tuple[Config, list[Change]]:
    """The new settings, except for those that need a restart; and the keys of these."""
    return kept(resources.config, settings)
