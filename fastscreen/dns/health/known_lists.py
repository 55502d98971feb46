"""What is known of DNS lists beforehand (known_lists.toml): which are closed, and whose questions which refuse."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files

from msgspec import Struct, convert

_FILE = "known_lists.toml"


class _Public(Struct, forbid_unknown_fields=True):
    lists: list[str]
    resolvers: list[str]


class _Known(Struct, forbid_unknown_fields=True):
    dead: dict[str, str]
    refuses_public_resolvers: _Public
    wants_registration: dict[str, str]


# read at once: as the user that `check` becomes, this file and Python's own may be out of reach
_KNOWN = convert(tomllib.loads(files("fastscreen.dns.health").joinpath(_FILE).read_text(encoding="utf-8")), _Known)


def obituary(domain: str) -> str:
    """What has become of a list that is closed; empty: nothing is known."""
    return _of(domain, _KNOWN.dead) or ""


def registry(domain: str) -> str:
    """Where a list wants to be told the resolver's address first; empty: nowhere."""
    return _of(domain, _KNOWN.wants_registration) or ""


def refused(domains: Iterable[str], resolver: str) -> list[str]:
    """Those of the lists that do not answer this resolver, because it is everybody's."""
    public = _KNOWN.refuses_public_resolvers
    if resolver not in public.resolvers:
        return []
    return [domain for domain in domains if _of(domain, dict.fromkeys(public.lists, "yes"))]


def _of(domain: str, what: Mapping[str, str]) -> str | None:
    labels = domain.lower().rstrip(".").split(".")
    return next((what[name] for at in range(len(labels)) if (name := ".".join(labels[at:])) in what), None)
