"""Socket addresses as the kernel takes them: struct sockaddr, for the core's own connect(2)."""

from __future__ import annotations

import errno
import os
import socket
import struct

_MAX_INDEX = 2**32 - 1  # sin6_scope_id


def packed_path(path: str) -> bytes:
    """struct sockaddr_un."""
    return struct.pack("=H", socket.AF_UNIX) + os.fsencode(path) + b"\0"


def packed_ip(address: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6; IPv6 may have a scope (fe80::1%eth0). OSError: unknown interface."""
    host, _, scope = address.partition("%")
    if ":" not in host:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    index = _index(scope) if scope and not scope.isdecimal() else int(scope or 0)
    if index > _MAX_INDEX:
        raise _no_such_interface()
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", index)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:  # which has an error number only since Python 3.14
        raise _no_such_interface() from None


def _no_such_interface() -> OSError:
    return OSError(errno.ENODEV, os.strerror(errno.ENODEV))
