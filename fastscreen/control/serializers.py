"""How addresses, stamps and sessions stand in frames."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from fastscreen.cache import keys
from fastscreen.cache.writer import DISABLED, NEW, Stamps
from fastscreen.config import Prefix
from fastscreen.control.events import evidence, failed
from fastscreen.control.filters import network_of
from fastscreen.control.protocol import RequestError
from fastscreen.core import TESTS

if TYPE_CHECKING:
    from fastscreen.core import EventTuple

Map = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_STAMP = 2**40  # s since 1970
NAMES = tuple(test.key for test in TESTS)


def address(text: str) -> str:
    """An address in the core's form. RequestError."""
    network = _network(text)
    if network.num_addresses != 1:
        raise RequestError(f"address: {text[:50]!a} is not one address; example: 192.0.2.1")
    return str(network.network_address)


def network(text: str) -> Network:
    """RequestError: neither an address nor a network."""
    return _network(text)


def _network(text: str) -> Network:
    try:
        return network_of(text)
    except ValueError:
        raise RequestError(f"address: {text[:50]!a} is none; examples: 192.0.2.1, 2001:db8::/32") from None


def key(text: str) -> bytes:
    """The key of a record of the cache, as `cachekey.shown` shows it. RequestError."""
    return keys.of_network(network(text))


def client_key(text: str, prefix: Prefix) -> bytes:
    """The key by which a client, or a network of no more than the prefix, is looked up. RequestError."""
    try:
        return keys.of_client(network(text), prefix)
    except ValueError as error:
        raise RequestError(f"address: {error}") from None


def stamp_shown(stamp: int) -> float | str:
    """A stamp of the cache: until when, or a word."""
    return "never" if stamp == NEW else "disabled" if stamp == DISABLED else float(stamp)


def stamps_shown(stamps: Stamps) -> Map:
    return {name: stamp_shown(stamp) for name, stamp in zip(NAMES, stamps, strict=True)}


def stamps_read(shown: Map) -> Stamps:
    """The other way round; a test that is not named is "disabled". RequestError."""
    if unknown := [name for name in shown if name not in NAMES]:
        raise RequestError(f"stamps: {unknown[0][:50]!a} is unknown; expected {', '.join(NAMES)}")
    return tuple(_stamp(shown.get(name, "disabled")) for name in NAMES)


def _stamp(value: object) -> int:
    if value == "never":
        return NEW
    if value == "disabled":
        return DISABLED
    if isinstance(value, bool) or not isinstance(value, int | float) or not DISABLED < value <= MAX_STAMP:
        raise RequestError('stamps: a time in seconds since 1970, "never" or "disabled" is wanted')
    return int(value)


def session(worker: int, record: EventTuple) -> Map:
    """A live session. worker: from 0."""
    _, _, _, number, peer, port, stage, findings, score, _, age, command = record
    return {
        "worker": worker + 1,
        "session": number,
        "address": peer,
        "port": port,
        "stage": stage,
        "failed": failed(findings),
        "evidence": evidence(findings),
        "score": score,
        "age": age / 1e6,
        "command": command,
    }
