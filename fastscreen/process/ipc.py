"""What the supervisor and a worker say to each other: one message a packet, with descriptors where it takes some."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from fastscreen.config.model import Config, Endpoint
from fastscreen.process import fd_passing as fds

MAX_LISTENERS = 200  # one message passes at most 253 descriptors (SCM_MAX_FD); the configuration allows fewer addresses
_PACKET = 8192
_UNWANTED = 16  # descriptors of one packet that are closed here; the kernel drops further ones


# ---- from the supervisor


class Reload(Struct, frozen=True, tag="reload"):
    """Take over a configuration. It stands in the first descriptor; then come the sockets of the `opened` addresses."""


class ReopenLog(Struct, frozen=True, tag="reopen_log"):
    """Open the log again."""


class Stop(Struct, frozen=True, tag="stop"):
    """Accept no more clients. Clients that only wait get a 421 soon; hand-offs and relayed sessions have their time to
    finish. The second time: end at once.

    successor: another worker serves the same sockets already. Then all clients have that time, and clients that other
    workers pass to this one are left to the successor.
    """

    successor: bool = False


class WriteThrough(Struct, frozen=True, tag="write_through"):
    """A restart begins: clients of this worker come back to its successor, which reads the cache from the file. Write
    each pass to the file at once, for a minute.
    """


Order = Reload | ReopenLog | Stop | WriteThrough


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


class MalformedError(Exception):
    """A process sent something that is not a report."""


_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)
_settings = msgspec.msgpack.Decoder(Settings)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel. A packet is taken whole or not at all; the end of a process is the end of the file."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Order | Report, descriptors: Sequence[int] = ()) -> None:
    """OSError: the other process has ended, or takes nothing."""
    fds.send(channel, msgspec.msgpack.encode(message), descriptors, socket.MSG_DONTWAIT)


def settings_memory(config: Config, opened: Sequence[Endpoint]) -> int:
    """A file in memory with what `Reload` brings; the caller closes it. OSError: no memory or descriptor for it."""
    memory = os.memfd_create("fastscreen configuration")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(Settings(config, tuple(opened))))
    except BaseException:
        os.close(memory)
        raise
    return memory


def send_reload(channel: socket.socket, config: Config, opened: dict[Endpoint, int], also: Sequence[int] = ()) -> None:
    """Send `Reload`: `opened` are descriptors of listening sockets by address. OSError: as for `send`.

    also: descriptors behind those: for a TLS process the files of `tls.certificates`.
    """
    memory = settings_memory(config, tuple(opened))
    try:
        send(channel, Reload(), [memory, *opened.values(), *also])
    finally:
        os.close(memory)


def receive_order(channel: socket.socket) -> tuple[Order | None, list[int]]:
    """The next order and its descriptors; None: the supervisor has ended. BlockingIOError: none yet.

    MsgspecError: not an order; its descriptors are closed, and so are those of an order that takes none.
    """
    try:
        packet, descriptors, _ = fds.receive(channel, _PACKET, MAX_LISTENERS + 1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError:
        return None, []
    order = None
    try:
        order = _orders.decode(packet) if packet else None
    finally:
        if not isinstance(order, Reload):
            while descriptors:
                os.close(descriptors.pop())
    return order, descriptors


def read_settings(descriptor: int) -> Settings:
    """What stands in a `Reload`'s first descriptor, which is closed. All processes share the file's position."""
    try:
        return _settings.decode(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)


def receive_report(channel: socket.socket) -> Report | None:
    """The next report, without waiting; None: the other process closed its end. BlockingIOError: no report.

    MalformedError: the packet is not a report, is too long or brings descriptors (which are closed).
    """
    try:
        packet, descriptors, flags = fds.receive(channel, _PACKET, _UNWANTED, socket.MSG_DONTWAIT)
    except ConnectionError:
        return None
    for descriptor in descriptors:
        os.close(descriptor)
    if descriptors or flags & socket.MSG_CTRUNC:
        raise MalformedError("descriptors, which no report has")
    if flags & socket.MSG_TRUNC:
        raise MalformedError(f"a packet of more than {_PACKET} bytes")
    if not packet:
        return None
    try:
        return _reports.decode(packet)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"a malformed packet ({error})") from None
