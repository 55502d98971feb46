"""What the demo's DNSBL lists say of an address, and how they are configured."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from fastscreen.demo import cast

SECRET = "k3yd3m0k3y"
"""A query key in a list's name, as commercial lists have one: shown masked everywhere."""

THRESHOLD = 3
ALLOWLIST_THRESHOLD = -3


class Reply(NamedTuple):
    """The addresses that a list answers with, none when the client is not listed, after `delay` s."""

    addresses: tuple[str, ...]
    delay: float = 0.0


Rule = Callable[[str], Reply | None]
"""What is said of an address; None: no answer at all."""


class List(NamedTuple):
    """domain: as it is asked. site: as in dnsbl.sites."""

    domain: str
    site: str
    rule: Rule


def of(address: str, part: cast.Part) -> bool:
    return address.startswith(part.network + ".")


def chance(address: str, salt: str) -> float:
    """A number from 0 to 1 that is always the same for an address and a list."""
    return zlib.crc32(f"{salt} {address}".encode()) / 2**32


def _spam(address: str) -> Reply:
    listed = of(address, cast.LISTED) or (of(address, cast.BOTNET) and chance(address, "spam") < 0.5)
    return Reply(("127.0.0.2",) if listed else (), 0.002 + 0.03 * chance(address, "spam delay"))


def _drones(address: str) -> Reply:
    listed = of(address, cast.BOTNET) or (of(address, cast.PREGREETER) and chance(address, "drones") < 0.6)
    return Reply(("127.0.0.4",) if listed else (), 0.01 + 0.05 * chance(address, "drones delay"))


def _dynamic(address: str) -> Reply:
    """Lists whole networks, and now and then one that it should not."""
    suspect = of(address, cast.LISTED) or of(address, cast.BOTNET) or of(address, cast.SENDER)
    share = 0.03 if of(address, cast.SENDER) else 0.4
    listed = suspect and chance(address, "dynamic") < share
    return Reply(("127.0.0.10",) if listed else (), 0.005)


def _keyed(address: str) -> Reply:
    listed = of(address, cast.LISTED) and chance(address, "keyed") < 0.7
    return Reply(("127.0.1.2",) if listed else (), 0.02)


def _broken(address: str) -> Reply | None:
    """A list in trouble: mostly silent, else late."""
    if chance(address, "silent") < 0.65:
        return None
    return Reply((), 0.1 + 0.3 * chance(address, "late"))


def _allow(address: str) -> Reply:
    known = of(address, cast.LARGE_SENDER)
    return Reply(("127.0.5.2",) if known else (), 0.01)


LISTS = (
    List("spam.example", "spam.example=127.0.0.[2..11]*3", _spam),
    List("drones.example", "drones.example*2", _drones),
    List("dynamic.example", "dynamic.example=127.0.0.10*1", _dynamic),
    List(f"{SECRET}.dq.example", f"{SECRET}.dq.example*2", _keyed),
    List("broken.example", "broken.example*1", _broken),
    List("allow.example", "allow.example=127.0.[0..255].[1..3]*-4", _allow),
)
