"""Whose networks are looked up: the providers of `providers.toml` by group or name, and configured domains."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

OWN = "own"
"""The group of domains that the configuration names."""


class Source(Struct, frozen=True):
    """One provider. name: a word, or the domain itself when it is one's own."""

    name: str
    group: str
    domains: tuple[str, ...]


@cache
def known() -> tuple[Source, ...]:
    """All providers of `providers.toml`, in its order."""
    with Path(__file__).with_name("providers.toml").open("rb") as file:
        groups = tomllib.load(file)
    return tuple(
        Source(name, group, tuple(domains)) for group, names in groups.items() for name, domains in names.items()
    )


def groups() -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.group for source in known()))


def chosen(
    groups: Iterable[str], names: Iterable[str], domains: Iterable[str], exclude: Iterable[str] = ()
) -> Sequence[Source]:
    """Those of the groups, those by name, and the domains; without what is excluded, a name or a domain."""
    out = set(exclude)

    def each() -> Iterator[Source]:
        wanted, named = set(groups), set(names)
        for source in known():
            if (source.group not in wanted and source.name not in named) or source.name in out:
                continue
            if left := tuple(domain for domain in source.domains if domain not in out):
                yield Source(source.name, source.group, left)
        for domain in domains:
            if domain not in out:
                yield Source(domain, OWN, (domain,))

    return tuple({source.name: source for source in each()}.values())
