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
    index = socket.if_nametoindex(scope) if scope and not scope.isdecimal() else int(scope or 0)
    if index > _MAX_INDEX:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", index)
