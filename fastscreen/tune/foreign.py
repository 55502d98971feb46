"""Sessions that fastscreen has not recorded: one JSON object per line (docs/tune.md).

What a session shows by itself becomes the number of a `Pattern`; the rest of the way is in labeled.py. Sessions are
kept in the core, without an object for each.
"""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from fastscreen.config.model import Action, Config, Site
from fastscreen.core import HISTORY_TLS, SCORERS, TESTS, AsTable, LabeledSessions, hello_found
from fastscreen.escaping import printable
from fastscreen.screening.policy import settings_by_test

MAX_LINE = 65536  # bytes
MAX_BROKEN = 1000  # lines; with more than these and more than one in ten, the file is something else
MAX_LISTS = 256
LABELS = ("good", "bad")
FINDINGS = tuple(test.key for test in TESTS if test.key not in ("dnsbl", "score"))

_SCORERS = tuple(scorer.key for scorer in SCORERS)
_NO_TLS = 1 << _SCORERS.index("no_tls")
_CHUNK = 65536  # sessions between reports of progress
_MAX_AS = 0xFFFFFFFE


class ForeignError(Exception):
    """The file cannot be used. One line for people."""


class Foreign(Struct, frozen=True):
    """A session. time: s since 1970. address: packed. tls: of HISTORY_TLS, empty: not known. lists: the answers.
    system: the AS, 0: the file does not say."""

    time: float
    address: bytes
    helo: bytes
    tls: str
    findings: tuple[str, ...]
    lists: dict[str, tuple[bytes, ...]]
    good: bool
    system: int = 0


class Broken(Struct, frozen=True):
    """A kind of mistake: how often, and the first line that has it."""

    problem: str
    line: int
    count: int


class Pattern(Struct, frozen=True):
    """What sessions show by themselves. sites: by index, scorers, findings: one bit each. unused: TLS was offered.
    failed: a test whose action is enforce or drop."""

    sites: int
    scorers: int
    findings: int
    unused: bool
    failed: bool


class Labeled(Struct):
    """The sessions of a file in the order of their times, and what they show."""

    sessions: LabeledSessions
    patterns: list[Pattern]
    broken: tuple[Broken, ...]
    lines: int


def read(
    path: Path,
    config: Config,
    table: AsTable | None = None,
    period: tuple[float, float] = (0.0, math.inf),
    advance: Callable[[int], None] = lambda size: None,
) -> Labeled:
    """Read the sessions of a period (s since 1970). Lines that are not sessions are counted.

    table: the AS of addresses, where a session does not name it. advance: called with numbers of bytes. Raises
    ForeignError: too many lines are no sessions, or all.
    """
    sessions = LabeledSessions()
    shower = _Shower(config)
    problems: Counter[str] = Counter()
    first: dict[str, int] = {}
    lines = found = size = 0
    try:
        with path.open("rb") as file:
            for number, line in _lines(file):
                lines += 1
                size += len(line)
                if lines % _CHUNK == 0:
                    advance(size)
                    size = 0
                try:
                    session = _session(line)
                except ValueError as error:
                    problem = str(error)
                    problems[problem] += 1
                    first.setdefault(problem, number)
                    if problems.total() > MAX_BROKEN and problems.total() * 10 > lines:
                        raise ForeignError(
                            f"{printable(str(path))}: {problems.total()} of {lines} lines are not sessions; the first, "
                            f"line {min(first.values())}: {printable(next(iter(first)))}"
                        ) from None
                    continue
                found += 1
                if period[0] <= session.time < period[1]:
                    system = session.system or (table.lookup(session.address) if table is not None else 0)
                    sessions.add(session.time, session.address, system, shower.number(session), session.good)
    except OSError as error:
        raise ForeignError(f"{printable(str(path))}: cannot be read: {error.strerror}") from None
    if not found:
        what = (
            f": line {min(first.values())}: {printable(next(iter(first)))}"
            if first
            else "; expected a JSON object per line"
        )
        raise ForeignError(f"{printable(str(path))}: no sessions{what}")
    if not len(sessions):
        raise ForeignError(f"{printable(str(path))}: no sessions in this period")
    advance(size)
    sessions.sort()
    broken = tuple(Broken(printable(problem), first[problem], count) for problem, count in problems.most_common())
    return Labeled(sessions, shower.patterns, broken, lines)


def _lines(file: Any) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers. Of a line that is too long, only the beginning."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        whole = line
        while whole and not whole.endswith(b"\n") and len(line) > MAX_LINE:
            whole = file.readline(MAX_LINE + 1)
            if len(whole) <= MAX_LINE:
                break
        if line.strip():
            yield number, line


def _session(line: bytes) -> Foreign:
    """ValueError: what is wrong, without the value: each problem is named once."""
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    label = value.get("label")
    if label not in LABELS:
        raise ValueError("label: expected good or bad")
    return Foreign(
        _time(value.get("time")),
        _address(value.get("ip"), "ip"),
        _text(value.get("helo"), "helo").encode("utf-8", "surrogatepass"),
        _tls(value.get("tls")),
        _findings(value.get("findings")),
        _lists(value.get("lists")),
        label == "good",
        _system(value.get("asn")),
    )


def _time(value: object) -> float:
    expected = "time: expected seconds since 1970, or a date and time such as 2026-11-22T08:30:00Z"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            value = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(expected) from None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value < 5e9
    ):
        raise ValueError(expected)
    return float(value)


def _address(value: object, key: str) -> bytes:
    try:
        if not isinstance(value, str):
            raise ValueError
        packed = socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)
    except (ValueError, OSError):
        raise ValueError(f"{key}: expected an IP address") from None
    return packed[12:] if len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff" else packed


def _text(value: object, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a string")
    return value


def _tls(value: object) -> str:
    if value is None:
        return ""
    if value not in HISTORY_TLS:
        raise ValueError(f"tls: expected one of {', '.join(HISTORY_TLS)}")
    return str(value)


def _findings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or any(each not in FINDINGS for each in value):
        raise ValueError(f"findings: expected a list of {', '.join(FINDINGS)}")
    return tuple(dict.fromkeys(value))


def _lists(value: object) -> dict[str, tuple[bytes, ...]]:
    expected = 'lists: expected an object with the answers of each list, such as {"bl.example": ["127.0.0.2"]}'
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_LISTS:
        raise ValueError(expected)
    found = {}
    for name, answers in value.items():
        answers = [answers] if isinstance(answers, str) else answers
        if not isinstance(answers, list) or len(answers) > MAX_LISTS:
            raise ValueError(expected)
        try:
            packed = tuple(socket.inet_pton(socket.AF_INET, answer) for answer in answers)
        except (TypeError, ValueError, OSError):
            raise ValueError(expected) from None
        if packed:
            found[name.lower().rstrip(".")] = packed
    return found


def _system(value: object) -> int:
    """An AS: 64500, "64500" or "AS64500"."""
    if value is None:
        return 0
    text = value.upper().removeprefix("AS") if isinstance(value, str) else value
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 11:
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 0 <= text <= _MAX_AS:
        raise ValueError("asn: expected the number of an AS")
    return text


# ---- what sessions show by themselves


class _Shower:
    """Says what each session shows. patterns: by number."""

    def __init__(self, config: Config) -> None:
        self._sites = config.dnsbl.sites
        self._hostname = config.hostname
        self._failing = {
            key
            for key, (enabled, action, _) in settings_by_test(config).items()
            if enabled and action in (Action.ENFORCE, Action.DROP)
        }
        self._numbers: dict[Pattern, int] = {}
        self.patterns: list[Pattern] = []

    def number(self, session: Foreign) -> int:
        """The number of a session's pattern."""
        sites = sum(1 << at for at, site in enumerate(self._sites) if _hits(site, session)) if session.lists else 0
        scorers = hello_found(session.helo, session.address, self._hostname) if session.helo else 0
        unused = session.tls == "unused"
        pattern = Pattern(
            sites,
            scorers | (_NO_TLS if unused else 0),
            sum(1 << FINDINGS.index(key) for key in session.findings),
            unused,
            any(key in self._failing for key in session.findings),
        )
        number = self._numbers.setdefault(pattern, len(self.patterns))
        if number == len(self.patterns):
            self.patterns.append(pattern)
        return number


def _hits(site: Site, session: Foreign) -> bool:
    answers = session.lists.get(site.domain.lower().rstrip("."), ())
    return any(site.matches(answer) for answer in answers)


def told(broken: Broken) -> str:
    """A kind of broken line, for people."""
    more = f", and {broken.count - 1} more like it" if broken.count > 1 else ""
    return f"line {broken.line}: {broken.problem}{more}; ignored"
