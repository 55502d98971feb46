"""DNSBL sites: `domain[=filter][*weight]` (reference 4.1)."""

from __future__ import annotations

import re

from fastscreen.config.model import Site
from fastscreen.escaping import quoted

FORM = "domain[=d.d.d.d][*weight], where each d is a number from 0 to 255 or a set such as [2;4..7]"
GRAMMAR = f"expected {FORM}"

_WEIGHT = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_OCTET = re.compile(r"[0-9]{1,3}", re.ASCII)
_EVERY = b"\xff" * 32


def parse_site(text: str) -> Site:
    """Read one site. Raises ValueError with postscreen's wording and the expected form."""
    rest, star, factor = text.partition("*")
    domain, equals, pattern = rest.partition("=")
    weight = 1
    if star:
        if not _WEIGHT.fullmatch(factor):
            raise ValueError(f"bad DNSBL weight factor {quoted(factor)} in {quoted(text)}; expected a whole number")
        weight = int(factor)
    if len(domain) > 253 or not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise ValueError(f"bad DNSBL domain name {quoted(domain)} in {quoted(text)}; {GRAMMAR}")
    octets = _parse_filter(pattern, text) if equals else None
    return Site(domain, octets, weight)


def _parse_filter(pattern: str, site: str) -> tuple[bytes, bytes, bytes, bytes] | None:
    """The four sets of a filter; None when it lets every answer through."""

    def bad(why: str) -> ValueError:
        return ValueError(f"bad DNSBL filter syntax: {why} in {quoted(site)}; {GRAMMAR}")

    fields: list[bytes] = []
    at = 0
    end = len(pattern)
    # The whole pattern may be in brackets: `[127.0.0.1]`. Even then, each field may be in brackets, too.
    if pattern.startswith("[") and pattern.endswith("]") and _closes_at_end(pattern):
        at, end = 1, end - 1
    while True:
        if at < end and pattern[at] == "[":
            close = pattern.find("]", at, end)
            if close < 0:
                raise bad('missing "]"')
            members = bytearray(32)
            for member in pattern[at + 1 : close].split(";"):
                low, dots, high = member.partition("..")
                if not _is_octet(low) or (dots and not _is_octet(high)):
                    raise bad(f"bad set member {quoted(member)}")
                first, last = int(low), int(high) if dots else int(low)
                if first > last:
                    raise bad(f"bad range {quoted(member)}")
                for value in range(first, last + 1):
                    members[value >> 3] |= 1 << (value & 7)
            at = close + 1
        else:
            stop = at
            while stop < end and pattern[stop] not in ".[]":
                stop += 1
            number = pattern[at:stop]
            if not _is_octet(number):
                raise bad(f"bad octet value {quoted(number)}")
            members = bytearray(32)
            members[int(number) >> 3] |= 1 << (int(number) & 7)
            at = stop
        fields.append(bytes(members))
        if at == end:
            break
        if pattern[at] != ".":
            raise bad(f'expected "." at {quoted(pattern[at:])}')
        at += 1
    if len(fields) != 4:
        raise bad(f"{len(fields)} octets instead of 4")
    one, two, three, four = fields
    return None if one == two == three == four == _EVERY else (one, two, three, four)


def _closes_at_end(pattern: str) -> bool:
    """Whether the bracket that opens the pattern is the one that ends it: `[1.2.3.[4;5]]`, not `[1].[2].[3].[4]`."""
    depth = 0
    for at, char in enumerate(pattern):
        depth += (char == "[") - (char == "]")
        if depth == 0:
            return at == len(pattern) - 1
    return False


def _is_octet(text: str) -> bool:
    return _OCTET.fullmatch(text) is not None and int(text) <= 255
