"""The score of what lists said: the core's rule (ext/dnsbl.pyx lookup_score), for a person to read."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from fastscreen.config.model import Site
from fastscreen.hub.lookups import Said

Map = dict[str, Any]


class Score(Struct, frozen=True):
    """total: what counts. lowest: what it would be if all silent allow lists vouched. top: the heaviest list."""

    total: int = 0
    lowest: int = 0
    top: str = ""


def score(sites: Iterable[Site], said: Mapping[str, Said]) -> Score:
    """said: by domain."""
    total = unsaid = heaviest = 0
    top = ""
    for site in sites:
        what = said.get(site.domain)
        if what is None or what.state not in ("listed", "not listed"):
            unsaid += min(site.weight, 0)
        elif matches(site, what.addresses):
            total += site.weight
            if not top or site.weight > heaviest:
                heaviest, top = site.weight, site.domain
    return Score(total, total + unsaid, top)


def matches(site: Site, addresses: Iterable[str]) -> bool:
    """Whether any of a list's answers passes the filter."""
    return any(site.matches(ipaddress.IPv4Address(address).packed) for address in addresses)


def weight(sites: Iterable[Site], domain: str, addresses: Iterable[str]) -> int:
    """What a list's answers add to the score."""
    answers = list(addresses)
    return sum(site.weight for site in sites if site.domain == domain and matches(site, answers))


def filter_text(site: Site) -> str | None:
    """A site's filter as the configuration could have it; None: every answer counts."""
    return None if site.octets is None else ".".join(_members(members) for members in site.octets)


def _members(members: bytes) -> str:
    values = [value for value in range(256) if members[value >> 3] >> (value & 7) & 1]
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    if len(values) == 1:
        return str(values[0])
    return "[" + ";".join(str(a) if a == b else f"{a}..{b}" for a, b in runs) + "]"
