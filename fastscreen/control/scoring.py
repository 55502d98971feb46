"""The score of what lists said: the core's rule (ext/dnsbl.pyx lookup_score), for a person to read."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Mapping
from typing import Any

from msgspec import Struct

from fastscreen.config.model import Site
from fastscreen.control.dnsbl_lookup import Said

Map = dict[str, Any]


class Score(Struct, frozen=True):
    """total: what counts. lowest: what it would be if all silent allow lists vouched. highest: what it would be if the
    answers of suspect block lists counted. top: the heaviest list. doubtful: the heaviest suspect one.
    """

    total: int = 0
    lowest: int = 0
    highest: int = 0
    top: str = ""
    doubtful: str = ""


def score(sites: Iterable[Site], said: Mapping[str, Said], suspect: Container[str] = ()) -> Score:
    """said: by domain. suspect: domains of lists that may list everybody."""
    total = unsaid = unsure = heaviest = heaviest_suspect = 0
    top = doubtful = ""
    for site in sites:
        what = said.get(site.domain)
        if what is None or what.state not in ("listed", "not listed"):
            unsaid += min(site.weight, 0)
        elif site.domain in suspect and what.state == "listed":
            unsaid += min(site.weight, 0)
            if site.weight > 0 and matches(site, what.addresses):
                unsure += site.weight
                if site.weight > heaviest_suspect:
                    heaviest_suspect, doubtful = site.weight, site.domain
        elif matches(site, what.addresses):
            total += site.weight
            if not top or site.weight > heaviest:
                heaviest, top = site.weight, site.domain
    return Score(total, total + unsaid, total + unsure, top, doubtful)


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
