"""Passes that were deleted: a pass that was stored before its deletion stays invalid, wherever it turns up again."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.cache.interfaces import Network
from fastscreen.cluster.records import DELETED_LABEL, SKEW, Reason, seal, unseal
from fastscreen.cluster.secrets import Secrets

NAME = b"d:"
MOST = 10_000
"""Deletions that are remembered; then the oldest ones are forgotten."""
ALWAYS = 2**63
"""The time of a deletion of all passes that were made before it was read, whatever they say."""


_OFFENSES = b"o"


class Tombstone(Struct, frozen=True):
    """A deletion. time: s since 1970, by the server's clock. of_offenses: what is remembered of the network's addresses
    is deleted, not their passes.
    """

    network: Network
    time: int
    host: str
    of_offenses: bool = False


def _body(tombstone: Tombstone) -> bytes:
    network = tombstone.network
    key = network.network_address.packed + bytes([network.prefixlen])
    return key + _OFFENSES if tombstone.of_offenses else key


def sign(secrets: Secrets, tombstone: Tombstone, most: int) -> bytes:
    """As it is published and stored. most: s for which passes may live."""
    return seal(
        secrets,
        DELETED_LABEL,
        NAME,
        _body(tombstone),
        expiry=tombstone.time + most,
        stored=tombstone.time,
        host=tombstone.host,
    )


def verify(secrets: Secrets, value: object, now: float) -> Tombstone | Reason:
    """Read what the server has, or tell why it is ignored. Never raises."""
    sealed = unseal(secrets, DELETED_LABEL, NAME, value)
    if isinstance(sealed, Reason):
        return sealed
    if sealed.stored > now + SKEW:
        return Reason.FUTURE
    if sealed.expiry <= now:
        return Reason.EXPIRED
    of_offenses = len(sealed.body) in (6, 18) and sealed.body.endswith(_OFFENSES)
    network = _network(sealed.body.removesuffix(_OFFENSES) if of_offenses else sealed.body)
    return Reason.FOREIGN if network is None else Tombstone(network, sealed.stored, sealed.host, of_offenses)


def _network(body: bytes) -> Network | None:
    if len(body) not in (5, 17):
        return None
    try:
        return ipaddress.ip_network((body[:-1], body[-1]))
    except ValueError:  # bits behind the prefix, or too long a prefix
        return None


def covers(network: Network, key: bytes) -> bool:
    """Whether a record is of this network, or of one inside it."""
    return keys.within(key, network.network_address.packed, network.broadcast_address.packed)


class Tombstones:
    """The deletions that this process knows."""

    def __init__(self) -> None:
        self._known: OrderedDict[Network, tuple[Tombstone, bytes]] = OrderedDict()
        self._by_length: dict[tuple[int, int], dict[int, int]] = {}  # version, prefix length -> network -> time

    def __len__(self) -> int:
        return len(self._known)

    def add(self, tombstone: Tombstone, value: bytes) -> bool:
        """value: signed. False: it was known, or a later one of the same network is."""
        network = tombstone.network
        known = self._known.get(network)
        if known is not None and known[0].time >= tombstone.time:
            return False
        self._known[network] = tombstone, value
        self._known.move_to_end(network)
        lengths = self._by_length.setdefault((network.version, network.prefixlen), {})
        lengths[int(network.network_address)] = tombstone.time
        while len(self._known) > MOST:
            self._remove(next(iter(self._known)))
        return True

    def deleted_at(self, key: bytes) -> float:
        """When passes of a client were last deleted (s since 1970); -inf: never."""
        found = -math.inf
        if not self._known:
            return found
        size = len(key) if len(key) in (4, 16) else len(key) - 1
        bits = 8 * size
        own = key[size] if len(key) > size else bits
        address = int.from_bytes(key[:size], "big")
        version = 4 if size == 4 else 6
        for (of, length), times in self._by_length.items():
            if of == version and length <= own:
                time = times.get(address >> (bits - length) << (bits - length))
                if time is not None and time > found:
                    found = time
        return found

    def values(self) -> Iterable[tuple[Tombstone, bytes]]:
        """All of them, signed."""
        return list(self._known.values())

    def expire(self, before: float) -> None:
        """Forget those that are older than any pass can be."""
        for network in [network for network, (tombstone, _) in self._known.items() if tombstone.time < before]:
            self._remove(network)

    def _remove(self, network: Network) -> None:
        del self._known[network]
        lengths = self._by_length[network.version, network.prefixlen]
        del lengths[int(network.network_address)]
        if not lengths:
            del self._by_length[network.version, network.prefixlen]
