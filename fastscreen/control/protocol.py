"""The server's side of the protocol: frames to requests, and how addresses, cache records and sessions are written."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.cache.stamps import DISABLED, NEW, Stamps, is_deferral
from fastscreen.config import Prefix
from fastscreen.control import frames
from fastscreen.control.events import evidence, failed
from fastscreen.control.filters import network_of
from fastscreen.control.frames import FrameError, Map
from fastscreen.control.messages import Expiry, PassedUntil, Session
from fastscreen.core import TESTS

if TYPE_CHECKING:
    from fastscreen.core import EventTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_STAMP = 2**40  # s since 1970
NAMES = tuple(test.key for test in TESTS)


class RequestError(ValueError):
    """The request cannot be answered; one line for a person."""


class Request(Struct, frozen=True):
    """id: the caller's own. arguments: the rest of the map."""

    id: int | float
    verb: str
    arguments: Map


def pack(message: object) -> bytes:
    """A frame to a caller. Raises RequestError."""
    try:
        return frames.pack(message, frames.MAX_FROM_DAEMON)
    except frames.TooLongError as error:
        raise RequestError(f"the answer has {error}: ask for less") from None


def request(body: bytes) -> Request:
    """Raises FrameError: not a map, or one without `id` and `do`."""
    message = frames.unpack(body)
    number, verb = message.pop("id", None), message.pop("do", None)
    if isinstance(number, bool) or not isinstance(number, int | float) or not isinstance(verb, str):
        raise FrameError("expected a request with a number as `id` and a verb as `do`")
    return Request(number, verb, message)


# ---- values


def address(text: str) -> str:
    """An address in the core's form. RequestError."""
    network = _network(text)
    if network.num_addresses != 1:
        raise RequestError(f"address: {text[:50]!a} is not one address; example: 192.0.2.1")
    return str(network.network_address)


def network(text: str) -> Network:
    """RequestError: neither an address nor a network."""
    return _network(text)


def reputation_subject(text: str) -> Network | int:
    """An address or network, or the number of an AS. RequestError."""
    digits = text[2:]
    if text[:2].upper() == "AS" and digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 32:
        return int(digits)
    try:
        return network_of(text)
    except ValueError:
        raise RequestError(
            f"{text[:50]!a} is not an address, a network or an AS; examples: 192.0.2.1, 192.0.2.0/24, AS64500"
        ) from None


def _network(text: str) -> Network:
    try:
        return network_of(text)
    except ValueError:
        raise RequestError(
            f"address: {text[:50]!a} is not an address or a network; examples: 192.0.2.1, 2001:db8::/32"
        ) from None


def key(text: str) -> bytes:
    """The key of a cache record, from the form that `keys.shown` gives it. RequestError."""
    return keys.of_network(network(text))


def client_key(text: str, prefix: Prefix) -> bytes:
    """The key by which a client, or a network of no more than the prefix, is looked up. RequestError."""
    try:
        return keys.of_client(network(text), prefix)
    except ValueError as error:
        raise RequestError(f"address: {error}") from None


def expiry(stamp: int) -> Expiry:
    """A stamp of the cache: until when, or a word."""
    if is_deferral(stamp):
        return "deferred"
    return "new" if stamp == NEW else "disabled" if stamp == DISABLED else float(stamp)


def passed_until(stamps: Stamps) -> PassedUntil:
    """A record of the cache, by test."""
    return {name: expiry(stamp) for name, stamp in zip(NAMES, stamps, strict=True)}


def stamps(passed: Map) -> Stamps:
    """The inverse; a test that is not named is "disabled". RequestError."""
    if unknown := [name for name in passed if name not in NAMES]:
        raise RequestError(f"passed_until: {unknown[0][:50]!a} is unknown; expected {', '.join(NAMES)}")
    return tuple(_stamp(passed.get(name, "disabled")) for name in NAMES)


def _stamp(value: object) -> int:
    if value in ("new", "deferred"):
        return NEW
    if value == "disabled":
        return DISABLED
    if isinstance(value, bool) or not isinstance(value, int | float) or not DISABLED < value <= MAX_STAMP:
        raise RequestError('passed_until: expected a time in seconds since 1970, "new" or "disabled"')
    return int(value)


def list_state(state: str) -> str:
    """What the core and `dnsbl_lookup` call a list's answer, as one word."""
    return {"not listed": "not_listed", "asked": "pending"}.get(state, state)


def session(worker: int, record: EventTuple, name: str = "") -> Session:
    """A live session. worker: from 0."""
    _, _, _, number, peer, port, stage, findings, score, _, age, command = record
    return Session(
        worker=worker + 1,
        session=number,
        address=peer,
        port=port,
        stage=stage,
        failed=failed(findings),
        evidence=evidence(findings),
        score=score,
        age=age / 1e6,
        command=command,
        name=name,
    )
