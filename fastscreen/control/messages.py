"""What docs/control.md says comes, as records, for every client of the control socket.

A record must have what tells one thing from another; all else has a default, because a fastscreen may say less, or
more, than this program knows. `zone` is the protocol's `list`, the name of a DNSBL. Times are s since 1970.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from fastscreen.control.client import Malformed
from fastscreen.core import TESTS as TESTS
from fastscreen.escaping import cleaned

Record = TypeVar("Record")

Stamp = float | str
"""Until when a test counts as passed, "never" or "disabled"."""
Stamps = dict[str, Stamp]


def record(kind: type[Record], answer: Any) -> Record:
    """An answer, checked, with all text of it printable. Raises Malformed."""
    try:
        return msgspec.convert(cleaned(answer), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"not fastscreen's protocol: {error!s:.200}") from None


class Hello(Struct, frozen=True):
    """The greeting. rights: "read", and "act" for those who may change something."""

    fastscreen: str = ""
    rights: list[str] = []
    hostname: str = ""
    workers: int = 0
    pid: int = 0


# ---- status


class Dns(Struct, frozen=True):
    """A worker's questions to DNSBL lists."""

    asked: int = 0
    answered: int = 0
    timed_out: int = 0
    ignored: int = 0
    in_flight: int = 0
    kept: int = 0


class Worker(Struct, frozen=True):
    """rss: octets. cpu: s."""

    number: int
    pid: int
    sessions: int = 0
    handoffs: int = 0
    tls: int = 0
    clients: int = 0
    accepted: int = 0
    handed: int = 0
    stress: bool = False
    accepting: bool = True
    stages: dict[str, int] = {}
    dns: Dns = Dns()
    lost_log_lines: int = 0
    stale_events: int = 0
    rss: int = 0
    cpu: float = 0.0


class Expiring(Struct, frozen=True):
    """So many entries expire within so many s."""

    within: float
    entries: int


class CacheStats(Struct, frozen=True):
    """size, map_size, max_size: bytes. hits, misses: since the start."""

    path: str = ""
    entries: int = 0
    size: int = 0
    map_size: int = 0
    max_size: int = 0
    hits: int = 0
    misses: int = 0
    expiring: list[Expiring] = []


class Condition(Struct, frozen=True):
    """A fault that holds now. since: s since 1970. remedy: what the operator can do."""

    kind: str
    since: float = 0.0
    text: str = ""
    remedy: str = ""


class Outcome(Struct, frozen=True):
    """How the last reload, reopening of the log, or refused restart ended. begun, finished: their numbers since the
    start; ok, text, time: of the last that is over; time None: there was none.
    """

    begun: int = 0
    finished: int = 0
    ok: bool = True
    text: str = ""
    time: float | None = None
    success_time: float = 0.0


class Status(Struct, frozen=True):
    """bypass_until: None when it is off. missing: workers that did not answer in time. lists_out: DNS lists that count
    nothing now. conditions: faults that hold now, the earliest first.
    """

    time: float
    started: float
    version: str
    hostname: str
    pid: int
    mode: str = "screen"
    bypass_until: float | None = None
    limits: dict[str, int] = {}
    counts: dict[str, int] = {}
    workers: list[Worker] = []
    missing: list[int] = []
    cache: CacheStats | None = None
    lists: int = 0
    lists_out: list[str] = []
    conditions: list[Condition] = []
    reload: Outcome | None = None
    reopen: Outcome | None = None
    restart: Outcome | None = None


class RunningConfig(Struct, frozen=True):
    """The configuration in force. source: its file. fingerprints: of each key's value."""

    source: str = ""
    fingerprints: dict[str, str] = {}


# ---- sessions and events


class Session(Struct, frozen=True):
    """age: s. command: what the client said last, with C escapes. name: "" when it has none, or it is not known yet."""

    address: str
    worker: int = 0
    session: int = 0
    port: int = 0
    stage: str = ""
    failed: list[str] = []
    evidence: list[str] = []
    score: int | None = None
    age: float = 0.0
    command: str = ""
    name: str = ""


class Sessions(Struct, frozen=True):
    """total: all there are. matched: those that the filter chose, of which `sessions` are the first."""

    total: int = 0
    matched: int = 0
    sessions: list[Session] = []


class Event(Struct, frozen=True):
    """text: with C escapes."""

    time: float
    kind: str
    worker: int = 0
    sequence: int = 0
    session: int = 0
    address: str = ""
    port: int = 0
    stage: str | None = None
    failed: list[str] = []
    evidence: list[str] = []
    score: int | None = None
    zone: str | None = field(default=None, name="list")
    number: int | float | str | None = None
    text: str | None = None


class ListAnswer(Struct, frozen=True):
    """What a list has said of a client. weight: what that adds to the score."""

    zone: str = field(name="list")
    state: str = "unknown"
    answers: list[str] = []
    weight: int = 0


class Story(Struct, frozen=True):
    """begins: the oldest event that the rings still hold."""

    address: str
    name: str = ""
    events: list[Event] = []
    begins: float | None = None
    cache: Stamps | None = None
    sessions: list[Session] = []
    lists: list[ListAnswer] = []


class Talker(Struct, frozen=True):
    """client: an address or a network."""

    client: str
    connects: int = 0
    passed: int = 0
    failed: int = 0
    handed: int = 0


class Clients(Struct, frozen=True):
    """begins: as in a story."""

    begins: float | None = None
    clients: list[Talker] = []


class Warning(Struct, frozen=True):
    """A warning of the log."""

    time: float
    text: str


class Warnings(Struct, frozen=True):
    """The latest since the start."""

    warnings: list[Warning] = []


# ---- lists


class Site(Struct, frozen=True):
    """filter: of the answers; None when every answer counts."""

    filter: str | None = None
    weight: int = 0


class DnsblList(Struct, frozen=True):
    """Counts since the start. p50, p95: s. why: it is out."""

    zone: str = field(name="list")
    sites: list[Site] = []
    asked: int = 0
    answered: int = 0
    listed: int = 0
    unique: int = 0
    timed_out: int = 0
    errors: int = 0
    p50: float | None = None
    p95: float | None = None
    state: str = ""
    why: str = ""


class Dnsbl(Struct, frozen=True):
    """The lists in the order of the configuration."""

    threshold: int = 0
    allowlist_threshold: int = 0
    lists: list[DnsblList] = []


# ---- explain


class Step(Struct, frozen=True):
    """What decides, and how."""

    step: str
    text: str


class Remembered(Struct, frozen=True):
    """The cache on one test. on: the test is made."""

    until: Stamp
    valid: bool
    on: bool = True


class Kept(Struct, frozen=True):
    """What the screener would use instead of asking a list again."""

    state: str
    answers: list[str] = []


class ListSaid(Struct, frozen=True):
    """A DNSBL list asked now. weight: what it adds to the score. took: s. counts: that answer does. suspect: its
    listings are unsure until it has been probed.
    """

    zone: str = field(name="list")
    state: str
    answers: list[str] = []
    weight: int = 0
    took: float | None = None
    counts: bool = True
    suspect: bool = False
    kept: Kept | None = None


class Evidence(Struct, frozen=True):
    """What a scorer found in the client's last session. text: what it judged."""

    scorer: str
    weight: int = 0
    text: str = ""


class Explanation(Struct, frozen=True):
    """What would happen to a client now. reply: what it would be told, None when the mail server gets it."""

    address: str
    verdict: str
    steps: list[Step]
    reply: str | None = None
    name: str = ""
    cache: dict[str, Remembered] | None = None
    lists: list[ListSaid] = []
    evidence: list[Evidence] = []


# ---- the cache, and acting


class CacheEntry(Struct, frozen=True):
    """A client in the cache."""

    address: str
    stamps: Stamps


class CacheEntries(Struct, frozen=True):
    """Some entries, and whether there are more behind them."""

    entries: list[CacheEntry]
    more: bool = False


class Deleted(Struct, frozen=True):
    """How many entries."""

    deleted: int


class Stored(Struct, frozen=True):
    """How many entries."""

    stored: int


class Until(Struct, frozen=True):
    """Of the panic switch: None when it is off."""

    until: float | None = None
