"""Addresses, records and dialogues to measure with. All of it is random with a fixed seed, so runs can be compared."""

import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, count

from fastscreen.cache.stamps import DISABLED, pack_stamps

_PREFIX6 = bytes.fromhex("20010db8")
_SHARE6 = 10  # one address in so many is IPv6
_CHUNK = 10_000
_ABSENT_SEED = 1_000_000
_NOW = 1_800_000_000  # s since 1970: any time will do, its length counts
_DAY = 86400

# A client's side of one session; nine commands.
_DIALOGUE = (
    b"EHLO mail.example.com\r\n",
    b"MAIL FROM:<bounces+12345@news.example.com> SIZE=48213 BODY=8BITMIME\r\n",
    b"RCPT TO:<someone@example.org>\r\n",
    b"RCPT TO:<someone.else@example.org> NOTIFY=NEVER\r\n",
    b"NOOP\r\n",
    b"RSET\r\n",
    b"mail from:<>\r\n",
    b"rcpt to:<postmaster@example.org>\r\n",
    b"QUIT\r\n",
)


def commands(number: int) -> list[bytes]:
    """SMTP commands, each with its CRLF, as they come in dialogues."""
    return [_DIALOGUE[at % len(_DIALOGUE)] for at in range(number)]


def keys(seed: int, number: int) -> Iterator[bytes]:
    """Packed addresses as in the cache: 4 bytes, one in ten 16 bytes. A few appear twice."""
    octets = random.Random(seed).randbytes(number * 12)
    for at in range(number):
        if at % _SHARE6:
            yield octets[at * 12 : at * 12 + 4]
        else:
            yield _PREFIX6 + octets[at * 12 : at * 12 + 12]


def present() -> Iterator[bytes]:
    """The clients of the cache files, without end: a file of n entries has the first n of them."""
    return chain.from_iterable(keys(seed, _CHUNK) for seed in count())


def absent() -> Iterator[bytes]:
    """Clients that are not in the cache files, except a few in a thousand."""
    return chain.from_iterable(keys(seed, _CHUNK) for seed in count(_ABSENT_SEED))


def addresses(seed: int, number: int) -> list[str]:
    """The same as text."""
    return [str(IPv4Address(key) if len(key) == 4 else IPv6Address(key)) for key in keys(seed, number)]


def records() -> list[bytes]:
    """Records of clients that passed at some time of a day, as they are stored when the deep tests are off."""
    source = random.Random(0)
    return [
        pack_stamps((_NOW + source.randrange(_DAY), _NOW + source.randrange(3600), DISABLED, DISABLED, DISABLED))
        for _ in range(1000)
    ]
