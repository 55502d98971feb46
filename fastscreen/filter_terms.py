"""What the filters of the live view and of the history have in common: how text becomes terms, and what is said of
terms that are wrong."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from typing import Any, NamedTuple

from fastscreen.escaping import quoted

MAX_TEXT = 1024  # characters of a filter
MAX_WORD = 64  # bytes that the core compares

_TOKEN = re.compile(r'\s*(-?)(?:"((?:[^"\\]|\\.)*)"(?=\s|$)|(\S+))', re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

Term = tuple[str, str, Any, bool]
"""A term as the core has it: field, operator, value, negated."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Word(NamedTuple):
    """A term as it was written. quoted: in quotation marks, which are gone."""

    text: str
    negated: bool
    quoted: bool


def words(text: str) -> Iterator[Word]:
    """The terms of a filter. ValueError."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT} characters")
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or (found[2] is None and found[3].startswith('"')):
            raise ValueError('a quotation mark is missing; example: "several words"')
        at = found.end()
        if found[2] is None:
            yield Word(found[3], bool(found[1]), False)
        else:
            yield Word(re.sub(r"\\(.)", r"\1", found[2], flags=re.DOTALL), bool(found[1]), True)


def network_term(network: Network, negated: bool = False, field: str = "network") -> Term:
    """A term for the addresses of a network."""
    ends = (network.network_address.packed, network.broadcast_address.packed)
    return (field, "=", (network.version, *(end.ljust(16, b"\0") for end in ends)), negated)


def network_of(text: str) -> Network:
    """An address or a network, as the core counts it: IPv4-mapped IPv6 is IPv4. ValueError."""
    if "%" in text:
        raise ValueError("a scope belongs to no client")
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def number(name: str, value: str) -> int:
    """The number in `port:25`. ValueError."""
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{name}:{cut(value)}: a number is wanted; example: {name}:1")
    return int(value)


def mask(name: str, value: str, expected: Sequence[str], numbered: Sequence[str]) -> int:
    """The bits of one or more names with commas between them. ValueError."""
    found = 0
    for one in value.split(","):
        if one not in expected:
            raise ValueError(f"{name}:{cut(one)} is unknown; expected {', '.join(expected)}")
        found |= 1 << numbered.index(one)
    return found


def lists(value: str, names: Sequence[str]) -> list[int]:
    """The lists that `list:NAME` means, by index: that name, a pattern with `*`, or the only name that begins so.

    ValueError: none, or several that begin so.
    """
    plain = [name.lower().rstrip(".") for name in names]
    wanted = value.lower().rstrip(".")
    if "*" in wanted:
        matches: Callable[[str], Any] = re.compile(translate(wanted.replace("[", "[[]"))).match
        found = [at for at, name in enumerate(plain) if matches(name)]
    else:
        found = [at for at, name in enumerate(plain) if name == wanted]
        if not found and wanted:
            found = [at for at, name in enumerate(plain) if name.startswith(wanted)]
            several = sorted({names[at] for at in found})
            if len(several) > 1:
                raise ValueError(f"list:{cut(value)} is the beginning of {' and '.join(several)}; with * it means all")
    if not found:
        known = f"; there are {', '.join(names)}" if names else "; none is configured"
        raise ValueError(f"list:{cut(value)} is unknown{known}")
    return found


def contained(text: str) -> bytes:
    """What a text must contain, as the core compares it. ValueError."""
    octets = text.encode("utf-8", "surrogatepass")
    if not octets or text == "-":
        raise ValueError("a term is empty; - stands in front of one")
    if not text.isprintable():
        raise ValueError("control characters cannot be searched for")
    if len(octets) > MAX_WORD:
        raise ValueError(f"{quoted(text, 20)}: longer than {MAX_WORD} bytes")
    return octets


def cut(text: str) -> str:
    """A value for a message."""
    return quoted(text, 60)[1:-1]
