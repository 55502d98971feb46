"""Frames of the control socket, for both of its ends: 4 bytes of length, then one msgpack map (docs/control.md)."""

from __future__ import annotations

from typing import Any

import msgspec

LENGTH = 4  # bytes in front of each frame
MAX_TO_DAEMON = 64 << 10  # bytes
MAX_FROM_DAEMON = 1 << 20

Map = dict[str, Any]

_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class FrameError(ValueError):
    """Not the protocol, so that the connection cannot go on; one line."""


class TooLongError(ValueError):
    """The message does not fit into a frame. size: its bytes."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes, more than {most}")


def pack(message: object, most: int) -> bytes:
    """A frame of at most `most` bytes. Raises TooLongError."""
    body = msgspec.msgpack.encode(message)
    if len(body) > most:
        raise TooLongError(len(body), most)
    return len(body).to_bytes(LENGTH, "big") + body


def body_length(head: bytes, most: int) -> int:
    """The number of bytes that follow. Raises FrameError."""
    length = int.from_bytes(head, "big")
    if not 0 < length <= most:
        raise FrameError(f"a frame of {length} bytes; expected 1 to {most}")
    return length


def unpack(body: bytes) -> Map:
    """The map in a frame. Raises FrameError."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise FrameError(f"a frame that is not a msgpack map: {type(error).__name__}") from None
