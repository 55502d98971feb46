"""The filter language (docs/control.md, Filters): from text to the core's Filter, with errors for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from msgspec import Struct

from fastscreen import filter_terms
from fastscreen.control.worker_rpc import Term
from fastscreen.core import EVENTS, FINDINGS, FIRST_EVIDENCE, SCORERS, STAGES, Filter
from fastscreen.escaping import quoted
from fastscreen.filter_terms import network_of, network_term

__all__ = ["Chosen", "compiled", "network_of", "network_term"]

_COMPARED = re.compile(r"(score|age)(<=|>=|<|>|=)(.*)", re.DOTALL)
_NAMED = re.compile(r"([a-z]+):(.*)", re.DOTALL)
_SCORE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_AGE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
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
    terms: list[Term] = []
    named: set[int] = set()
    others: set[int] = set()
    try:
        for word in filter_terms.words(text):
            worker = None if word.quoted else _worker(word.text)
            if worker is not None:
                (others if word.negated else named).add(worker)
            elif word.quoted:
                terms.append(_words(word.text, word.negated))
            else:
                terms.append(_term(word.text, word.negated, lists))
        Filter(terms)
    except ValueError as error:
        raise ValueError(f"filter: {error}") from None
    return Chosen(tuple(terms), frozenset(named), frozenset(others))


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
        mask = filter_terms.mask(name, value, *_MASKS[name])
        return ("finding" if name in ("failed", "evidence") else name, "=", mask, negated)
    if name == "list":
        return ("list", "=", filter_terms.lists(value, lists), negated)
    return (name, "=", filter_terms.number(name, value), negated)


def _worker(word: str) -> int | None:
    name, colon, value = word.partition(":")
    return filter_terms.number("worker", value) if colon and name == "worker" else None


def _words(text: str, negated: bool) -> Term:
    return ("text", "=", filter_terms.contained(text), negated)
