"""The filter language (docs/control.md, Filters): from text to the core's Filter, with errors for people."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from fastscreen.control.worker_rpc import Term
from fastscreen.core import EVENTS, FINDINGS, FIRST_EVIDENCE, SCORERS, STAGES, Filter
from fastscreen.escaping import quoted

MAX_TEXT = 1024  # characters of a filter
MAX_WORD = 64  # bytes that the core compares

_TOKEN = re.compile(r'\s*(-?)(?:"((?:[^"\\]|\\.)*)"(?=\s|$)|(\S+))', re.DOTALL)
_COMPARED = re.compile(r"(score|age)(<=|>=|<|>|=)(.*)", re.DOTALL)
_NAMED = re.compile(r"([a-z]+):(.*)", re.DOTALL)
_SCORE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_AGE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_EVIDENCE = (*("",) * FIRST_EVIDENCE, *(scorer.key for scorer in SCORERS))  # by bit
_MASKS = {
    "stage": (STAGES[:-1], STAGES),
    "kind": (EVENTS[1:-1], EVENTS),
    "failed": (FINDINGS, FINDINGS),
    "evidence": (_EVIDENCE[FIRST_EVIDENCE + 1 :], _EVIDENCE),
}
_FIELDS = (*_MASKS, "list", "session", "port", "worker")


class Chosen(Struct, frozen=True):
    """What a filter chooses. terms: the same for a worker. workers, others: those that it names, those it excludes."""

    terms: tuple[Term, ...] = ()
    workers: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()

    def worker(self, number: int) -> bool:
        """Whether anything of this worker's (from 1) can match."""
        return (not self.workers or self.workers == {number}) and number not in self.others

    def filter(self) -> Filter:
        return Filter(self.terms)

    def with_term(self, term: Term) -> Chosen:
        return Chosen((*self.terms, term), self.workers, self.others)


def compiled(text: str, lists: Sequence[str] = ()) -> Chosen:
    """Read a filter. lists: the DNSBL names as they are shown, by index. ValueError: one line."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"filter: longer than {MAX_TEXT} characters")
    terms: list[Term] = []
    named: set[int] = set()
    others: set[int] = set()
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or (found[2] is None and found[3].startswith('"')):
            raise ValueError('filter: a quotation mark is missing; example: "several words"')
        at = found.end()
        negated = bool(found[1])
        try:
            if found[2] is not None:
                terms.append(_words(re.sub(r"\\(.)", r"\1", found[2], flags=re.DOTALL), negated))
                continue
            worker = _worker(found[3])
            if worker is None:
                terms.append(_term(found[3], negated, lists))
            else:
                (others if negated else named).add(worker)
        except ValueError as error:
            raise ValueError(f"filter: {error}") from None
    try:
        Filter(terms)
    except ValueError as error:
        raise ValueError(f"filter: {error}") from None
    return Chosen(tuple(terms), frozenset(named), frozenset(others))


def network_term(network: ipaddress.IPv4Network | ipaddress.IPv6Network, negated: bool = False) -> Term:
    """A term for the addresses of a network."""
    ends = (network.network_address.packed, network.broadcast_address.packed)
    return ("network", "=", (network.version, *(end.ljust(16, b"\0") for end in ends)), negated)


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or a network, as the core counts it: IPv4-mapped IPv6 is IPv4. ValueError."""
    if "%" in text:
        raise ValueError("a scope belongs to no client")
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _term(word: str, negated: bool, lists: Sequence[str]) -> Term:
    try:
        return network_term(network_of(word), negated)
    except ValueError:
        pass
    if compared := _COMPARED.fullmatch(word):
        return _comparison(compared[1], compared[2], compared[3], negated)
    if named := _NAMED.fullmatch(word):
        name, value = named[1], named[2]
        if name in _FIELDS:
            return _field(name, value, negated, lists)
        if near := get_close_matches(name, _FIELDS, 1, 0.75):
            raise ValueError(f'{quoted(word)}: did you mean "{near[0]}:"? text stands in quotation marks')
    return _words(word, negated)


def _comparison(name: str, operator: str, value: str, negated: bool) -> Term:
    whole = f"{name}{operator}"
    example = "score>=3" if name == "score" else "age>10"
    if not value:
        raise ValueError(f"{whole}: a number is missing; example: {example}")
    if not (_SCORE if name == "score" else _AGE).fullmatch(value):
        raise ValueError(f"{whole}: {quoted(value)} is not a number that it can be; example: {example}")
    return (name, operator, int(value) if name == "score" else round(float(value) * 1e6), negated)


def _field(name: str, value: str, negated: bool, lists: Sequence[str]) -> Term:
    if name in _MASKS:
        allowed, numbered = _MASKS[name]
        mask = 0
        for one in value.split(","):
            if one not in allowed:
                raise ValueError(f"{name}:{_cut(one)} is unknown; expected {', '.join(allowed)}")
            mask |= 1 << numbered.index(one)
        return ("finding" if name in ("failed", "evidence") else name, "=", mask, negated)
    if name == "list":
        wanted = value.lower().rstrip(".")
        indexes: Any = [at for at, shown in enumerate(lists) if shown.lower().rstrip(".") == wanted]
        if not indexes:
            known = f"; there are {', '.join(lists)}" if lists else "; none is configured"
            raise ValueError(f"list:{_cut(value)} is unknown{known}")
        return ("list", "=", indexes, negated)
    return (name, "=", _number(name, value), negated)


def _number(name: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{name}:{_cut(value)}: a number is wanted; example: {name}:1")
    return int(value)


def _worker(word: str) -> int | None:
    name, colon, value = word.partition(":")
    return _number("worker", value) if colon and name == "worker" else None


def _words(text: str, negated: bool) -> Term:
    octets = text.encode("utf-8", "surrogatepass")
    if not octets or text == "-":
        raise ValueError("a term is empty; - stands in front of one")
    if not text.isprintable():
        raise ValueError("control characters cannot be searched for")
    if len(octets) > MAX_WORD:
        raise ValueError(f"{quoted(text, 20)}: longer than {MAX_WORD} bytes")
    return ("text", "=", octets, negated)


def _cut(text: str) -> str:
    return quoted(text, 60)[1:-1]
