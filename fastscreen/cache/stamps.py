"""What the cache stores for a client: for each test, until when the client's pass is valid (s since 1970)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fastscreen import core

Stamps = tuple[int, ...]

TESTS = len(core.TESTS)
POSTSCREEN_TESTS = sum(not test.own for test in core.TESTS)
"""postscreen's, which come first: every record has their stamps."""
NEW = 0
DISABLED = 1
STAMP_MAX = 2**63 - 1

_ALL_DISABLED = (DISABLED,) * TESTS
_Stamp = Annotated[int, msgspec.Meta(ge=0, le=STAMP_MAX)]
_decode_any = msgspec.msgpack.Decoder().decode
# Our own records are decoded and checked in one call.
_decode = msgspec.msgpack.Decoder(tuple[_Stamp, ...]).decode
_encode = msgspec.msgpack.Encoder().encode  # for the loop's thread only: an encoder belongs to one thread


def pack_stamps(stamps: Stamps) -> bytes:
    """Encode stamps (s since 1970; 0 NEW, 1 DISABLED) as a msgpack array. For the loop's thread.

    Tests of our own that are disabled are not written at the end of a record: it grows only where they are in use.
    """
    count = len(stamps)
    while count > POSTSCREEN_TESTS and stamps[count - 1] == DISABLED:
        count -= 1
    return _encode(stamps[:count])


def parse_stamps(value: bytes) -> Stamps:
    """Decode a record, a stamp for each test. Missing and malformed fields read as 1, extra ones are ignored (reference
    7.1): so an older version reads a record of a newer one, and a newer one that of an older. Never raises.
    """
    try:
        stamps = _decode(value)
    except msgspec.DecodeError:
        return _parse_odd(value)  # other things than stamps, or not msgpack
    return stamps if len(stamps) == TESTS else (*stamps[:TESTS], *_ALL_DISABLED[len(stamps) :])


def _parse_odd(value: bytes) -> Stamps:
    try:
        fields = _decode_any(value)
    except (ValueError, TypeError, RecursionError):  # msgspec.DecodeError is a ValueError
        return _ALL_DISABLED
    if not isinstance(fields, list):
        return _ALL_DISABLED
    sound = [field if type(field) is int and 0 <= field <= STAMP_MAX else DISABLED for field in fields[:TESTS]]
    return (*sound, *_ALL_DISABLED[len(sound) :])


def merged(one: Stamps, other: Stamps) -> Stamps:
    """The later stamp of each test. A real one is later than DISABLED, and that later than NEW."""
    return tuple(map(max, one, other))


def is_deferral(stamp: int) -> bool:
    """Whether the stamp of the score test says that the client was deferred (ext/score_responses.pyx)."""
    return core.deferred_at(stamp) > 0


def first_expiry(value: bytes, enabled: tuple[int, ...]) -> int:
    """When a record's first pass expires; a test that was never passed is the earliest. enabled: tests by index."""
    stamps = parse_stamps(value)
    return min((core.deferred_at(stamps[index]) or stamps[index] for index in enabled), default=STAMP_MAX)


def is_retained(value: bytes, enabled: tuple[int, ...], oldest: int) -> bool:
    """Whether cleanup keeps a record: no pass of an enabled test expired before `oldest`. 0 and 1 are long ago. A
    deferral is as old as it is."""
    stamps = parse_stamps(value)
    return all(oldest <= stamps[index] or oldest <= core.deferred_at(stamps[index]) for index in enabled)
