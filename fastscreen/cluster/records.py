"""Records in the server: a pass with its host, its time and a MAC. Others may write there, so nothing is believed
unless its MAC is right, and then only as far as this host's own configuration goes.

A value is: version, key ID, expiry and time of storing (s since 1970, four bytes each), the host's name after its
length, the body, the MAC. The expiry is readable for the server's script, which keeps the later record.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.cache.stamps import DISABLED, Stamps, parse_stamps
from fastscreen.cluster.secrets import MAC_SIZE, Secrets
from fastscreen.core import write_record

VERSION = 1
NEWEST_VERSION = 15  # a greater first byte is that of something else
VALUE_MAX = 512
OFFENSES_MAX = 2500
"""Bytes of a value with the offenses in a network, a full IPv4 /24."""
SKEW = 600  # s by which the clocks of two hosts may differ
DAY = 86400
LONGEST = 400 * DAY
TIME_MAX = 2**32 - 1

PASS_LABEL = b"fastscreen pass 1"
OFFENSES_LABEL = b"fastscreen offenses 1"
DELETED_LABEL = b"fastscreen deleted 1"
CHECK_LABEL = b"fastscreen check 1"

_HEAD = struct.Struct(">BBIIB")
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,63}")


class Reason(IntEnum):
    """Why a record is ignored. The name, in lower case, is the label in metrics and JSON."""

    BAD_MAC = 0
    NEWER = 1
    FOREIGN = 2
    FUTURE = 3
    EXPIRED = 4
    DELETED = 5

    @property
    def label(self) -> str:
        return self.name.lower()

    @property
    def is_replaced(self) -> bool:
        """Whether the next pass of this client replaces the record, whatever it says about its expiry."""
        return self in (Reason.BAD_MAC, Reason.FOREIGN, Reason.FUTURE, Reason.DELETED)


class Lifetime(NamedTuple):
    """How long a pass of a test may be valid here: s."""

    shortest: int
    longest: int


Lifetimes = tuple[Lifetime | None, ...]
"""Of each test; None: it is disabled here."""


class Sealed(Struct, frozen=True):
    """What a value with a right MAC says."""

    expiry: int
    stored: int
    host: str
    body: bytes


class SharedPass(Struct, frozen=True):
    """A client's pass that another host, or this one, has stored. stamps: never later than this host's own would be.

    stored: s since 1970, by the server's clock.
    """

    stamps: Stamps
    host: str
    stored: int


def is_host_name(text: str) -> bool:
    """Whether a host may have this name in the cluster."""
    return text.isascii() and _NAME.fullmatch(text.encode()) is not None


def record_name(key: bytes) -> bytes:
    """The server's key of a cache key, without the cluster's prefix."""
    return b"p:" + key.hex().encode()


def record_key(name: bytes) -> bytes:
    """The cache key of such a key; empty: it is something else."""
    try:
        key = bytes.fromhex(name.removeprefix(b"p:").decode())
    except ValueError:
        return b""
    return key if keys.is_record(key) and record_name(key) == name else b""


def offenses_name(key: bytes) -> bytes:
    """The server's key of a record of the memory of offenses, without the cluster's prefix."""
    return b"o:" + key.hex().encode()


def offenses_names(keys: Sequence[bytes]) -> list[bytes]:
    """The same of several."""
    return [b"o:" + key.hex().encode() for key in keys]


def value_max(name: bytes) -> int:
    """Bytes of the largest value under such a key."""
    return OFFENSES_MAX if name.startswith(b"o:") else VALUE_MAX


def most_seconds(lifetimes: Lifetimes) -> int:
    """How long a record may stay in the server: a day longer than any pass is valid here."""
    longest = max((lifetime.longest for lifetime in lifetimes if lifetime is not None), default=0)
    return min(longest + DAY, LONGEST)


def seal(secrets: Secrets, label: bytes, name: bytes, body: bytes, *, expiry: int, stored: float, host: str) -> bytes:
    """Make a value. name: its key in the server, without the prefix: under another key it is not valid."""
    encoded = host.encode()
    stored = max(0, min(int(stored), TIME_MAX))
    head = _HEAD.pack(VERSION, secrets.key_id, min(expiry, TIME_MAX), stored, len(encoded))
    value = head + encoded + body
    return value + secrets.sign(_signed(label, name, value))


def unseal(secrets: Secrets, label: bytes, name: bytes, value: object) -> Sealed | Reason:
    """Read a value. Never raises."""
    if not isinstance(value, bytes) or not _HEAD.size + 1 + MAC_SIZE <= len(value) <= value_max(name):
        return Reason.FOREIGN
    version, key_id, expiry, stored, length = _HEAD.unpack_from(value)
    if version != VERSION:
        return Reason.NEWER if VERSION < version <= NEWEST_VERSION else Reason.FOREIGN
    signed, mac = value[:-MAC_SIZE], value[-MAC_SIZE:]
    host = signed[_HEAD.size : _HEAD.size + length]
    if len(host) != length or not _NAME.fullmatch(host):
        return Reason.FOREIGN
    if not secrets.verify(key_id, _signed(label, name, signed), mac):
        return Reason.BAD_MAC
    return Sealed(expiry, stored, host.decode(), signed[_HEAD.size + length :])


def claimed_host(value: bytes) -> str:
    """The host that a value names, whether or not its MAC is right; empty: it names none."""
    if len(value) < _HEAD.size:
        return ""
    host = value[_HEAD.size : _HEAD.size + value[_HEAD.size - 1]]
    return host.decode() if _NAME.fullmatch(host) else ""


def _signed(label: bytes, name: bytes, value: bytes) -> bytes:
    return label + len(name).to_bytes(2, "big") + name + value


def sign_pass(secrets: Secrets, key: bytes, stamps: Stamps, *, host: str, stored: float) -> bytes:
    """The value of a client's pass. key: the cache's."""
    body = write_record(stamps)
    return seal(secrets, PASS_LABEL, record_name(key), body, expiry=max(stamps), stored=stored, host=host)


def verify_pass(
    secrets: Secrets, key: bytes, value: object, lifetimes: Lifetimes, *, now: float, deleted: float
) -> SharedPass | Reason:
    """Read the value that the server has for a client, or tell why it is ignored. Never raises.

    key: the cache's. deleted: when passes of this client were last deleted (s since 1970).
    """
    sealed = unseal(secrets, PASS_LABEL, record_name(key), value)
    if isinstance(sealed, Reason):
        return sealed
    if sealed.stored > now + SKEW:
        return Reason.FUTURE
    if sealed.stored <= deleted:
        return Reason.DELETED
    # Another host's pass is valid here for no longer than one of this host's would be.
    since = min(sealed.stored + SKEW, int(now))
    stamps = tuple(
        [
            DISABLED if lifetime is None else min(stamp, since + lifetime.longest)
            for stamp, lifetime in zip(parse_stamps(sealed.body), lifetimes, strict=True)
        ]
    )
    if max(stamps) <= now:
        return Reason.EXPIRED
    return SharedPass(stamps, sealed.host, sealed.stored)


def sign_offenses(secrets: Secrets, key: bytes, record: bytes, *, expiry: int, host: str, stored: float) -> bytes:
    """The value of a network's record. key: of the memory of offenses."""
    return seal(secrets, OFFENSES_LABEL, offenses_name(key), record, expiry=expiry, stored=stored, host=host)


def verify_offenses(secrets: Secrets, key: bytes, value: object, *, now: float) -> Sealed | Reason:
    """Read the value that the server has for a network, or tell why it is ignored. Never raises."""
    sealed = unseal(secrets, OFFENSES_LABEL, offenses_name(key), value)
    if isinstance(sealed, Reason):
        return sealed
    if sealed.stored > now + SKEW:
        return Reason.FUTURE
    return Reason.EXPIRED if sealed.expiry <= now else sealed


def earliest_pass(stamps: Sequence[int], lifetimes: Lifetimes) -> int:
    """The newest pass of a record was not made before this time (s since 1970)."""
    return max(
        (
            stamp - lifetime.longest
            for stamp, lifetime in zip(stamps, lifetimes, strict=True)
            if lifetime is not None and stamp > DISABLED
        ),
        default=0,
    )


def latest_pass(stamps: Sequence[int], lifetimes: Lifetimes) -> int:
    """The newest pass of a record was not made after this time (s since 1970)."""
    return max(
        (
            stamp - lifetime.shortest
            for stamp, lifetime in zip(stamps, lifetimes, strict=True)
            if lifetime is not None and stamp > DISABLED
        ),
        default=0,
    )
