"""SIGHUP: the log is opened again, and a new configuration reaches every process, or none; so do renewed tables.

Nothing here waits: each `yield` gives the supervisor's loop its turn, so that dead children are replaced and signals
are honored while a child reads a file, or takes over a configuration.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from fastscreen import config
from fastscreen.allowlist import lists
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint
from fastscreen.daemon import systemd_sockets, tls_reload
from fastscreen.daemon.listeners import choose_by_client, choose_freely
from fastscreen.daemon.resources import Resources, close_all, warnings_of
from fastscreen.daemon.spawn import Silent, Steps, close_keys, run_in_child
from fastscreen.escaping import escape_text, one_line, unexpected
from fastscreen.process import ipc
from fastscreen.process.child import State
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, Ready, Reload, ReopenLog
from fastscreen.screening import policy
from fastscreen.tables.file_watch import TableWatch

NAMED_MAX = 5  # changed files that are named in a log line
RELOAD_SECONDS = 30.0  # for reading the tables, and then for all workers together
READ_SECONDS = 10.0  # for reading again what a child has just read


def hang_up(resources: Resources, path: Path | None) -> Steps[None]:
    """Open the log again, take over a new configuration or keep the old one whole. Clients notice nothing.

    path: the configuration's; None: the built-in settings, which do not change.
    """
    resources.reload_state.reload.begin()
    reopen_log(resources)
    if path is None:
        resources.reload_state.accepted(
            resources.conditions, "built-in settings: there is no file to read; the log is reopened"
        )
        return
    count = len(resources.children)
    opened: dict[Endpoint, list[socket.socket]] = {}
    memory = -1
    try:
        yield from _try(resources, str(path), lambda: config.load(path))
        with bounded(READ_SECONDS, f"{path}: it, or a table that it names,"):
            settings, warnings = with_what_is_fixed(resources, config.load(path))
            systemd_sockets.check_kept(resources.activated, settings)
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings += warnings_of(tables, count)
        added = {address: port for address, port in settings.listen.ports.items() if address not in resources.groups}
        opened, omitted = resources.open_ports(added, count, others=len(settings.listen.ports) - len(added))
        memory = ipc.settings_memory(settings, tuple(opened))
        _choose_anew(resources, settings)
    except Exception as error:  # whatever it is: the old one stays, and the log tells
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
            resources.warn(f"[tls] not taken over: {unexpected(error)}; what is in use stays")
        if resources.config != settings:
            with contextlib.suppress(OSError):  # then [tls] alone, which workers do not use, is not as it is in force
                renewed = ipc.settings_memory(resources.config, tuple(opened))
                os.close(memory)
                memory = renewed
        yield from _hand_out(resources, memory, opened)
    except Exception as error:
        _refused(resources, f"configuration not given to every process: {unexpected(error)}")
        return
    finally:
        os.close(memory)
    resources.info("configuration reloaded")
    resources.reload_state.accepted(resources.conditions, "configuration reloaded")


def reopen_log(resources: Resources, *, tell: bool = False) -> None:
    """SIGUSR1, and the first part of SIGHUP: open the log again, in every process. tell: and log that it was."""
    resources.reload_state.reopen.begin()
    before = resources.target.problem
    resources.target.reopen()
    why = resources.target.problem
    if tell and not why and not before:  # else the target has logged that it is open again
        resources.info("log opened again")
    resources.reload_state.reopen.end(not why, f"log not opened again: {why}" if why else "log reopened")
    resources.order(ReopenLog())


def changed_tables(resources: Resources, watch: TableWatch, now: float) -> list[str]:
    """The table files that have changed since they were read, and have settled. now: s, monotonic."""
    files = resources.tables.files
    if resources.refresher.pid:  # its end says whether its lists are to be read
        files = {path: version for path, version in files.items() if Path(path) not in resources.list_versions}
    return watch.look(now, files)


def follow_tables(resources: Resources, watch: TableWatch, changed: Sequence[str]) -> Steps[None]:
    """Read the tables again, since these files have changed."""
    if (yield from read_tables_again(resources, changed)):
        watch.read()
    else:
        watch.refused(time.monotonic())


def read_tables_again(resources: Resources, changed: Sequence[str] = ()) -> Steps[bool]:
    """The tables of the configuration as it is: one of them was renewed. The configuration's file is not read.

    changed: files that are known to have changed. False: the old tables stay, and condition TABLES says why.
    """
    count = len(resources.children)
    settings = resources.config
    memory = -1
    try:
        for path in map(Path, changed):
            if path.exists() and not path.is_file():
                raise ConfigError(f"{escape_text(str(path))}: not a regular file")  # reading a FIFO might never end
        yield from _try(resources, settings.source, lambda: settings)
        with bounded(READ_SECONDS, "a table"):
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings = warnings_of(tables, count)
        memory = ipc.settings_memory(settings, ())
    except Exception as error:  # whatever it is: the old ones stay, and the log tells
        text = f"tables not read again: {one_line(error)}; the previous ones stay in use"
        if text not in (one.text for one in resources.conditions.read()):  # it is tried again and again
            resources.warn(text)
        resources.conditions.begin(Kind.TABLES, text)
        return False
    try:
        resources.tables, resources.list_versions = tables, versions
        for warning in warnings:
            resources.target.log.warning(warning)
        yield from _hand_out(resources, memory, {})
    finally:
        os.close(memory)
    resources.conditions.end(Kind.TABLES)
    names = ", ".join(escape_text(path) for path in changed[:NAMED_MAX]) + (", ..." if len(changed) > NAMED_MAX else "")
    resources.info(f"tables read again{': ' if names else ''}{names}")
    return True


def _refused(resources: Resources, text: str) -> None:
    resources.warn(text)
    resources.reload_state.refused(resources.conditions, text)


@contextlib.contextmanager
def bounded(seconds: float, what: str) -> Iterator[None]:
    """End a read that does not end, with ConfigError: a file that a child has just read may be another one now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise ConfigError(f"{what} cannot be read in {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, before)


def _take_ports(
    resources: Resources, opened: dict[Endpoint, list[socket.socket]], omitted: dict[Endpoint, str]
) -> None:
    """Close what is not configured any more; serve what was opened."""
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


def _choose_anew(resources: Resources, settings: Config) -> None:
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


def _try(resources: Resources, source: str, load: Callable[[], Config]) -> Steps[None]:
    """Read a configuration and its tables in a child: a file may be one that is never read to its end."""
    report = yield from run_in_child(resources, lambda theirs: _read(resources, load, theirs), RELOAD_SECONDS)
    match report:
        case Failed(why):
            raise ConfigError(why)
        case Silent():
            raise ConfigError(f"{source}: it, or a table that it names, cannot be read in {RELOAD_SECONDS:g} s")
        case None:
            raise ConfigError(f"{source}: reading it was cut short")


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


def _network_rate(now: Config, wanted: Config) -> int:
    """The limit from now on. Whether there is one decides which worker serves a client: no reload changes that."""
    before, after = now.limits.client_network_rate, wanted.limits.client_network_rate
    return before if now.listen.workers != 1 and bool(before) != bool(after) else after


def with_what_is_fixed(resources: Resources, settings: Config) -> tuple[Config, tuple[str, ...]]:
    """The new settings, but for those that only a new start can change; warnings about these."""
    now = resources.config
    replace = msgspec.structs.replace
    fixed = replace(
        settings,
        user=now.user,
        log=now.log,
        cache=replace(
            settings.cache,
            path=now.cache.path,
            prefix_ipv4=now.cache.prefix_ipv4,
            prefix_ipv6=now.cache.prefix_ipv6,
        ),
        limits=replace(
            settings.limits,
            client_connection_prefix_ipv4=now.limits.client_connection_prefix_ipv4,
            client_connection_prefix_ipv6=now.limits.client_connection_prefix_ipv6,
            client_network_rate=_network_rate(now, settings),
        ),
        control=replace(now.control, names=settings.control.names),
        metrics=now.metrics,
        listen=replace(settings.listen, workers=now.listen.workers),
        tls=replace(settings.tls, processes=now.tls.processes),
    )
    changed = (
        ("user", settings.user, fixed.user),
        ("log", settings.log, fixed.log),
        ("cache.path", settings.cache.path, fixed.cache.path),
        ("cache.prefix_ipv4 or _ipv6", settings.cache.prefix, fixed.cache.prefix),
        ("limits.client_connection_prefix_ipv4 or _ipv6", settings.limits.prefix, fixed.limits.prefix),
        ("limits.client_network_rate", settings.limits.client_network_rate, fixed.limits.client_network_rate),
        ("control", settings.control, fixed.control),
        ("metrics", settings.metrics, fixed.metrics),
        ("listen.workers", settings.listen, fixed.listen),
        ("tls.processes", settings.tls, fixed.tls),
    )
    warnings = (
        f"{name} changed: it takes effect when fastscreen is started again"
        for name, wanted, kept in changed
        if wanted != kept
    )
    return fixed, tuple(warnings)


def _hand_out(resources: Resources, memory: int, opened: dict[Endpoint, list[socket.socket]]) -> Steps[None]:
    """Give every worker the new settings, and go on when all have them. One that cannot take them is replaced, and so
    is one that does not answer (the supervisor's loop sees to that).

    The hub gets them, too; nobody waits for it.
    """
    by = time.monotonic() + RELOAD_SECONDS
    asked = []
    for child in resources.children:
        if not child.pid or child.channel is None:
            continue
        own = [group[child.number].fileno() for group in opened.values()]
        try:
            ipc.send(child.channel, Reload(), [memory, *own])
        except OSError as error:
            resources.warn(f"{child.name}: configuration not taken over: {one_line(error)}; it is started again")
            child.kill()
        else:
            child.expect(State.RELOADING, by)
            asked.append((child, child.pid))
    if resources.control_process.pid and resources.control_process.channel is not None:
        with contextlib.suppress(OSError):
            ipc.send(resources.control_process.channel, Reload(), [memory])
    # one that has just started answers when its start is over: nobody waits for it
    while any(child.pid == pid and child.state is State.RELOADING for child, pid in asked):
        yield
