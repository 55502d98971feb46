"""Who plays in the demo: a network of 127.0.0.0/8 for each kind. Lists and clients agree through this."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A kind of client. network: its first two octets. share: of all arrivals, in per cent. members: addresses."""

    name: str
    network: str
    share: int
    members: int

    def address(self, number: int) -> str:
        """The address of a member, counted from 0; the first is always x.y.0.1."""
        return f"{self.network}.{number // 250}.{number % 250 + 1}"


SENDER = Part("sender", "127.10", 40, 60)
"""A mail server: tested once, told 450, comes back and delivers."""
LARGE_SENDER = Part("large sender", "127.15", 6, 20)
"""One that an allow list knows."""
OWN = Part("own", "127.5", 3, 5)
"""Of the permanent allow list, as one's own networks are."""
BANNED = Part("banned", "127.99", 3, 10)
"""Of the permanent deny list."""
PREGREETER = Part("pregreeter", "127.20", 14, 400)
PIPELINER = Part("pipeliner", "127.30", 5, 60)
BARE_NEWLINE = Part("bare newline", "127.40", 4, 60)
LISTED = Part("listed", "127.50", 14, 500)
HTTP_PROBE = Part("HTTP probe", "127.66", 4, 60)
SLOW = Part("slow", "127.70", 2, 30)
IMPATIENT = Part("impatient", "127.75", 4, 100)
"""Hangs up during the greet wait."""
GREEDY = Part("greedy", "127.80", 1, 3)
"""Opens more connections at a time than one client may."""
BOTNET = Part("botnet", "127.90", 0, 1000)
"""Comes in waves."""

PARTS = (
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
