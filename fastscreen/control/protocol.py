"""Frames of the control socket: 4 octets of length, and a msgpack map (docs/control.md)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

LENGTH = 4  # octets
MAX_IN = 64 << 10
MAX_OUT = 1 << 20

Map = dict[str, Any]

_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class FrameError(ValueError):
    """What came is not the protocol, and there is no going on; one line."""


class RequestError(ValueError):
    """What is asked cannot be answered; one line for a person."""


class Request(Struct, frozen=True):
    """id: the caller's own. arguments: what else is in the map."""

    id: int | float
    verb: str
    arguments: Map


def packed(message: Map) -> bytes:
    """A frame. RequestError: it would be too long."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_OUT:
        raise RequestError(f"the answer has {len(body)} octets, more than {MAX_OUT}: ask for less")
    return len(body).to_bytes(LENGTH, "big") + body


def body_length(head: bytes) -> int:
    """How many octets follow. FrameError."""
    length = int.from_bytes(head, "big")
    if not 0 < length <= MAX_IN:
        raise FrameError(f"a frame of {length} octets; expected 1 to {MAX_IN}")
    return length


def request(body: bytes) -> Request:
    """FrameError: no map, or one without `id` and `do`."""
    try:
        message = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise FrameError(f"a frame that is no msgpack map: {type(error).__name__}") from None
    number, verb = message.pop("id", None), message.pop("do", None)
    if isinstance(number, bool) or not isinstance(number, int | float) or not isinstance(verb, str):
        raise FrameError("a request has an id, a number, and do, a verb")
    return Request(number, verb, message)
