"""Checks of DNS: the resolvers, and the health of the lists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from fastscreen.cli.check_mta import ProbeError, try_resolver
from fastscreen.config import Config, Endpoint
from fastscreen.dns.health import known_lists
from fastscreen.dns.health.monitor import NONE_HAS_ENTRIES
from fastscreen.dns.health.probe import TIMEOUT, Finding, Prober, probe
from fastscreen.dns.health.state import Why
from fastscreen.dns.resolver import nameservers, system_nameservers

Found = tuple[str, bool, str] | tuple[str, bool, str, bool]
"""The fields of check.Check."""


def checked_resolvers(config: Config) -> Iterator[Found]:
    """Ask each resolver for the test entry of the first list."""
    if not config.dnsbl.sites:
        return
    resolvers = config.dnsbl.resolvers
    origin = ""
    if not resolvers:
        resolvers = tuple(Endpoint(server.address, server.port) for server in system_nameservers())
        origin = " (resolv.conf)"
    for resolver in resolvers:
        name = f"{resolver}{origin}"
        if refusing := known_lists.refused(config.dnsbl.domains, resolver.host):
            detail = f"{name}: is a public resolver, and is refused by {', '.join(refusing)}; use your own resolver"
            yield ("dnsbl.resolvers", False, detail)
        try:
            answer = try_resolver(resolver, config.dnsbl.sites[0].domain)
        except ProbeError as error:
            yield ("dnsbl.resolvers", False, f"{name}: {error}")
        else:
            yield ("dnsbl.resolvers", True, f"{name}: {answer}")


def checked_lists(config: Config) -> Iterator[Found]:
    """Check each list like the daemon, and compare it with what is known about it."""
    domains = config.dnsbl.domains
    findings = asyncio.run(_probed(domains, config))
    for domain, finding in zip(domains, findings, strict=True):
        if closed := known_lists.obituary(domain):
            yield ("dnsbl.sites", False, f"{domain}: {closed}; remove it")
        elif finding.why is Why.EMPTY:
            detail = f"{domain}: the test entry 127.0.0.2 (RFC 5782) is missing, so the health of the list is unknown"
            yield ("dnsbl.sites", not known_lists.registry(domain), detail + _registration(domain), True)
        elif finding.why is not Why.NOTHING:
            detail = f" ({finding.detail})" if finding.detail else ""
            yield ("dnsbl.sites", False, f"{domain}: {finding.why.text}{detail}{_registration(domain)}")
        else:
            yield ("dnsbl.sites", True, f"{domain}: {finding.detail}")
    if len(findings) > 1 and all(finding.why is Why.EMPTY for finding in findings):
        yield ("dnsbl.resolvers", True, NONE_HAS_ENTRIES, True)


def _registration(domain: str) -> str:
    url = known_lists.registry(domain)
    return f"; it only answers registered resolvers: {url}" if url else ""


async def _probed(domains: Iterable[str], config: Config) -> list[Finding]:
    prober = Prober(nameservers(config), TIMEOUT)
    try:
        return await asyncio.gather(*(probe(domain, prober.ask) for domain in domains))
    finally:
        await prober.close()
