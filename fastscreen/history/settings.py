"""The settings that a verdict depends on, as the history keeps them next to the sessions.

A record has only their number. `fastscreen tune`, which judges a session again, needs all of them, and the names of the
lists, which a record has by their position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from fastscreen.config.model import Config, Proxy

MAX_SIZE = 65536
"""Bytes of a description, for which a worker's ring has room (ext/history_ring.pyx)."""


class TestSettings(Struct, frozen=True):
    """enabled: the test is made. action: what follows a failure, without shadow mode. ttl: of a pass (s)."""

    __test__ = False  # not a class of tests

    enabled: bool
    action: str
    ttl: int


class SiteSettings(Struct, frozen=True):
    """list: index into `HistorySettings.lists`. filter: as in `dnsbl.sites`, empty: every answer counts."""

    list: int
    filter: str
    weight: int


class HistorySettings(Struct, frozen=True):
    """What a verdict depends on. lists: names as clients are told, by number. Times are in s.

    tests: by key, also of those that are off. prefix: bits of an address that count in the cache, IPv4 and IPv6.
    continues: deep tests go on with an MTA, instead of a 450.
    """

    lists: tuple[str, ...]
    sites: tuple[SiteSettings, ...]
    threshold: int
    allowlist_threshold: int
    dnsbl_min_ttl: int
    dnsbl_max_ttl: int
    tests: dict[str, TestSettings]
    weights: dict[str, int]
    denylist_action: str
    shadow: bool
    soft_bounce: bool
    continues: bool
    relays: bool
    greet_wait: float
    prefix: tuple[int, int]
    rcpt_many_from: int = 20
    memory_half_life: int = 14 * 86400
    as_half_life: int = 90 * 86400
    seen_min: int = 3
    seen_as_share: int = 90


def described(config: Config, tests: Mapping[str, tuple[bool, str, int]], shown: Mapping[str, str]) -> HistorySettings:
    """The settings of a configuration.

    tests: by key, whether it is made, its action and the lifetime of a pass (s). shown: the names of lists for clients,
    by domain, where they have another one.
    """
    domains = config.dnsbl.domains
    return HistorySettings(
        lists=tuple(shown.get(domain, domain) for domain in domains),
        sites=tuple(
            SiteSettings(
                domains.index(site.domain), "" if site.octets is None else filter_text(site.octets), site.weight
            )
            for site in config.dnsbl.sites
        ),
        threshold=config.dnsbl.threshold,
        allowlist_threshold=config.dnsbl.allowlist_threshold,
        dnsbl_min_ttl=config.dnsbl.min_ttl,
        dnsbl_max_ttl=config.dnsbl.max_ttl,
        tests={key: TestSettings(enabled, str(action), ttl) for key, (enabled, action, ttl) in tests.items()},
        weights={key: weight for key, weight in config.weights.items() if weight},
        denylist_action=str(config.access.denylist_action),
        shadow=config.shadow,
        soft_bounce=config.engine.soft_bounce,
        continues=config.handoff.continue_to is not None,
        relays=isinstance(config.handoff.to, Proxy),
        greet_wait=config.greet.wait,
        prefix=config.cache.prefix,
        rcpt_many_from=config.score.rcpt_many_from,
        memory_half_life=config.score.memory_half_life,
        as_half_life=config.score.as_half_life,
        seen_min=config.score.seen_min,
        seen_as_share=config.score.seen_as_share,
    )


def encode(settings: HistorySettings) -> bytes:
    """The description as JSON, always the same for the same settings."""
    return msgspec.json.encode(settings, order="deterministic")


def decode(description: bytes) -> HistorySettings:
    """msgspec.MsgspecError: not a description of this version."""
    return msgspec.json.decode(description, type=HistorySettings)


def number(description: bytes) -> int:
    """The number of these settings in records, from 1 to 2^32 - 1."""
    return int.from_bytes(hashlib.blake2b(description, digest_size=4).digest()) or 1


def filter_text(octets: Sequence[bytes]) -> str:
    """A filter in the notation of `dnsbl.sites`: `127.0.0.[2..11]`."""
    return ".".join(map(_octet_text, octets))


def _octet_text(members: bytes) -> str:
    values = [value for value in range(256) if members[value >> 3] >> (value & 7) & 1]
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    shown = [f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return shown[0] if len(values) == 1 else f"[{';'.join(shown)}]"
