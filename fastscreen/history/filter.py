"""The filter language for recorded sessions: that of the live view (docs/control.md, Filters), and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from msgspec import Struct

from fastscreen import filter_terms
from fastscreen.core import (
    FINDINGS,
    HISTORY_MARKS,
    HISTORY_OUTCOMES,
    HISTORY_TLS,
    SCORERS,
    STAGES,
    TESTS,
    HistoryFilter,
)
from fastscreen.escaping import quoted
from fastscreen.filter_terms import Network, Term, Word, network_of, network_term
from fastscreen.history import times
from fastscreen.history.fields import MARKS

END = 1 << 62
"""µs since 1970: later than any session."""

_COMPARED = re.compile(r"([a-z]+)(<=|>=|<|>|=)(.*)", re.DOTALL)
_NAMED = re.compile(r"([a-z]+):(.*)", re.DOTALL)
_SCORE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_CODE = re.compile(r"([0-9]{1,3})(\*?)", re.ASCII)
_OCTAL = re.compile(rb"\\([0-3][0-7]{2}|\\)")

_TESTS = tuple(test.key for test in TESTS)
_SCORERS = tuple(scorer.key for scorer in SCORERS)
_MARKS = tuple(MARKS.get(mark, mark) for mark in HISTORY_MARKS)
_MASKS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "stage": (STAGES[:-1], STAGES),
    "outcome": (HISTORY_OUTCOMES, HISTORY_OUTCOMES),
    "tls": (HISTORY_TLS, HISTORY_TLS),
    "found": (_TESTS, _TESTS),
    "made": (_TESTS, _TESTS),
    "evidence": (_SCORERS[1:], _SCORERS),
    "mark": (_MARKS, _MARKS),
}
_MARKS_OF_FAILURES = {name: 1 << HISTORY_MARKS.index(name) for name in FINDINGS if name in HISTORY_MARKS}
_CODES = {"verdict": "verdict", "reply": "reply", "mta": "mta", "shadow": "spared"}
_TIMES = ("since", "until", "day")
_COMPARABLE = {"score": "score>=3", "lasted": "lasted>10", "commands": "commands>5", "recipients": "recipients>1"}
_NUMBERS = ("port", "worker")
_FIELDS = (*_MASKS, *_CODES, *_TIMES, *_NUMBERS, "failed", "list", "helo", "server")
_LIVE = {"kind": "events", "session": "the numbers of live sessions", "age": "live sessions"}


class Query(Struct, frozen=True):
    """What a filter chooses. since, until: times of the end, in µs since 1970, until not included.

    terms: for HistoryFilter. network: the smallest network that a session's client must be in. timed: whether a time
    was named. alone: nothing but one address or network was named, and perhaps times.
    """

    since: int = 0
    until: int = END
    terms: tuple[Term, ...] = ()
    network: Network | None = None
    timed: bool = False
    alone: bool = False

    def compiled(self, names_of: Callable[[int], Sequence[str]]) -> HistoryFilter | None:
        """The terms for the core; None if every session matches.

        names_of: the names of the lists in the settings with this number, by index.
        """

        def lists(pattern: object, settings: int) -> int:
            chosen = frozenset(pattern if isinstance(pattern, tuple) else ())
            return sum(1 << at for at, name in enumerate(names_of(settings)[:64]) if name in chosen)

        return HistoryFilter(self.terms, lists) if self.terms else None


def query(text: str, now: float, lists: Callable[[], Sequence[str]] = lambda: ()) -> Query:
    """Read a filter. now: s since 1970. lists: all names of DNSBLs in the history. ValueError: one line."""
    reader = _Reader(now, lists)
    try:
        for word in filter_terms.words(text):
            reader.add(word)
        found = reader.query()
        found.compiled(lambda number: ())
    except ValueError as error:
        raise ValueError(f"filter: {error}") from None
    return found


class _Reader:
    def __init__(self, now: float, lists: Callable[[], Sequence[str]]) -> None:
        self._now = now
        self._lists = lists
        self._spans: list[times.Span] = []
        self._terms: list[Term] = []
        self._networks: list[Network] = []

    def query(self) -> Query:
        since = max((span.since for span in self._spans), default=0)
        until = min((span.until for span in self._spans), default=END)
        if since >= until:
            raise ValueError("no time is after since: and before until:")
        smallest = max(self._networks, key=lambda network: network.prefixlen, default=None)
        alone = len(self._terms) == len(self._networks) == 1
        return Query(since, until, tuple(self._terms), smallest, bool(self._spans), alone)

    def add(self, word: Word) -> None:
        if word.quoted:
            self._contains(word)
            return
        try:
            network = network_of(word.text)
        except ValueError:
            self._word(word)
            return
        self._terms.append(network_term(network, word.negated, "client"))
        if not word.negated:
            self._networks.append(network)

    def _word(self, word: Word) -> None:
        if compared := _COMPARED.fullmatch(word.text):
            name, operator, value = compared[1], compared[2], compared[3]
            if name in _COMPARABLE:
                self._terms.append((name, operator, _number(name, operator, value), word.negated))
                return
            self._unknown(name, word.text, tuple(_COMPARABLE), "")
        elif named := _NAMED.fullmatch(word.text):
            name, value = named[1], named[2]
            if name in _FIELDS:
                self._field(name, value, word.negated)
                return
            self._unknown(name, word.text, _FIELDS, ":")
        self._contains(word)

    def _unknown(self, name: str, whole: str, known: Sequence[str], after: str) -> None:
        if name in _LIVE:
            raise ValueError(f"{quoted(whole)}: only {_LIVE[name]} have {name}; text stands in quotation marks")
        if near := get_close_matches(name, known, 1, 0.75):
            raise ValueError(f'{quoted(whole)}: did you mean "{near[0]}{after}"? text stands in quotation marks')

    def _contains(self, word: Word) -> None:
        self._terms.append(("text", "=", filter_terms.contained(word.text), word.negated))

    def _field(self, name: str, value: str, negated: bool) -> None:
        if not value:
            raise ValueError(f"{name}: is empty; expected {_EXAMPLES[name]}")
        if name in _TIMES:
            if negated:
                raise ValueError(f"-{name}: a time cannot be negated; use {'until' if name == 'since' else 'since'}:")
            self._spans.append(self._span(name, value))
            return
        found: object
        if name in _MASKS:
            found = filter_terms.mask(name, value, *_MASKS[name])
            if name == "tls" and "used" in value.split(","):
                found |= 1 << HISTORY_TLS.index("1.2") | 1 << HISTORY_TLS.index("1.3")
        elif name == "failed":
            bits = filter_terms.mask(name, value, FINDINGS, FINDINGS)
            marks = sum(mark for key, mark in _MARKS_OF_FAILURES.items() if bits >> FINDINGS.index(key) & 1)
            found = (bits & (1 << len(_TESTS)) - 1, marks)
        elif name in _CODES:
            found = tuple(_code(name, one) for one in value.split(","))
        elif name == "list":
            known = tuple(self._lists())
            found = tuple(known[at] for at in filter_terms.lists(value, known))
        elif name == "server":
            try:
                self._terms.append(network_term(network_of(value), negated, "server"))
            except ValueError:
                raise ValueError(
                    f"server:{filter_terms.cut(value)} is not an address; expected {_EXAMPLES[name]}"
                ) from None
            return
        elif name == "helo":
            found = _pattern(value)
        else:
            found = filter_terms.number(name, value)
        self._terms.append((_CODES.get(name, name), "=", found, negated))

    def _span(self, name: str, value: str) -> times.Span:
        shown = filter_terms.cut(value)
        try:
            if name == "day":
                return times.whole_day(value, self._now)
            at = times.moment(value, self._now, later=name == "until")
        except ValueError as error:
            raise ValueError(f"{name}:{str(error).replace(value, shown, 1)}") from None
        if name == "until":
            return times.Span(0, at)
        if at > self._now * 1e6:
            day = (
                f"; yesterday's is since:yesterdayT{shown}"
                if ":" in value and value[0].isdigit() and "-" not in value
                else ""
            )
            raise ValueError(f"since:{shown} is in the future{day}")
        return times.Span(at, END)


_EXAMPLES = {
    "since": "since:yesterday",
    "until": "until:09:30",
    "day": "day:yesterday",
    "stage": f"stage:{STAGES[0]}",
    "outcome": "outcome:rejected",
    "tls": "tls:none",
    "found": "found:pregreet",
    "made": "made:pregreet",
    "failed": "failed:pregreet",
    "evidence": "evidence:helo_address",
    "mark": "mark:cached",
    "verdict": "verdict:450",
    "reply": "reply:5*",
    "mta": "mta:5*",
    "shadow": "shadow:550",
    "port": "port:51234",
    "worker": "worker:1",
    "list": "list:zen.spamhaus.org",
    "helo": "helo:*.example",
    "server": "server:192.0.2.25",
}


def _number(name: str, operator: str, value: str) -> int:
    example = _COMPARABLE[name]
    if not value:
        raise ValueError(f"{name}{operator}: a number is missing; example: {example}")
    form = {"score": _SCORE, "lasted": _SECONDS}.get(name, _COUNT)
    if not form.fullmatch(value):
        raise ValueError(f"{name}{operator}: {quoted(value)} is not a number that it can be; example: {example}")
    return int(value) if name != "lasted" else round(float(value) * 1e6)


def _code(name: str, value: str) -> tuple[int, int]:
    """`550`, `5*` or `none` as the first and the last code."""
    if value == "none":
        return 0, 0
    found = _CODE.fullmatch(value)
    if found is None or not (len(found[1]) == 3 or found[2]):
        raise ValueError(f"{name}:{filter_terms.cut(value)} is not a reply code; expected 550, 5* or none")
    missing = 3 - len(found[1])
    return int(found[1] + "0" * missing), int(found[1] + "9" * missing)


def _pattern(value: str) -> bytes:
    """A pattern for a HELO name. Bytes may be written as the output shows them: `\\303`."""
    if not value.isprintable():
        raise ValueError("control characters cannot be searched for; write them as the output shows them: \\033")
    found = _OCTAL.sub(
        lambda escape: b"\\" if escape[1] == b"\\" else bytes([int(escape[1], 8)]),
        value.encode("utf-8", "surrogatepass"),
    )
    if len(found) > filter_terms.MAX_WORD:
        raise ValueError(f"helo:{quoted(value, 20)[1:-1]}: longer than {filter_terms.MAX_WORD} bytes")
    return found
