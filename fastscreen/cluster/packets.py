"""Packets between a worker and the cluster process: a type byte, then items. The core makes and reads the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastscreen.cache import keys

PACKET_MAX = 4096
PASS = 0
"""The kind of a record that holds a client's passes."""

_LOOK_UP, _KEEP, _FOUND = b"LKF"


class Item(NamedTuple):
    """A record. kind: PASS, or one of a newer version. key: as in the cache."""

    kind: int
    key: bytes
    record: bytes


class LookUp(NamedTuple):
    """From a worker: send the records of these clients, if there are any."""

    keys: list[bytes]


class Keep(NamedTuple):
    """From a worker: store these."""

    items: list[Item]


class Found(NamedTuple):
    """To a worker: records that it asked for."""

    items: list[Item]


def decode(packet: bytes) -> LookUp | Keep | Found:
    """Read a packet. ValueError: it is malformed."""
    if not 1 < len(packet) <= PACKET_MAX:
        raise ValueError("a packet of a wrong size")
    if packet[0] == _LOOK_UP:
        return LookUp(list(_keys(packet)))
    if packet[0] == _KEEP:
        return Keep(list(_items(packet)))
    if packet[0] == _FOUND:
        return Found(list(_items(packet)))
    raise ValueError("a packet of an unknown type")


def encode_look_up(wanted: Iterable[bytes]) -> list[bytes]:
    """As few packets as hold these keys."""
    return _packets(_LOOK_UP, (bytes([len(key)]) + key for key in wanted))


def encode_keep(items: Iterable[Item]) -> list[bytes]:
    """As few packets as hold these items."""
    return _packets(_KEEP, map(_encoded, items))


def encode_found(items: Iterable[Item]) -> list[bytes]:
    """As few packets as hold these items."""
    return _packets(_FOUND, map(_encoded, items))


def _encoded(item: Item) -> bytes:
    kind, key, record = item
    return b"%c%c%b%c%b" % (kind, len(key), key, len(record), record)


def _packets(kind: int, parts: Iterable[bytes]) -> list[bytes]:
    head = bytes([kind])
    found, packet = [], head
    for part in parts:
        if len(packet) + len(part) > PACKET_MAX:
            found.append(packet)
            packet = head
        packet += part
    return [*found, packet] if len(packet) > 1 else found


def _keys(packet: bytes) -> Iterator[bytes]:
    at = 1
    while at < len(packet):
        key, at = _field(packet, at)
        yield _checked(key)


def _items(packet: bytes) -> Iterator[Item]:
    at = 1
    while at < len(packet):
        kind = packet[at]
        key, at = _field(packet, at + 1)
        record, at = _field(packet, at)
        yield Item(kind, _checked(key) if kind == PASS else key, record)


def _field(packet: bytes, at: int) -> tuple[bytes, int]:
    """A length and as many bytes; return them and where the next field begins."""
    end = at + 1 + packet[at] if at < len(packet) else at + 1
    if end > len(packet):
        raise ValueError("a packet that is cut off")
    return packet[at + 1 : end], end


def _checked(key: bytes) -> bytes:
    if not keys.is_record(key):
        raise ValueError("a key that is not a client's")
    return key
