"""Sessions that fastscreen has not recorded: one JSON object per line (docs/tune.md).

The way of a session is: records in time order, then what each of them shows (`Features`), then a score. What is shown
may depend on the sessions before it.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from fastscreen.config.model import Action, Config, Site
from fastscreen.core import HISTORY_TLS, SCORERS, TESTS, hello_found
from fastscreen.escaping import printable, quoted
from fastscreen.screening.policy import settings_by_test
from fastscreen.tune.suggest import Sample, Share, Weights

MAX_LINE = 65536  # bytes
MAX_BROKEN = 1000  # lines; with more than these and more than one in ten, the file is something else
MAX_LISTS = 256
LABELS = ("good", "bad")
FINDINGS = tuple(test.key for test in TESTS if test.key not in ("dnsbl", "score"))

_SCORERS = tuple(scorer.key for scorer in SCORERS)


class ForeignError(Exception):
    """The file cannot be used. One line for people."""


class Foreign(Struct, frozen=True):
    """A session. time: s since 1970. address: packed. tls: of HISTORY_TLS, empty: not known. lists: the answers."""

    time: float
    address: bytes
    helo: bytes
    tls: str
    findings: tuple[str, ...]
    lists: dict[str, tuple[bytes, ...]]
    good: bool


class Broken(Struct, frozen=True):
    """A kind of mistake: how often, and the first line that has it."""

    problem: str
    line: int
    count: int


class Read(Struct, frozen=True):
    """The sessions of a file in the order of their times."""

    sessions: list[Foreign]
    broken: tuple[Broken, ...]
    lines: int


def read(path: Path) -> Read:
    """Read a file. Lines that are not sessions are counted. Raises ForeignError: it has too many of them, or none."""
    sessions: list[Foreign] = []
    problems: Counter[str] = Counter()
    first: dict[str, int] = {}
    lines = 0
    try:
        with path.open("rb") as file:
            for number, line in _lines(file):
                lines += 1
                try:
                    sessions.append(_session(line))
                except ValueError as error:
                    problem = str(error)
                    problems[problem] += 1
                    first.setdefault(problem, number)
                    if problems.total() > MAX_BROKEN and problems.total() * 10 > lines:
                        raise ForeignError(
                            f"{printable(str(path))}: {problems.total()} of {lines} lines are not sessions; the first, "
                            f"line {min(first.values())}: {printable(next(iter(first)))}"
                        ) from None
    except OSError as error:
        raise ForeignError(f"{printable(str(path))}: cannot be read: {error.strerror}") from None
    if not sessions:
        what = (
            f": line {min(first.values())}: {printable(next(iter(first)))}"
            if first
            else "; expected a JSON object per line"
        )
        raise ForeignError(f"{printable(str(path))}: no sessions{what}")
    sessions.sort(key=lambda session: session.time)
    broken = tuple(Broken(printable(problem), first[problem], count) for problem, count in problems.most_common())
    return Read(sessions, broken, lines)


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
    )


def _time(value: object) -> float:
    expected = "time: expected seconds since 1970, or a date and time such as 2026-11-22T08:30:00Z"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(expected) from None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value < 1e11
    ):
        raise ValueError(expected)
    return float(value)


def _address(value: object, key: str) -> bytes:
    try:
        if not isinstance(value, str):
            raise ValueError
        found = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{key}: expected an IP address") from None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).packed


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
            packed = tuple(ipaddress.IPv4Address(answer).packed for answer in answers)
        except ValueError:
            raise ValueError(expected) from None
        if packed:
            found[name.lower().rstrip(".")] = packed
    return found


# ---- what sessions show


class Features(Struct, frozen=True):
    """What counts for the score: sites by index and scorers, one bit each; failed: a test whose action is enforce or
    drop. allowed: the lists' score reaches the allow list threshold."""

    sites: int
    scorers: int
    failed: bool
    names: tuple[str, ...]


class Shower:
    """Says what each session shows. Sessions come in time order."""

    def __init__(self, config: Config) -> None:
        self._sites = config.dnsbl.sites
        self._hostname = config.hostname
        self._failing = {
            key
            for key, (enabled, action, _) in settings_by_test(config).items()
            if enabled and action in (Action.ENFORCE, Action.DROP)
        }

    def features(self, session: Foreign) -> Features:
        sites = sum(1 << at for at, site in enumerate(self._sites) if _hits(site, session))
        scorers = hello_found(session.helo, session.address, self._hostname) if session.helo else 0
        names = [
            f"list:{name}"
            for name in dict.fromkeys(site.domain for at, site in enumerate(self._sites) if sites >> at & 1)
        ]
        names += [f"scorer:{key}" for at, key in enumerate(_SCORERS) if scorers >> at & 1]
        names += [f"test:{key}" for key in session.findings]
        names += ["tls:unused"] if session.tls == "unused" else []
        failed = any(key in self._failing for key in session.findings)
        return Features(sites, scorers, failed, tuple(names))


def _hits(site: Site, session: Foreign) -> bool:
    answers = session.lists.get(site.domain.lower().rstrip("."), ())
    return any(site.matches(answer) for answer in answers)


class Judged(Struct):
    """Sessions and addresses, all and caught, by label; and what they show."""

    sessions: dict[str, list[int]]
    addresses: dict[str, list[int]]
    features: dict[str, dict[str, int]]
    began: float = 0.0
    ended: float = 0.0


def weights_of(config: Config) -> Weights:
    """The weights of the sites, then of the scorers after the lists."""
    scorers = tuple(config.weights[key] for key in _SCORERS[1:])
    return Weights(config.dnsbl.threshold, tuple(site.weight for site in config.dnsbl.sites) + scorers)


def judge(shown: Iterable[tuple[Foreign, Features]], weights: Weights, allow_threshold: int) -> Judged:
    """Which sessions are caught: their score reaches the threshold, or they failed a test."""
    sessions = {label: [0, 0] for label in LABELS}
    addresses: dict[str, dict[bytes, bool]] = {label: {} for label in LABELS}
    showing: dict[str, dict[str, set[bytes] | list[int]]] = {}
    counts: dict[str, dict[str, int]] = {}
    seen: dict[str, dict[str, set[bytes]]] = {}
    times: list[float] = []
    for session, features in shown:
        label = "good" if session.good else "bad"
        caught = _caught(features, weights, allow_threshold)
        sessions[label][0] += 1
        sessions[label][1] += caught
        addresses[label][session.address] = addresses[label].get(session.address, False) or caught
        times.append(session.time)
        for name in features.names:
            counts.setdefault(name, dict.fromkeys(LABELS, 0))[label] += 1
            seen.setdefault(name, {each: set() for each in LABELS})[label].add(session.address)
    del showing
    return Judged(
        sessions,
        {label: [len(found), sum(found.values())] for label, found in addresses.items()},
        {
            name: {**{f"{label}_sessions": count for label, count in found.items()}}
            | {f"{label}_addresses": len(seen[name][label]) for label in LABELS}
            for name, found in sorted(counts.items())
        },
        min(times, default=0.0),
        max(times, default=0.0),
    )


def share(found: Judged) -> Share:
    """The addresses that are caught, of all."""
    (good_of, good), (bad_of, bad) = found.addresses["good"], found.addresses["bad"]
    return Share(good, good_of, bad, bad_of)


def _caught(features: Features, weights: Weights, allow_threshold: int) -> bool:
    count = len(weights.weights) - len(_SCORERS) + 1
    lists = sum(weight for at, weight in enumerate(weights.weights[:count]) if features.sites >> at & 1)
    if allow_threshold < 0 and lists <= allow_threshold:
        return False
    score = lists + sum(weight for at, weight in enumerate(weights.weights[count:], 1) if features.scorers >> at & 1)
    return features.failed or score >= weights.threshold


def clients(shown: Iterable[tuple[Foreign, Features]], count: int) -> Sample:
    """For the search: the addresses with sessions that fail no test, by what these show. count: of the weights. The
    search does not know dnsbl.allowlist_threshold: a client counts as rejected although an allow list may let it pass.
    """
    patterns: dict[tuple[int, int], int] = {}
    of_address: dict[tuple[bytes, bool], set[int]] = {}
    sites = count - len(_SCORERS) + 1
    for session, features in shown:
        if not features.failed:
            pattern = patterns.setdefault((features.sites, features.scorers), len(patterns))
            of_address.setdefault((session.address, session.good), set()).add(pattern)
    groups: dict[tuple[int, ...], list[int]] = {}
    for (_, good), has in of_address.items():
        groups.setdefault(tuple(sorted(has)), [0, 0])[0 if good else 1] += 1
    lists = [
        [at for at in range(sites) if hit >> at & 1]
        + [sites + at - 1 for at in range(1, len(_SCORERS)) if evidence >> at & 1]
        for hit, evidence in patterns
    ]
    return Sample(count, lists, ((members, good, bad) for members, (good, bad) in groups.items()))


def split(sessions: list[Foreign]) -> tuple[list[Foreign], list[Foreign], float]:
    """The first two thirds of the time, the last third, and where they meet."""
    first, last = sessions[0].time, sessions[-1].time
    at = first + (last - first) * 2 / 3
    return [each for each in sessions if each.time < at], [each for each in sessions if each.time >= at], at


def told(broken: Broken) -> str:
    """A kind of broken line, for people."""
    more = f", and {broken.count - 1} more like it" if broken.count > 1 else ""
    return f"line {broken.line}: {broken.problem}{more}; ignored"


__all__ = [
    "Foreign",
    "ForeignError",
    "Judged",
    "Read",
    "clients",
    "judge",
    "quoted",
    "read",
    "share",
    "split",
    "told",
    "weights_of",
]
