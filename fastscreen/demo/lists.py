"""The DNS lists of the demo: their answers and their configuration."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from fastscreen.demo import client_kinds

SECRET = "k3yd3m0k3y"
"""A secret query key in the name of a list, as commercial lists use it. It is masked wherever the name is shown."""

THRESHOLD = 3
ALLOWLIST_THRESHOLD = -3


class Reply(NamedTuple):
    """The answer of a list, after `delay` s. addresses: empty if the client is not listed."""

    addresses: tuple[str, ...]
    delay: float = 0.0


Rule = Callable[[str], Reply | None]
"""Returns the answer for an address, or None for a list that does not answer."""


class List(NamedTuple):
    """domain: as used in queries. site: as in dnsbl.sites."""

    domain: str
    site: str
    rule: Rule


def is_kind(address: str, kind: client_kinds.ClientKind) -> bool:
    return address.startswith(kind.network + ".")


def chance(address: str, salt: str) -> float:
    """A pseudo-random number from 0 to 1 that depends only on the address and the salt."""
    return zlib.crc32(f"{salt} {address}".encode()) / 2**32


def _spam(address: str) -> Reply:
    listed = is_kind(address, client_kinds.LISTED) or (
        is_kind(address, client_kinds.BOTNET) and chance(address, "spam") < 0.5
    )
    return Reply(("127.0.0.2",) if listed else (), 0.002 + 0.03 * chance(address, "spam delay"))


def _drones(address: str) -> Reply:
    listed = is_kind(address, client_kinds.BOTNET) or (
        is_kind(address, client_kinds.PREGREETER) and chance(address, "drones") < 0.6
    )
    return Reply(("127.0.0.4",) if listed else (), 0.01 + 0.05 * chance(address, "drones delay"))


def _dynamic(address: str) -> Reply:
    """Lists whole networks, including a few mail servers by mistake."""
    suspect = (
        is_kind(address, client_kinds.LISTED)
        or is_kind(address, client_kinds.BOTNET)
        or is_kind(address, client_kinds.SENDER)
    )
    share = 0.03 if is_kind(address, client_kinds.SENDER) else 0.4
    listed = suspect and chance(address, "dynamic") < share
    return Reply(("127.0.0.10",) if listed else (), 0.005)


def _keyed(address: str) -> Reply:
    listed = is_kind(address, client_kinds.LISTED) and chance(address, "keyed") < 0.7
    return Reply(("127.0.1.2",) if listed else (), 0.02)


def _broken(address: str) -> Reply | None:
    """A list with problems: usually silent, otherwise late."""
    if chance(address, "silent") < 0.65:
        return None
    return Reply((), 0.1 + 0.3 * chance(address, "late"))


def _allow(address: str) -> Reply:
    known = is_kind(address, client_kinds.LARGE_SENDER)
    return Reply(("127.0.5.2",) if known else (), 0.01)


LISTS = (
    List("spam.example", "spam.example=127.0.0.[2..11]*3", _spam),
    List("drones.example", "drones.example*2", _drones),
    List("dynamic.example", "dynamic.example=127.0.0.10*1", _dynamic),
    List(f"{SECRET}.dq.example", f"{SECRET}.dq.example*2", _keyed),
    List("broken.example", "broken.example*1", _broken),
    List("allow.example", "allow.example=127.0.[0..255].[1..3]*-4", _allow),
)
