"""Listening sockets that a service manager passes: made by its socket unit, or kept in its descriptor store.

LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES: sd_listen_fds(3). The store: sd_pid_notify_with_fds(3), FDSTORE=1. What is in
it goes on listening while no fastscreen runs, so that a restart or a crash refuses no connection.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint, Prefix, ProxyPort
from fastscreen.daemon import systemd_notify
from fastscreen.daemon.listeners import BACKLOG, choose_by_client, choose_freely

FIRST = 3
MAX_DESCRIPTORS = 1024
STORED = "fastscreen "
"""How the names of stored sockets begin; then come host, port and the number in its group."""


class Given(NamedTuple):
    """Sockets by address, in their order. units: the addresses whose sockets a socket unit made."""

    groups: dict[Endpoint, list[socket.socket]]
    units: set[Endpoint]


def take(wanted: Mapping[Endpoint, ProxyPort | None], count: int) -> Given:
    """The sockets that were passed; taken once. OSError: one is not a listening TCP socket.

    Stored sockets that are of no use now (another number of workers, an address that is not configured any more, or one
    for which the socket unit passed sockets) are closed, here and in the store.
    """
    pid, number, listed = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not (number.isascii() and number.isdigit()):
        return Given({}, set())
    names = listed.split(":") if listed else []
    groups: dict[Endpoint, list[socket.socket]] = {}
    stored: dict[Endpoint, list[tuple[str, socket.socket]]] = {}
    for at in range(min(int(number), MAX_DESCRIPTORS)):
        os.set_inheritable(FIRST + at, False)
        listener = socket.socket(fileno=FIRST + at)
        name = names[at] if at < len(names) else ""
        if name.startswith(STORED):
            stored.setdefault(_address(listener), []).append((name, listener))
        else:
            groups.setdefault(_address(listener), []).append(listener)
    units = set(groups)
    removed = False
    for address, members in stored.items():
        members.sort(key=lambda member: _number_in(member[0]))
        if address in wanted and address not in units and len(members) == count:
            groups[address] = [listener for _, listener in members]
            continue
        for name, listener in members:
            listener.close()
            systemd_notify.remove(name)
        removed = True
    if removed:
        systemd_notify.barrier()  # the addresses are free once the manager has closed its copies
    return Given(groups, units)


def _number_in(name: str) -> int:
    number = name.rpartition(" ")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def names_of(address: Endpoint, count: int) -> Iterator[str]:
    """The names of an address's sockets in the store; a colon would separate names."""
    host = address.host.replace(":", "_")
    return (f"{STORED}{host} {address.port} {number}" for number in range(count))


def store(address: Endpoint, group: Sequence[socket.socket]) -> None:
    """Put an address's sockets into the store, if the service manager has one."""
    for name, listener in zip(names_of(address, len(group)), group, strict=True):
        systemd_notify.store(name, listener.fileno())


def forget(address: Endpoint, count: int) -> None:
    """Take them out again."""
    for name in names_of(address, count):
        systemd_notify.remove(name)


def _address(listener: socket.socket) -> Endpoint:
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise OSError(
            0, f"socket activation: descriptor {listener.fileno()} is not a TCP socket; expected ListenStream=IP:PORT"
        )
    host, port = listener.getsockname()[:2]
    where = Endpoint(str(ipaddress.ip_address(host)), port)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, f"socket activation: {where} does not listen; expected Accept=no")
    if where.host == "::" and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise OSError(0, f"socket activation: {where} also accepts IPv4; expected BindIPv6Only=ipv6-only")
    return where


def check(
    given: Mapping[Endpoint, Sequence[socket.socket]], wanted: Mapping[Endpoint, ProxyPort | None], count: int
) -> None:
    """A socket that nobody accepts at would let clients wait for ever; so would one without a worker. OSError."""
    for address, group in given.items():
        if address not in wanted:
            listed = ", ".join(str(each) for each in wanted)
            raise OSError(0, f"socket activation: {address} is not in listen.addresses; expected one of {listed}")
        if len(group) != count:
            raise OSError(
                0,
                f"socket activation: {len(group)} sockets for {address}, and {count} workers; expected ListenStream= "
                "once for each of listen.workers, with ReusePort=yes when there are several",
            )
        if count > 1 and not all(one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in group):
            raise OSError(0, f"socket activation: {address}: not a group; expected ReusePort=yes")


def check_kept(units: Collection[Endpoint], settings: Config) -> None:
    """A running daemon cannot stop serving a socket unit's address: the manager's own copy would go on listening, and
    clients would wait there for nobody. ConfigError.
    """
    if gone := sorted(str(address) for address in units if address not in settings.listen.ports):
        raise ConfigError(
            f"{settings.source}: listen.addresses: {', '.join(gone)} missing, which systemd's socket unit listens on; "
            "remove it from the unit, then stop and start both units"
        )


def prepare(group: Sequence[socket.socket], key: int, prefix: Prefix, *, by_client: bool) -> None:
    """Make of them what `listeners.listen` makes. A group's order is that of its listen calls. OSError."""
    for listener in group:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.listen(BACKLOG)
    if len(group) > 1:
        if by_client:
            choose_by_client(group[0], len(group), key, prefix)
        else:
            choose_freely(group[0])
