"""The kinds of clients in the demo. Each kind has a network of 127.0.0.0/8, which clients and DNS lists agree on."""

from __future__ import annotations

from typing import NamedTuple


class ClientKind(NamedTuple):
    """A kind of client. network: the first two octets. share: percentage of all connections. members: addresses."""

    name: str
    network: str
    share: int
    members: int

    def address(self, number: int) -> str:
        """The address of a member, counted from 0. The first one is always x.y.0.1."""
        return f"{self.network}.{number // 250}.{number % 250 + 1}"


SENDER = ClientKind("sender", "127.10", 40, 60)
"""A mail server: tested once, deferred with 450, comes back and delivers."""
LARGE_SENDER = ClientKind("large sender", "127.15", 6, 20)
"""A mail server on a DNS allow list."""
OWN = ClientKind("own", "127.5", 3, 5)
"""On the permanent allow list, like the operator's own networks."""
BANNED = ClientKind("banned", "127.99", 3, 10)
"""On the permanent deny list."""
PREGREETER = ClientKind("pregreeter", "127.20", 14, 400)
PIPELINER = ClientKind("pipeliner", "127.30", 5, 60)
BARE_NEWLINE = ClientKind("bare newline", "127.40", 4, 60)
LISTED = ClientKind("listed", "127.50", 14, 500)
HTTP_PROBE = ClientKind("HTTP probe", "127.66", 4, 60)
SLOW = ClientKind("slow", "127.70", 2, 30)
IMPATIENT = ClientKind("impatient", "127.75", 4, 100)
"""Hangs up during the greet wait."""
GREEDY = ClientKind("greedy", "127.80", 1, 3)
"""Opens more simultaneous connections than allowed for one client."""
BOTNET = ClientKind("botnet", "127.90", 0, 1000)
"""Connects in waves."""

CLIENT_KINDS = (
    SENDER,
    LARGE_SENDER,
    OWN,
    BANNED,
    PREGREETER,
    PIPELINER,
    BARE_NEWLINE,
    LISTED,
    HTTP_PROBE,
    SLOW,
    IMPATIENT,
    GREEDY,
    BOTNET,
)
