"""The DNS questions of a refresh, through aiodns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiodns
import pycares

from fastscreen.allowlist.spf import SpfError
from fastscreen.config.model import Config
from fastscreen.dns.resolver import Nameserver, asker, system_nameservers
from fastscreen.escaping import escape_text

_DEADLINE_SECONDS = 15.0
_ABSENT = (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA)
_WHY = {
    aiodns.error.ARES_ESERVFAIL: "SERVFAIL",
    aiodns.error.ARES_EREFUSED: "refused",
    aiodns.error.ARES_ETIMEOUT: "no answer",
    aiodns.error.ARES_ECONNREFUSED: "no resolver answers",
}


def nameservers_of(config: Config) -> list[Nameserver]:
    """Those that are asked for lists, too."""
    if config.dnsbl.resolvers:
        return [Nameserver(each.host, each.port) for each in config.dnsbl.resolvers]
    return system_nameservers()


class Dns:
    """`flatten.Questions`, asked of these name servers; UDP, and TCP for what does not fit. One a process."""

    def __init__(self, nameservers: Sequence[Nameserver]) -> None:
        self._resolver = asker(nameservers, _DEADLINE_SECONDS)

    async def texts(self, name: str) -> list[bytes]:
        records = await self._query(name, "TXT")
        return [record.data.data for record in records if isinstance(record.data, pycares.TXTRecordData)]

    async def addresses(self, name: str) -> list[str]:
        found = []
        for kind in ("A", "AAAA"):
            for record in await self._query(name, kind):
                if isinstance(record.data, pycares.ARecordData | pycares.AAAARecordData):
                    found.append(record.data.addr)
        return found

    async def exchanges(self, name: str) -> list[str]:
        records = await self._query(name, "MX")
        return [
            record.data.exchange.lower() or "." for record in records if isinstance(record.data, pycares.MXRecordData)
        ]

    async def close(self) -> None:
        """Give up what is being asked, and the thread."""
        await self._resolver.close()

    async def _query(self, name: str, kind: str) -> list[pycares.DNSRecord]:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return list((await self._resolver.query_dns(name, kind)).answer)
        except aiodns.error.DNSError as error:
            if error.args[0] in _ABSENT:
                return []
            why = _WHY.get(error.args[0], str(error.args[-1]))
        except TimeoutError:
            why = "no answer"
        except ValueError:
            why = "not a name that can be asked for"
        raise SpfError("temperror", f"{escape_text(name)} {kind}: {why}")
