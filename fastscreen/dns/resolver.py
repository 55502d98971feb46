"""Which resolvers the system names, and the rare DNS question that the core's own UDP queries cannot settle."""

import asyncio
import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiodns
import pycares

from fastscreen.config.model import Config
from fastscreen.sockaddr import packed_ip

PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")

_DEADLINE_SECONDS = 8.0
_FIRST_TRY = 0.25  # s: the least that c-ares waits for an answer, whatever it is told
_NAMESERVERS_MAX = 3  # as resolv.conf(5)
_SIZE_MAX = 65536
# No search list, no CNAME lookup of single-label names.
_FLAGS = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES


@dataclass(frozen=True)
class Nameserver:
    """A resolver: an IPv4 address, or an IPv6 address that may have a scope (`fe80::1%eth0`), and a port."""

    address: str
    port: int = PORT

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def for_ares(self) -> str:
        """As c-ares has it, with the scope at the end; one word of another form and it takes none of them."""
        address, scope, interface = self.address.partition("%")
        return f"{Nameserver(address, self.port)}{scope}{interface}"


@dataclass(frozen=True)
class Answer:
    """What the resolvers said to one A question.

    `outcome` is "listed" (there are `addresses`), "not listed" (no such name, or no A record), or "failed" (no answer,
    SERVFAIL, a refusal). `ttl` is in s, None when no record gave one.
    """

    outcome: str
    addresses: tuple[str, ...] = ()
    ttl: int | None = None


def system_nameservers(path: Path | None = None) -> list[Nameserver]:
    """Return the nameservers that resolv.conf(5) names, at most three; 127.0.0.1 when it names none."""
    return named_in(path or RESOLV_CONF) or [Nameserver("127.0.0.1", PORT)]


def named_in(path: Path) -> list[Nameserver]:
    """Those of a resolv.conf(5). Options are ignored, as is a line without an address. The file need not exist."""
    try:
        with path.open("rb") as file:
            text = file.read(_SIZE_MAX).decode("ascii", "replace")
    except OSError:
        text = ""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(Nameserver(str(address), PORT))
    return found[:_NAMESERVERS_MAX]


def nameservers(config: Config) -> list[Nameserver]:
    """Those of the configuration, or the system's."""
    return [Nameserver(server.host, server.port) for server in config.dnsbl.resolvers] or system_nameservers()


def askable(servers: Sequence[Nameserver]) -> tuple[dict[Nameserver, bytes], list[str]]:
    """The servers' addresses as the kernel has them, and a line about each server that is omitted as unusable."""
    usable, problems = {}, []
    for server in servers:
        try:
            usable[server] = packed_ip(server.address, server.port)
        except OSError as error:
            problems.append(f"resolver {server} cannot be asked: {error.strerror or error}")
    return usable, problems


def asker(nameservers: Sequence[Nameserver], seconds: float, *, tcp: bool = False) -> aiodns.DNSResolver:
    """A resolver of aiodns that keeps trying for at least this many seconds without an answer.

    A try ends after five times the duration of recent answers, which is about a millisecond if the name server has most
    answers cached: then c-ares waits 0.25 s, and each further time about twice as long, between half of that and all of
    it. The number of tries therefore decides how long it waits for a name that is new to the name server. The caller
    limits the total time. Raises aiodns.error.DNSError: no descriptors, no thread.
    """
    tries = math.ceil(math.log2(max(4.0, seconds / _FIRST_TRY * 2 / len(nameservers))))
    # Servers are set explicitly: else resolv.conf would be watched for them.
    return aiodns.DNSResolver(
        nameservers=[nameserver.for_ares for nameserver in nameservers],
        timeout=_FIRST_TRY,
        tries=tries,
        flags=_FLAGS | (pycares.ARES_FLAG_USEVC if tcp else 0),
    )


class TcpResolver:
    """Repeats truncated queries over TCP. One per process, because each has a thread and an inotify watch."""

    def __init__(self, nameservers: Sequence[Nameserver]) -> None:
        self._nameservers = list(nameservers)
        self._resolver: aiodns.DNSResolver | None = None

    async def query_a(self, name: str) -> Answer:
        """Ask for the A records of `name`. Takes at most 8 s; never raises but for cancellation."""
        if self._resolver is None:
            self._resolver = asker(self._nameservers, _DEADLINE_SECONDS, tcp=True)
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                result = await self._resolver.query_dns(name, "A")
        except aiodns.error.DNSError as error:
            absent = error.args[0] in (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA)
            return Answer("not listed" if absent else "failed")
        except (TimeoutError, ValueError):
            return Answer("failed")
        addresses = []
        ttls = []
        for record in result.answer:
            ttls.append(record.ttl)
            if isinstance(record.data, pycares.ARecordData):
                addresses.append(record.data.addr)
        if addresses:
            return Answer("listed", tuple(addresses), min(ttls))
        negative = [
            min(record.ttl, record.data.minimum)
            for record in result.authority
            if isinstance(record.data, pycares.SOARecordData)
        ]
        return Answer("not listed", (), min(negative, default=None))

    async def close(self) -> None:
        """Give up what is being asked, and the thread."""
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None
