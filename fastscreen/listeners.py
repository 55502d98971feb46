"""The listening sockets: bound once, kept over reloads."""

import ipaddress
import socket

from fastscreen.config.model import Endpoint

BACKLOG = socket.SOMAXCONN


def listen(address: Endpoint) -> socket.socket:
    """Bind and listen. OSError: with the address in its text.

    The backlog is as long as the kernel allows (net.core.somaxconn): a burst waits there. SO_KEEPALIVE is inherited
    by every client's socket (reference 2.1).
    """
    version = ipaddress.ip_address(address.host).version
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    return listener
