"""What the DNSBL lists say of an address now, asked for a person: with aiodns, in nobody's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import aiodns
import pycares
from msgspec import Struct

from fastscreen.dns.dnsbl_names import is_listing, question
from fastscreen.dns.resolver import Nameserver, asker


class Said(Struct, frozen=True):
    """state: "listed" (there are addresses), "not listed" or "failed". took: s."""

    state: str
    addresses: tuple[str, ...] = ()
    took: float = 0.0


async def ask_lists(
    address: str, domains: Iterable[str], nameservers: Sequence[Nameserver], seconds: float
) -> dict[str, Said]:
    """Ask all at once; what is not there after so many seconds is "failed". Never raises but for cancellation."""
    domains = list(domains)
    if not domains:
        return {}
    # A new resolver each time, because a resolver caches answers.
    resolver = asker(nameservers, seconds)
    try:
        said = await asyncio.gather(*(_ask(resolver, address, domain, seconds) for domain in domains))
        return dict(zip(domains, said, strict=True))
    finally:
        await resolver.close()


async def _ask(resolver: aiodns.DNSResolver, address: str, domain: str, seconds: float) -> Said:
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            result = await resolver.query_dns(question(address, domain), "A")
    except aiodns.error.DNSError as error:
        absent = error.args[0] in (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA)
        return Said("not listed" if absent else "failed", (), time.monotonic() - began)
    except (TimeoutError, ValueError):
        return Said("failed", (), time.monotonic() - began)
    took = time.monotonic() - began
    found = [record.data.addr for record in result.answer if isinstance(record.data, pycares.ARecordData)]
    listings = tuple(each for each in found if is_listing(each, domain))
    if found and not listings:
        return Said("failed", (), took)  # 'you are blocked' says nothing of the client
    return Said("listed" if listings else "not listed", listings, took)
