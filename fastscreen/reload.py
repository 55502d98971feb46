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

from fastscreen import activation, channel, config, policy
from fastscreen.allowlist import lists
from fastscreen.channel import Failed, Ready, Reload, ReopenLog
from fastscreen.conditions import Kind
from fastscreen.config import Config, ConfigError
from fastscreen.config.changes import Change, kept
from fastscreen.config.escape import escaped
from fastscreen.config.model import Endpoint
from fastscreen.config.names import Restart
from fastscreen.forks import Silent, Steps, tried, without_keys
from fastscreen.holdings import Holdings, close_all, warnings_of
from fastscreen.listeners import choose_by_client, choose_freely
from fastscreen.place import State
from fastscreen.starttls import renewal
from fastscreen.table_watch import TableWatch
from fastscreen.worker import one_line

NAMED_MAX = 5  # changed files that are named in a log line
RELOAD_SECONDS = 30.0  # for reading the tables, and then for all workers together
READ_SECONDS = 10.0  # for reading again what a child has just read


def hang_up(held: Holdings, path: Path | None) -> Steps[None]:
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
    memory = -1
    try:
        yield from _try(held, str(path), lambda: config.load(path))
        with bounded(READ_SECONDS, f"{path}: it, or a table that it names,"):
            settings, waiting = with_what_is_fixed(held, config.load(path))
            activation.check_kept(held.activated, settings)
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings = (*map(waiting_text, waiting), *warnings_of(tables, count))
        added = {address: port for address, port in settings.listen.ports.items() if address not in held.groups}
        opened, omitted = held.open_ports(added, count, others=len(settings.listen.ports) - len(added))
        memory = channel.settings_memory(settings, tuple(opened))
        _choose_anew(held, settings)
    except Exception as error:  # whatever it is: the old one stays, and the log tells
        for group in opened.values():
            close_all(group)
        if memory >= 0:
            os.close(memory)
        _refused(held, f"configuration not taken over: {one_line(error)}")
        return
    try:
        before = held.config
        held.health.claim(settings.dnsbl.domains, in_use=before.dnsbl.domains)
        held.config, held.tables, held.list_versions = settings, tables, versions
        held.conditions.end(Kind.TABLES)
        for warning in warnings:
            held.target.log.warning(warning)
        try:
            _take_ports(held, opened, omitted)
            yield from renewal.renew(held, before.tls)
        except Exception as error:
            held.warn(f"[tls] not taken over: {type(error).__name__}: {one_line(error)}; what is in use stays")
        if held.config != settings:
            with contextlib.suppress(OSError):  # then [tls] alone, which workers do not use, is not as it is in force
                renewed = channel.settings_memory(held.config, tuple(opened))
                os.close(memory)
                memory = renewed
        yield from _hand_out(held, memory, opened)
    except Exception as error:
        _refused(held, f"configuration not given to every process: {type(error).__name__}: {one_line(error)}")
        return
    finally:
        os.close(memory)
    held.info("configuration reloaded")
    held.reload_state.accepted(held.conditions, _outcome(waiting))


def reopen_log(held: Holdings, *, tell: bool = False) -> None:
    """SIGUSR1, and the first part of SIGHUP: open the log again, in every process. tell: and log that it was."""
    held.reload_state.reopen.begin()
    before = held.target.problem
    held.target.reopen()
    why = held.target.problem
    if tell and not why and not before:  # else the target has logged that it is open again
        held.info("log opened again")
    held.reload_state.reopen.end(not why, f"log not opened again: {why}" if why else "log reopened")
    held.order(ReopenLog())


def changed_tables(held: Holdings, watch: TableWatch, now: float) -> list[str]:
    """The table files that have changed since they were read, and have settled. now: s, monotonic."""
    files = held.tables.files
    if held.refresher.pid:  # its end says whether its lists are to be read
        files = {path: version for path, version in files.items() if Path(path) not in held.list_versions}
    return watch.look(now, files)


def follow_tables(held: Holdings, watch: TableWatch, changed: Sequence[str]) -> Steps[None]:
    """Read the tables again, since these files have changed."""
    if (yield from read_tables_again(held, changed)):
        watch.read()
    else:
        watch.refused(time.monotonic())


def read_tables_again(held: Holdings, changed: Sequence[str] = ()) -> Steps[bool]:
    """The tables of the configuration as it is: one of them was renewed. The configuration's file is not read.

    changed: files that are known to have changed. False: the old tables stay, and condition TABLES says why.
    """
    count = len(held.places)
    settings = held.config
    memory = -1
    try:
        for path in map(Path, changed):
            if path.exists() and not path.is_file():
                raise ConfigError(f"{escaped(str(path))}: not a regular file")  # reading a FIFO might never end
        yield from _try(held, settings.source, lambda: settings)
        with bounded(READ_SECONDS, "a table"):
            versions = lists.versions(settings)
            tables = policy.Tables(settings)
            warnings = warnings_of(tables, count)
        memory = channel.settings_memory(settings, ())
    except Exception as error:  # whatever it is: the old ones stay, and the log tells
        text = f"tables not read again: {one_line(error)}; the previous ones stay in use"
        if text not in (one.text for one in held.conditions.read()):  # it is tried again and again
            held.warn(text)
        held.conditions.begin(Kind.TABLES, text)
        return False
    try:
        held.tables, held.list_versions = tables, versions
        for warning in warnings:
            held.target.log.warning(warning)
        yield from _hand_out(held, memory, {})
    finally:
        os.close(memory)
    held.conditions.end(Kind.TABLES)
    names = ", ".join(escaped(path) for path in changed[:NAMED_MAX]) + (", ..." if len(changed) > NAMED_MAX else "")
    held.info(f"tables read again{': ' if names else ''}{names}")
    return True


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


def _refused(held: Holdings, text: str) -> None:
    held.warn(text)
    held.reload_state.refused(held.conditions, text)


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


def _take_ports(held: Holdings, opened: dict[Endpoint, list[socket.socket]], omitted: dict[Endpoint, str]) -> None:
    """Close what is not configured any more; serve what was opened."""
    for address in set(held.groups) - set(held.config.listen.ports):
        group = held.groups.pop(address)
        if address not in held.activated:
            activation.forget(address, len(group))
        close_all(group)
    held.groups |= opened
    for address, group in opened.items():
        activation.store(address, group)
    if omitted:
        text = "; ".join(omitted.values())
        if held.conditions.begin(Kind.LISTEN, text):
            held.warn(text)
    else:
        held.conditions.end(Kind.LISTEN)


def _choose_anew(held: Holdings, settings: Config) -> None:
    """Where a port becomes a balancer's, or is one no longer, another rule chooses the worker. OSError: no change."""
    before, now = held.config.listen.ports, settings.listen.ports
    done: list[tuple[list[socket.socket], bool]] = []
    try:
        for address, group in held.groups.items():
            if len(group) > 1 and address in now and (before[address] is None) != (now[address] is None):
                done.append((group, before[address] is None))
                _choose(held, group, by_client=now[address] is None)
    except OSError:
        for group, by_client in done:
            with contextlib.suppress(OSError):
                _choose(held, group, by_client=by_client)
        raise


def _choose(held: Holdings, group: Sequence[socket.socket], *, by_client: bool) -> None:
    if by_client:
        choose_by_client(group[0], len(group), held.key, held.config.worker_prefix)
    else:
        choose_freely(group[0])


def _try(held: Holdings, source: str, load: Callable[[], Config]) -> Steps[None]:
    """Read a configuration and its tables in a child: a file may be one that is never read to its end."""
    report = yield from tried(held, lambda theirs: _read(held, load, theirs), RELOAD_SECONDS)
    match report:
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


def with_what_is_fixed(held: Holdings, settings: Config) -> tuple[Config, list[Change]]:
    """The new settings, except for those that need a restart; and the keys of these."""
    return kept(held.config, settings)


def _hand_out(held: Holdings, memory: int, opened: dict[Endpoint, list[socket.socket]]) -> Steps[None]:
    """Give every worker the new settings, and go on when all have them. One that cannot take them is replaced, and so
    is one that does not answer (the supervisor's loop sees to that).

    The hub gets them, too; nobody waits for it.
    """
    by = time.monotonic() + RELOAD_SECONDS
    asked = []
    for place in held.places:
        if not place.pid or place.channel is None:
            continue
        own = [group[place.number].fileno() for group in opened.values()]
        try:
            channel.send(place.channel, Reload(), [memory, *own])
        except OSError as error:
            held.warn(f"{place.name}: configuration not taken over: {one_line(error)}; it is started again")
            place.kill()
        else:
            place.expect(State.RELOADING, by)
            asked.append((place, place.pid))
    if held.hub.pid and held.hub.channel is not None:
        with contextlib.suppress(OSError):
            channel.send(held.hub.channel, Reload(), [memory])
    # one that has just started answers when its start is over: nobody waits for it
    while any(place.pid == pid and place.state is State.RELOADING for place, pid in asked):
        yield
