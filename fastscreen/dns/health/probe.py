"""One look at one list: are its test entries as RFC 5782 section 5 says?"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import aiodns
import pycares
from msgspec import Struct

from fastscreen.dns.dnsbl_names import is_listing, question
from fastscreen.dns.health.state import Why
from fastscreen.dns.resolver import Nameserver, asker

TIMEOUT = 10.0
"""s, for the answer to one question: what comes later comes too late for most greet waits."""

LISTED, UNLISTED = "127.0.0.2", "127.0.0.1"
LISTED_6, UNLISTED_6 = "::ffff:7f00:2", "::ffff:7f00:1"


class Outcome(Enum):
    """What a question came to. ABSENT: no such name, or no address. FAILED: SERVFAIL, REFUSED, nothing readable."""

    ANSWERED = "answered"
    ABSENT = "absent"
    SILENT = "silent"
    FAILED = "failed"


class Reply(Struct, frozen=True):
    outcome: Outcome
    addresses: tuple[str, ...] = ()


Ask = Callable[[str], Awaitable[Reply]]


class Finding(Struct, frozen=True):
    """why: NOTHING, or what is the matter. tested: the test entry was there. detail: for a person."""

    why: Why = Why.NOTHING
    tested: bool = False
    detail: str = ""


async def probe(domain: str, ask: Ask) -> Finding:
    """Ask for the four test entries at once. What is wrong for sure comes first, silence last.

    And for an address that nobody asked for before: the others may be what a resolver had from the list when that was
    well, for a day and longer when it serves what has expired (RFC 8767). Whether it is listed says nothing.
    """
    clients = (LISTED, UNLISTED, LISTED_6, UNLISTED_6, new := _new_client())
    replies = await asyncio.gather(*(ask(question(client, domain)) for client in clients))
    found = dict(zip(clients, replies, strict=True))
    for client in (UNLISTED, UNLISTED_6):
        if any(is_listing(address, domain) for address in found[client].addresses):
            return Finding(Why.LISTS_ALL, detail=f"{client} is listed as {', '.join(found[client].addresses)}")
    for client, reply in found.items():
        if reply.addresses and not any(is_listing(address, domain) for address in reply.addresses):
            inside = all(ipaddress.IPv4Address(address).is_loopback for address in reply.addresses)
            detail = f"it answers {', '.join(reply.addresses)} for {client}"
            return Finding(Why.REFUSES if inside else Why.PARKED, detail=detail)
    main = [found[LISTED].outcome, found[UNLISTED].outcome, found[new].outcome]
    if Outcome.SILENT in main:
        return Finding(Why.SILENT)
    if Outcome.FAILED in main:
        return Finding(Why.FAILS)
    for client, other in ((LISTED, UNLISTED), (LISTED_6, UNLISTED_6)):  # of IPv6 addresses alone: the second
        if found[client].outcome is Outcome.ANSWERED:
            return Finding(tested=True, detail=f"lists {client} and not {other}")
    return Finding(Why.EMPTY)


def _new_client() -> str:
    """An address of this host's, as the test entries are, in 127.128.0.0/9."""
    return str(ipaddress.IPv4Address(0x7F800000 + random.getrandbits(23)))


class Prober:
    """Asks name servers, again and again until one answers. seconds: how long for one question."""

    def __init__(self, nameservers: Sequence[Nameserver], seconds: float = TIMEOUT) -> None:
        self._seconds = seconds
        self._resolver = asker(nameservers, seconds)

    async def ask(self, name: str) -> Reply:
        """Takes at most these seconds; raises nothing but cancellation."""
        try:
            async with asyncio.timeout(self._seconds):
                result = await self._resolver.query_dns(name, "A")
        except TimeoutError:
            return Reply(Outcome.SILENT)
        except ValueError:
            return Reply(Outcome.FAILED)
        except aiodns.error.DNSError as error:
            return Reply(_OUTCOMES.get(error.args[0], Outcome.FAILED))
        addresses = tuple(record.data.addr for record in result.answer if isinstance(record.data, pycares.ARecordData))
        return Reply(Outcome.ANSWERED if addresses else Outcome.ABSENT, addresses)

    async def close(self) -> None:
        await self._resolver.close()


_OUTCOMES = {
    aiodns.error.ARES_ENOTFOUND: Outcome.ABSENT,
    aiodns.error.ARES_ENODATA: Outcome.ABSENT,
    aiodns.error.ARES_ETIMEOUT: Outcome.SILENT,
}
