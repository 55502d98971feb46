"""SIGHUP: the log is opened again, and a new configuration reaches every process, or none; so do renewed tables."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fastscreen import channel, config, policy
from fastscreen.allowlist import lists
from fastscreen.channel import Failed, Ready, ReopenLog
from fastscreen.conditions import Kind
from fastscreen.config import Config, ConfigError
from fastscreen.config.escape import escaped
from fastscreen.config.model import Endpoint
from fastscreen.forks import Silent, hear, tried, without_keys
from fastscreen.holdings import Holdings, close_all, warnings_of
from fastscreen.listeners import choose_by_client, choose_freely
from fastscreen.starttls import renewal
from fastscreen.table_watch import TableWatch
from fastscreen.worker import one_line

NAMED_MAX = 5  # changed files that are named in a log line
RELOAD_SECONDS = 30.0  # for reading the tables, and then for all workers together


def hang_up(held: Holdings, path: Path | None) -> None:
    """Open the log again, take over a new configuration or keep the old one whole. Clients notice nothing.

    path: the configuration's; None: the built-in settings, which do not change.
    """
    held.reload_state.reload.begin()
    reopen_log(held)
    if path is None:
        held.reload_state.accepted(held.conditions, "built-in settings: there is no file to read; the log is reopened")
        return
    count = len(held.places)
    opened: dict[Endpoint, list[socket.socket]] = {}
    try:
        _try(held, str(path), lambda: config.load(path))
        settings = _with_what_is_fixed(held, config.load(path))
        versions = lists.versions(settings)
        tables = policy.Tables(settings)
        warnings = warnings_of(tables, count)
        for address, port in settings.listen.ports.items():
            if address not in held.groups:
                opened[address] = held.listen(address, port, count)
    except Exception as error:  # whatever it is: the old one stays, and the log tells
        for group in opened.values():
            close_all(group)
        held.warn(f"configuration not taken over: {one_line(error)}")
        held.reload_state.refused(held.conditions, f"configuration not taken over: {one_line(error)}")
        return
    before = held.config
    held.health.claim(settings.dnsbl.domains, in_use=before.dnsbl.domains)
    _choose_anew(held, settings)
    held.config, held.tables, held.list_versions = settings, tables, versions
    held.conditions.end(Kind.TABLES)
    for address in set(held.groups) - set(settings.listen.ports):
        close_all(held.groups.pop(address))
    held.groups |= opened
    for warning in warnings:
        held.target.log.warning(warning)
    renewal.renew(held, before.tls)
    _hand_out(held, opened)
    held.info("configuration reloaded")
    held.reload_state.accepted(held.conditions, "configuration reloaded")


def reopen_log(held: Holdings) -> None:
    """Open the log again, in every process."""
    held.reload_state.reopen.begin()
    held.target.reopen()
    why = held.target.problem
    held.reload_state.reopen.end(not why, f"log not opened again: {why}" if why else "log reopened")
    held.order(ReopenLog())


def follow_tables(held: Holdings, watch: TableWatch, now: float) -> None:
    """Read the tables again when one of their files has changed. now: s, monotonic."""
    files = held.tables.files
    if held.refresher.pid:  # its end says whether its lists are to be read
        files = {path: version for path, version in files.items() if Path(path) not in held.list_versions}
    if changed := watch.look(now, files):
        if read_tables_again(held, changed):
            watch.read()
        else:
            watch.refused(time.monotonic())


def read_tables_again(held: Holdings, changed: Sequence[str] = ()) -> bool:
    """The tables of the configuration as it is: one of them was renewed. The configuration's file is not read.

    changed: files that are known to have changed. False: the old tables stay, and condition TABLES says why.
    """
    count = len(held.places)
    settings = held.config
    try:
        for path in map(Path, changed):
            if path.exists() and not path.is_file():
                raise ConfigError(f"{escaped(str(path))}: not a regular file")  # reading a FIFO might never end
        _try(held, settings.source, lambda: settings)
        versions = lists.versions(settings)
        tables = policy.Tables(settings)
        warnings = warnings_of(tables, count)
    except Exception as error:  # whatever it is: the old ones stay, and the log tells
        text = f"tables not read again: {one_line(error)}; the previous ones stay in use"
        if text not in (one.text for one in held.conditions.read()):  # it is tried again and again
            held.warn(text)
        held.conditions.begin(Kind.TABLES, text)
        return False
    held.tables, held.list_versions = tables, versions
    for warning in warnings:
        held.target.log.warning(warning)
    _hand_out(held, {})
    held.conditions.end(Kind.TABLES)
    names = ", ".join(escaped(path) for path in changed[:NAMED_MAX]) + (", ..." if len(changed) > NAMED_MAX else "")
    held.info(f"tables read again{': ' if names else ''}{names}")
    return True


def _choose_anew(held: Holdings, settings: Config) -> None:
    """Where an address becomes a balancer's or is one no longer, another rule chooses the worker."""
    before, now = held.config.listen.ports, settings.listen.ports
    for address, group in held.groups.items():
        if len(group) > 1 and address in now and (before[address] is None) != (now[address] is None):
            if now[address] is None:
                choose_by_client(group[0], len(group), held.key, held.config.worker_prefix)
            else:
                choose_freely(group[0])


def _try(held: Holdings, source: str, load: Callable[[], Config]) -> None:
    """Read a configuration and its tables in a child: a file may be one that is never read to its end."""
    match tried(held, lambda theirs: _read(held, load, theirs), RELOAD_SECONDS):
        case Failed(why):
            raise ConfigError(why)
        case Silent():
            raise ConfigError(f"{source}: it, or a table that it names, cannot be read in {RELOAD_SECONDS:g} s")
        case None:
            raise ConfigError(f"{source}: reading it was cut short")


def _read(held: Holdings, load: Callable[[], Config], answer: socket.socket) -> int:
    without_keys(held)
    try:
        settings = load()
        lists.begin(settings)
        warnings_of(policy.Tables(settings), len(held.places))
    except Exception as error:
        channel.send(answer, Failed(one_line(error)[:1000]))
        return 1
    channel.send(answer, Ready())
    return 0


def _network_rate(now: Config, wanted: Config) -> int:
    """The limit from now on. Whether there is one decides which worker serves a client: no reload changes that."""
    before, after = now.limits.client_network_rate, wanted.limits.client_network_rate
    return before if now.listen.workers != 1 and bool(before) != bool(after) else after


def _with_what_is_fixed(held: Holdings, settings: Config) -> Config:
    """The new settings, but for those that only a new start can change."""
    now = held.config
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
    for name, wanted, kept in (
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
    ):
        if wanted != kept:
            held.warn(f"{name} changed: it takes effect when fastscreen is started again")
    return fixed


def _hand_out(held: Holdings, opened: dict[Endpoint, list[socket.socket]]) -> None:
    """Give every worker the new settings, and wait until all have them. One that cannot take them is replaced.

    The hub gets them, too; nobody waits for it.
    """
    by = time.monotonic() + RELOAD_SECONDS
    asked = []
    for place in held.places:
        if not place.pid or place.channel is None:
            continue
        own = {address: group[place.number].fileno() for address, group in opened.items()}
        try:
            _forget_reports(place.channel)
            channel.send_reload(place.channel, held.config, own)
        except OSError as error:
            held.warn(f"{place.name}: configuration not taken over: {one_line(error)}; it is started anew")
            place.kill()
        else:
            asked.append(place)
    for place in asked:
        match hear(held, place, by):
            case Failed(why):
                held.warn(f"{place.name}: configuration not taken over: {why}; it is started anew")
                place.kill()
            case Silent():
                held.warn(f"{place.name}: configuration not taken over: no answer; it is started anew")
                place.kill()
    if held.hub.pid and held.hub.channel is not None:
        with contextlib.suppress(OSError):
            channel.send_reload(held.hub.channel, held.config, {})


def _forget_reports(worker: socket.socket) -> None:
    """An answer that came after its time is none to the next question."""
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while channel.receive_report(worker, 0.0) is not None:
            pass
