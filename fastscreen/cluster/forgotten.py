"""Deletions of what is remembered about networks, and what they leave of a record that is older."""

from __future__ import annotations

from collections.abc import Iterable

from fastscreen.cache.interfaces import Network
from fastscreen.cluster.tombstones import MOST, Tombstone, Tombstones
from fastscreen.core import offense_without
from fastscreen.offenses.networks import keys_around, network_of, numbers_in


class Forgotten:
    """The deletions that this process knows. A record of which only some members were deleted keeps the others."""

    def __init__(self) -> None:
        self._known = Tombstones()
        self._inside: dict[bytes, dict[Network, int]] = {}  # record's key -> smaller networks and their times
        self._count = 0  # of them

    def __len__(self) -> int:
        return len(self._known)

    def add(self, tombstone: Tombstone, value: bytes) -> bool:
        """value: signed. False: it was known, or a later one of the same network is."""
        if not self._known.add(tombstone, value):
            return False
        network = tombstone.network
        for key in keys_around(network):
            whole = network_of(key)
            if whole is not None and whole.prefixlen < network.prefixlen:
                times = self._inside.setdefault(key, {})
                self._count += network not in times
                times[network] = tombstone.time
        while self._count > MOST:
            self._count -= len(self._inside.pop(next(iter(self._inside))))
        return True

    def values(self) -> Iterable[tuple[Tombstone, bytes]]:
        """All of them, signed."""
        return self._known.values()

    def left_of(self, key: bytes, record: bytes, made: float) -> bytes | None:
        """A record without the members that were deleted after it was made (s since 1970). None: nothing is left."""
        if not len(self._known):
            return record
        network = network_of(key)
        if network is None:
            return None
        if self._known.deleted_at(network.network_address.packed + bytes([network.prefixlen])) >= made:
            return None
        deleted = [numbers_in(key, inside) for inside, time in self._inside.get(key, {}).items() if time >= made]
        return offense_without(record, frozenset[int]().union(*deleted)) if deleted else record

    def expire(self, before: float) -> None:
        """Forget those that are older than any record can be."""
        count = len(self._known)
        self._known.expire(before)
        if len(self._known) == count:
            return
        for key in list(self._inside):
            left = {network: time for network, time in self._inside[key].items() if time >= before}
            self._count -= len(self._inside[key]) - len(left)
            if left:
                self._inside[key] = left
            else:
                del self._inside[key]
