"""TCP ports for servers that are started a moment later."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_dice = random.SystemRandom()  # processes that run side by side draw differently, whatever seeds they have set
_drawn: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this address that nobody uses, and that this process was not given before.

    It is below those that the kernel chooses from: until its server listens, no connection of others can take it.
    """
    highest = int(_RANGE.read_text().split()[0])
    while True:
        port = _dice.randrange(_LOWEST, highest)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if port not in _drawn:
            _drawn.add(port)
            return port
