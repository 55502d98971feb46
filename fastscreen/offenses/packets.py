"""Packets between the recorder and the cluster process: a letter, then items of a key and a record with their lengths.

`C`, changed: from the recorder, records to share with other hosts. `M`, merge: from the cluster process, what other
hosts know. `R`, resend: from the cluster process, to share again what changed since a day (2 bytes).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fastscreen.offenses.networks import is_network_key

PACKET_MAX = 8192
RECORD_MAX = 4 + 256 * 9
"""Bytes of the largest record: a full IPv4 /24."""

Record = tuple[bytes, bytes]
"""A key and a value."""

_CHANGED, _MERGE, _RESEND = b"CMR"


class Changed(NamedTuple):
    records: list[Record]


class Merge(NamedTuple):
    records: list[Record]


class Resend(NamedTuple):
    """since: days since 1970."""

    since: int


def encode_changed(records: Iterable[Record]) -> list[bytes]:
    """As few packets as hold these records."""
    return _packets(_CHANGED, records)


def encode_merge(records: Iterable[Record]) -> list[bytes]:
    """As few packets as hold these records."""
    return _packets(_MERGE, records)


def encode_resend(since: int) -> bytes:
    return bytes([_RESEND]) + since.to_bytes(2)


def decode(packet: bytes) -> Changed | Merge | Resend:
    """Read a packet. ValueError: it is malformed."""
    if not 1 < len(packet) <= PACKET_MAX:
        raise ValueError("a packet of a wrong size")
    if packet[0] == _RESEND and len(packet) == 3:
        return Resend(int.from_bytes(packet[1:]))
    if packet[0] == _CHANGED:
        return Changed(_records(packet))
    if packet[0] == _MERGE:
        return Merge(_records(packet))
    raise ValueError("a packet of an unknown type")


def _packets(kind: int, records: Iterable[Record]) -> list[bytes]:
    head = bytes([kind])
    found, parts, size = [], [head], 1
    for key, value in records:
        part = b"%c%b%b%b" % (len(key), len(value).to_bytes(2), key, value)
        if size + len(part) > PACKET_MAX:
            found.append(b"".join(parts))
            parts, size = [head], 1
        parts.append(part)
        size += len(part)
    return [*found, b"".join(parts)] if size > 1 else found


def _records(packet: bytes) -> list[Record]:
    found, at = [], 1
    while at < len(packet):
        middle = at + 3 + packet[at]
        end = middle + int.from_bytes(packet[at + 1 : at + 3])
        key, value = packet[at + 3 : middle], packet[middle:end]
        if end > len(packet) or not value or not is_network_key(key) or len(value) > RECORD_MAX:
            raise ValueError("a record that cannot be one")
        found.append((key, value))
        at = end
    return found
