"""What the supervisor and a worker say to each other: one message a packet, with descriptors where it takes some."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from fastscreen.config.model import Config, Endpoint

MOST_LISTENERS = (
    200  # one message passes at most 253 descriptors (SCM_MAX_FD); the configuration allows fewer addresses
)
_PACKET = 8192


# ---- from the supervisor


class Reload(Struct, frozen=True, tag="reload"):
    """Take over a configuration. It stands in the first descriptor; then come the sockets of the `opened` addresses."""


class ReopenLog(Struct, frozen=True, tag="reopen_log"):
    """Open the log anew."""


class Stop(Struct, frozen=True, tag="stop"):
    """No new clients; those in hand may finish. The second time: end at once."""


Order = Reload | ReopenLog | Stop


class Settings(NamedTuple):
    """What `Reload` brings in a file of memory: it may be larger than a packet."""

    config: Config
    opened: tuple[Endpoint, ...]


# ---- from a worker


class Ready(Struct, frozen=True, tag="ready"):
    """Clients are served; it has started, or it has taken over the configuration."""


class Failed(Struct, frozen=True, tag="failed"):
    """It cannot start (with the exit code that this means), or keeps its old configuration."""

    why: str
    code: int = 1


Report = Ready | Failed

_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)
_settings = msgspec.msgpack.Decoder(Settings)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel. A packet is taken whole or not at all; the end of a process is the end of the file."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Order | Report, descriptors: Sequence[int] = ()) -> None:
    """OSError: the other process has ended, or takes nothing."""
    socket.send_fds(channel, [msgspec.msgpack.encode(message)], list(descriptors), socket.MSG_DONTWAIT)


def send_reload(channel: socket.socket, config: Config, opened: dict[Endpoint, int], also: Sequence[int] = ()) -> None:
    """Send `Reload`: `opened` are descriptors of listening sockets by address. OSError: as for `send`.

    also: descriptors behind those: for a TLS process the files of `tls.certificates`.
    """
    memory = os.memfd_create("fastscreen configuration")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(Settings(config, tuple(opened))))
        send(channel, Reload(), [memory, *opened.values(), *also])
    finally:
        os.close(memory)


def receive_order(channel: socket.socket) -> tuple[Order | None, list[int]]:
    """The next order and its descriptors; None: the supervisor has ended. BlockingIOError: there is none."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, _PACKET, MOST_LISTENERS + 1)
    except BlockingIOError:
        raise
    except OSError:
        return None, []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (_orders.decode(packet) if packet else None), descriptors


def read_settings(descriptor: int) -> Settings:
    """What stands in a `Reload`'s first descriptor, which is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return _settings.decode(file.read())


def receive_report(channel: socket.socket, seconds: float) -> Report | None:
    """A worker's next report; None: it has ended. TimeoutError: it says nothing for so long."""
    channel.settimeout(seconds)
    try:
        packet = channel.recv(_PACKET)
    except ConnectionError:
        return None
    finally:
        channel.setblocking(True)
    return _reports.decode(packet) if packet else None
