"""A client's name as Postfix has it: what its address points to, where that name has the address in turn."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence

import aiodns
import pycares

from fastscreen.dns.resolver import Nameserver, asker

MAX_SECONDS = 5.0
_MAX_NAME = 253  # bytes
_LABEL = r"(?!-)[a-zA-Z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}", re.ASCII)


class Reverse:
    """Queries the name servers each time: results are not cached here."""

    def __init__(self, nameservers: Sequence[Nameserver]) -> None:
        self.nameservers = list(nameservers)
        self._resolver: aiodns.DNSResolver | None = None

    async def name(self, address: str) -> str:
        """The name, in lower case; "": none that may be shown. Takes MAX_SECONDS; raises nothing but cancellation."""
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await self._verified(ipaddress.ip_address(address))
        except (aiodns.error.DNSError, TimeoutError, ValueError):
            return ""

    async def _verified(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        answers = await self._ask(address.reverse_pointer, "PTR")
        pointers = [answer.dname for answer in answers if isinstance(answer, pycares.PTRRecordData)]
        if not pointers or not is_hostname(pointers[0]):  # the first, as Postfix takes it
            return ""
        name = pointers[0].lower()
        kind = pycares.ARecordData if address.version == 4 else pycares.AAAARecordData
        for answer in await self._ask(name, "A" if address.version == 4 else "AAAA"):
            if isinstance(answer, kind) and ipaddress.ip_address(answer.addr) == address:
                return name
        return ""

    async def _ask(self, name: str, kind: str) -> list[object]:
        if self._resolver is None:
            self._resolver = asker(self.nameservers, MAX_SECONDS)
        result = await self._resolver.query_dns(name, kind)
        return [record.data for record in result.answer]

    async def close(self) -> None:
        """What is under way finds nothing."""
        if self._resolver is not None:
            resolver, self._resolver = self._resolver, None
            await resolver.close()


def is_hostname(name: object) -> bool:
    """Letters, digits, hyphens, underscores and dots, and not to be mistaken for an address."""
    return isinstance(name, str) and len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None
