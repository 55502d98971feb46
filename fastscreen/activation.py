"""Listening sockets that a service manager made for us: LISTEN_PID and LISTEN_FDS (sd_listen_fds(3))."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence

from fastscreen.config.model import Endpoint, Prefix, ProxyPort
from fastscreen.listeners import BACKLOG, choose_by_client, choose_freely

FIRST = 3
MOST = 1024


def take() -> dict[Endpoint, list[socket.socket]]:
    """The sockets by address, in their order; taken once. OSError: one is not of our kind."""
    pid, count = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    groups: dict[Endpoint, list[socket.socket]] = {}
    for descriptor in range(FIRST, FIRST + min(int(count), MOST)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        groups.setdefault(_address(listener), []).append(listener)
    return groups


def _address(listener: socket.socket) -> Endpoint:
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise OSError(
            0, f"socket activation: descriptor {listener.fileno()} is no TCP socket; allowed: ListenStream=IP:PORT"
        )
    host, port = listener.getsockname()[:2]
    where = Endpoint(str(ipaddress.ip_address(host)), port)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, f"socket activation: {where} does not listen; allowed: Accept=no")
    if where.host == "::" and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise OSError(0, f"socket activation: {where} takes IPv4, too; allowed: BindIPv6Only=ipv6-only")
    return where


def check(
    given: Mapping[Endpoint, Sequence[socket.socket]], wanted: Mapping[Endpoint, ProxyPort | None], count: int
) -> None:
    """A socket that nobody accepts at would let clients wait for ever; so would one without a worker. OSError."""
    for address, group in given.items():
        if address not in wanted:
            listed = ", ".join(str(each) for each in wanted)
            raise OSError(0, f"socket activation: {address} is not in listen.addresses; there is: {listed}")
        if len(group) != count:
            raise OSError(
                0,
                f"socket activation: {len(group)} sockets for {address}, and {count} workers; allowed: ListenStream= "
                "once for each of listen.workers, with ReusePort=yes when there are several",
            )
        if count > 1 and not all(one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in group):
            raise OSError(0, f"socket activation: {address}: not a group; allowed: ReusePort=yes")


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
