"""What differs between two configurations, and what it takes for each difference to take effect.

Keys that the table marks with a restart keep their value at a reload. Configurations are compared by fingerprints,
which say whether two values are the same but not what they are: other processes see them, and a query key is secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from fastscreen.config.keys import KEYS, Key, Restart
from fastscreen.config.model import Config

REMEDIES = {
    Restart.NOT_NEEDED: "run `fastscreen reload`",
    Restart.NEEDED: "run `fastscreen restart`",
    Restart.STOP_AND_START: "stop and start fastscreen",
}
"""What the operator does for a new value to take effect."""


class Change(Struct, frozen=True):
    """A key whose value differs. restart: one of REMEDIES."""

    key: str
    restart: Restart

    @property
    def remedy(self) -> str:
        return REMEDIES[self.restart]


def fingerprints(config: Config) -> dict[str, str]:
    """A fingerprint of the value of each key."""
    return {key.key: fingerprint(_value(config, key)) for key in KEYS}


def fingerprint(value: object) -> str:
    """The same for equal values, and for no others; it does not reveal the value."""
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=16).hexdigest()


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """The keys that differ, in the order of the table. A key that one of them lacks (another version's) is ignored.

    before, after: fingerprints by key.
    """
    workers = before.get("listen.workers")
    return [
        Change(key.key, _needed(key, before[key.key], after[key.key], single=workers == fingerprint(1)))
        for key in KEYS
        if key.key in before and key.key in after and before[key.key] != after[key.key]
    ]


def _needed(key: Key, before: str, after: str, *, single: bool) -> Restart:
    """single: one worker serves all clients, so no setting decides which one does."""
    if key.restart is not Restart.IF_SWITCHED:
        return key.restart
    switched = fingerprint(0) in (before, after)
    return Restart.NEEDED if switched and not single else Restart.NOT_NEEDED


def kept(now: Config, wanted: Config, *, at_restart: bool = False) -> tuple[Config, list[Change]]:
    """What a reload, or a restart, puts in force: `wanted`, except for keys that need more than that, which stay as
    they are in `now`; and these keys.
    """
    stay = (Restart.STOP_AND_START,) if at_restart else (Restart.NEEDED, Restart.STOP_AND_START)
    waiting = [one for one in changes(fingerprints(now), fingerprints(wanted)) if one.restart in stay]
    tables: dict[str, dict[str, Any]] = {}
    for key in KEYS:
        if any(one.key == key.key for one in waiting):
            tables.setdefault(key.table, {})[key.name] = _value(now, key)
    replaced = tables.pop("", {})
    replaced |= {table: msgspec.structs.replace(getattr(wanted, table), **old) for table, old in tables.items()}
    return msgspec.structs.replace(wanted, **replaced), waiting


def _value(config: Config, key: Key) -> object:
    return getattr(getattr(config, key.table) if key.table else config, key.name)
