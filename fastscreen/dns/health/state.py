"""The health of each list, in memory that all processes share: one worker writes it, and all use it to score."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum

from msgspec import Struct

_SLOT = struct.Struct("=QIIIII")  # as Health in ext/core.pxd
_SLOT_SIZE = 32
_STATE, _SINCE, _WHY, _SEEN = 8, 12, 16, 20
SLOTS = 512  # two configurations with as many lists as there may be
SIZE = SLOTS * _SLOT_SIZE  # bytes of the memory


class State(IntEnum):
    """As HealthState in ext/core.pxd. WELL: counts. SUSPECT: queried, but a listing only defers. OUT: not queried."""

    WELL = 0
    SUSPECT = 1
    OUT = 2


class Why(IntEnum):
    """What is wrong with a list."""

    NOTHING = 0
    LISTS_ALL = 1
    REFUSES = 2
    PARKED = 3
    SILENT = 4
    FAILS = 5
    EMPTY = 6

    @property
    def text(self) -> str:
        """For a person."""
        return _TEXTS[self]


_TEXTS = {
    Why.NOTHING: "",
    Why.LISTS_ALL: "lists 127.0.0.1, which a working list does not: it may list every address",
    Why.REFUSES: "refuses this resolver's queries, or is over quota",
    Why.PARKED: "gives answers outside 127.0.0.0/8: its domain may have been sold",
    Why.SILENT: "does not answer",
    Why.FAILS: "lacks a working name server",
    Why.EMPTY: "has lost its test entry 127.0.0.2: it may no longer list any address",
}


class Health(Struct, frozen=True):
    """Of one list. since: s, monotonic, of the state. had_test_entry: a probe has found its test entry."""

    state: State = State.WELL
    why: Why = Why.NOTHING
    since: int = 0
    had_test_entry: bool = False


class HealthTable:
    """A view of the memory. The supervisor calls `claim`, the process that probes calls `set`, all call the rest.

    memory: SIZE bytes, initially zero. clock: s, monotonic.
    """

    def __init__(self, memory: memoryview, clock: Callable[[], float] = time.monotonic) -> None:
        self.memory = memory
        self._clock = clock
        self._places: Mapping[int, int] = {}

    def claim(self, domains: Iterable[str], in_use: Iterable[str] = ()) -> None:
        """Give each domain a slot, if necessary that of a domain that is neither among them nor in use."""
        wanted = {_key(domain): domain for domain in domains}
        keep = {*wanted, *(_key(domain) for domain in in_use)}
        free = sorted((at for at in range(SLOTS) if self._key_at(at) not in keep), key=lambda at: self._key_at(at) != 0)
        there = {self._key_at(at) for at in range(SLOTS)}
        for key in wanted:
            if key not in there and free:
                _SLOT.pack_into(self.memory, free.pop(0) * _SLOT_SIZE, key, 0, 0, 0, 0, 0)

    def slots(self, domains: Iterable[str]) -> Mapping[str, int]:
        """The offset of each domain's slot. A domain without a slot is omitted; its answers always count."""
        return {domain: place for domain in domains if (place := self._place(domain)) is not None}

    def get(self, domain: str) -> Health:
        at = self._place(domain)
        if at is None:
            return Health()
        _, state, since, why, seen, _ = _SLOT.unpack_from(self.memory, at)
        return Health(State(state), Why(why), since, bool(seen))

    def set(self, domain: str, state: State, why: Why = Why.NOTHING) -> None:
        """Change a list's state. Answers from the time when it was OUT never count; those while it was SUSPECT do."""
        at = self._place(domain)
        if at is None:
            return
        before = self.get(domain)
        if before.state != state and State.OUT in (before.state, state):
            self._put(at + _SINCE, int(self._clock()) + (state is State.WELL))
        self._put(at + _WHY, why)
        self._put(at + _STATE, state)

    def note_test_entry(self, domain: str) -> None:
        """Remember that a probe has found its test entry."""
        if (at := self._place(domain)) is not None:
            self._put(at + _SEEN, 1)

    def _place(self, domain: str) -> int | None:
        """It is asked for every second and list: where it was is looked at first."""
        key = _key(domain)
        if self._key_at(self._places.get(key, 0)) != key:
            self._places = {self._key_at(at): at for at in range(SLOTS)}
            if key not in self._places:
                return None
        return self._places.get(key, 0) * _SLOT_SIZE

    def _key_at(self, at: int) -> int:
        return int.from_bytes(self.memory[at * _SLOT_SIZE : at * _SLOT_SIZE + 8], "little")

    def _put(self, at: int, value: int) -> None:
        self.memory[at : at + 4] = value.to_bytes(4, "little")


def _key(domain: str) -> int:
    return int.from_bytes(hashlib.blake2b(domain.encode(), digest_size=8).digest(), "little") or 1
