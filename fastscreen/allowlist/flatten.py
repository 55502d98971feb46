"""The networks that pass a domain's SPF check (RFC 7208), from its record and all records that this refers to.

An SPF check is made for one client; here it is made for all addresses at once. The first mechanism that matches decides
for each address separately: `-ip4:192.0.2.1 ip4:192.0.2.0/24` is the /24 without that address. Mechanisms that depend
on more than the client's address (exists, ptr, macros) cannot be evaluated in advance: they are omitted and reported.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from msgspec import Struct

from fastscreen.allowlist import spf
from fastscreen.allowlist.networks import Covered, Network
from fastscreen.allowlist.spf import Mechanism, SpfError
from fastscreen.escaping import escape_text

MAX_LOOKUPS = 10  # RFC 7208 section 4.6.4: terms that ask the DNS
MAX_VOIDS = 2  # the same: questions without an answer
MAX_EXCHANGES = 10  # the same: names of one mx
MAX_NETWORKS = 10_000  # of one domain; the largest senders have some hundreds


class Questions(Protocol):
    """The DNS. An empty answer: no such name, or no record of this type. SpfError (temperror): no answer at all."""

    async def texts(self, name: str) -> list[bytes]:
        """TXT records, each with its strings put together."""
        ...

    async def addresses(self, name: str) -> list[str]:
        """A and AAAA records."""
        ...

    async def exchanges(self, name: str) -> list[str]:
        """Names of MX records."""
        ...


class Flat(Struct, frozen=True):
    """networks: not aggregated. omitted: `TERM in DOMAIN` for each mechanism that cannot be evaluated in advance."""

    networks: list[Network]
    omitted: list[str]
    lookups: int
    voids: int


async def flatten(domain: str, ask: Questions) -> Flat:
    """SpfError: no record, a wrong one, too many look-ups, or no answer; the text says which, and where."""
    walk = _Walk(ask)
    networks = await walk.passing(domain, ())
    return Flat(networks, list(dict.fromkeys(walk.omitted)), walk.lookups, walk.voids)


class _Walk:
    """One evaluation: what is counted is counted over all records of it."""

    def __init__(self, ask: Questions) -> None:
        self._ask = ask
        self.lookups = 0
        self.voids = 0
        self.omitted: list[str] = []
        self._networks = 0

    async def passing(self, domain: str, path: tuple[str, ...]) -> list[Network]:
        """The networks whose check_host() for a domain is "pass". path: the domains that led here."""
        if domain in path:
            raise SpfError("permerror", f"loop: {escape_text(' -> '.join((*path, domain)), 500)}")
        path = (*path, domain)
        record = spf.parse(spf.select(await self._ask.texts(domain), escape_text(domain)), domain)
        passed: list[Network] = []
        decided = Covered()  # by a mechanism with another result
        for mechanism in record.mechanisms:
            if mechanism.name == "all":
                if mechanism.qualifier == "+":
                    self._omit(mechanism, domain)  # matches every client, so it is not a list of networks
                break
            matched = await self._matched(mechanism, domain, path)
            if mechanism.qualifier == "+":
                self._add(passed, decided.outside(matched), domain)
            else:
                decided.add(matched)
        if record.redirect is not None:
            rest = await self._redirected(record.redirect, domain, path)
            self._add(passed, decided.outside(rest), domain)
        return passed

    async def _redirected(self, redirect: Mechanism, domain: str, path: tuple[str, ...]) -> list[Network]:
        self._count(redirect, domain)
        if redirect.macro:
            return self._omit(redirect, domain)
        return await self._other(redirect, path)

    async def _matched(self, mechanism: Mechanism, domain: str, path: tuple[str, ...]) -> list[Network]:
        if mechanism.network is not None:
            return self._counted([mechanism.network], domain)
        self._count(mechanism, domain)
        if mechanism.macro or mechanism.name in ("exists", "ptr"):
            return self._omit(mechanism, domain)
        if mechanism.name == "include":
            return await self._other(mechanism, path)
        name = mechanism.domain or domain
        if mechanism.name == "a":
            return await self._hosts([name], mechanism, domain)
        exchanges = await self._ask.exchanges(name)
        if not exchanges:
            self._count_void(name)
        if len(exchanges) > MAX_EXCHANGES:
            why = f"{len(exchanges)} MX records; expected at most {MAX_EXCHANGES}"
            raise SpfError("permerror", f"{escape_text(domain)}: {escape_text(mechanism.text)}: {why}")
        return await self._hosts([exchange for exchange in exchanges if exchange != "."], mechanism, domain)

    async def _other(self, mechanism: Mechanism, path: tuple[str, ...]) -> list[Network]:
        """Another domain's record; to have none is an error here (sections 5.2 and 6.1)."""
        try:
            return await self.passing(mechanism.domain, path)
        except SpfError as error:
            raise SpfError("temperror" if error.kind == "temperror" else "permerror", str(error)) from None

    async def _hosts(self, names: Sequence[str], mechanism: Mechanism, domain: str) -> list[Network]:
        found: list[Network] = []
        for name in names:
            addresses = await self._ask.addresses(name)
            if not addresses:
                self._count_void(name)
            for text in addresses:
                address = ipaddress.ip_address(text)
                bits = mechanism.ipv4 if address.version == 4 else mechanism.ipv6
                found.append(ipaddress.ip_network((address, bits), strict=False))
        return self._counted(found, domain)

    def _count(self, mechanism: Mechanism, domain: str) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            where = f"{escape_text(domain)}: {escape_text(mechanism.text)}"
            raise SpfError("permerror", f"more than {MAX_LOOKUPS} look-ups (RFC 7208 4.6.4), at {where}")

    def _count_void(self, name: str) -> None:
        self.voids += 1
        if self.voids > MAX_VOIDS:
            why = f"more than {MAX_VOIDS} look-ups without an answer (RFC 7208 4.6.4), the last of {escape_text(name)}"
            raise SpfError("permerror", why)

    def _add(self, passed: list[Network], more: Iterable[Network], domain: str) -> None:
        passed += islice(more, MAX_NETWORKS + 1)
        if len(passed) > MAX_NETWORKS:
            raise self._too_many(domain)

    def _counted(self, networks: list[Network], domain: str) -> list[Network]:
        self._networks += len(networks)
        if self._networks > MAX_NETWORKS:
            raise self._too_many(domain)
        return networks

    def _too_many(self, domain: str) -> SpfError:
        return SpfError("permerror", f"{escape_text(domain)}: more than {MAX_NETWORKS:,} networks")

    def _omit(self, mechanism: Mechanism, domain: str) -> list[Network]:
        self.omitted.append(f"{escape_text(mechanism.text)} in {escape_text(domain)}")
        return []
