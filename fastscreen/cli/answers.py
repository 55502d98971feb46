"""Answers of the control socket (docs/control.md) as far as the commands show them. What is new in one is ignored."""

from __future__ import annotations

from msgspec import Struct, field


class Expiring(Struct, frozen=True):
    """So many entries expire within so many s."""

    within: float
    entries: int


class CacheStats(Struct, frozen=True):
    """sizes: octets. hits, misses: since the start."""

    path: str = ""
    entries: int = 0
    size: int = 0
    map_size: int = 0
    hits: int = 0
    misses: int = 0
    expiring: list[Expiring] = []


class Dns(Struct, frozen=True):
    """Questions of a worker's to DNSBL lists."""

    asked: int = 0
    answered: int = 0
    timed_out: int = 0
    in_flight: int = 0


class Worker(Struct, frozen=True):
    """rss: octets. cpu: s."""

    number: int
    pid: int
    sessions: int = 0
    handoffs: int = 0
    accepted: int = 0
    handed: int = 0
    stress: bool = False
    accepting: bool = True
    stages: dict[str, int] = {}
    dns: Dns = Dns()
    lost_log_lines: int = 0
    rss: int = 0
    cpu: float = 0.0


class Status(Struct, frozen=True):
    """time, started, bypass_until: s since 1970. missing: workers that did not answer in time."""

    time: float
    started: float
    version: str
    hostname: str
    pid: int
    bypass_until: float | None = None
    limits: dict[str, int] = {}
    counts: dict[str, int] = {}
    workers: list[Worker] = []
    missing: list[int] = []
    cache: CacheStats | None = None
    lists: int = 0


class Event(Struct, frozen=True):
    """time: s since 1970. about: a list's name. text: with C escapes."""

    time: float
    kind: str
    worker: int = 0
    sequence: int = 0
    session: int = 0
    address: str = ""
    port: int = 0
    stage: str | None = None
    failed: list[str] = []
    score: int | None = None
    about: str | None = field(default=None, name="list")
    number: float | str | None = None
    text: str | None = None


Stamp = float | str
"""s since 1970, "never" or "disabled"."""


class Entry(Struct, frozen=True):
    """A client in the cache."""

    address: str
    stamps: dict[str, Stamp]


class Entries(Struct, frozen=True):
    """Some entries, and whether there are more behind them."""

    entries: list[Entry]
    more: bool = False


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
    """A DNSBL list asked now. weight: what it adds to the score. took: s."""

    name: str = field(name="list")
    state: str
    answers: list[str] = []
    weight: int = 0
    took: float | None = None
    kept: Kept | None = None


class Explanation(Struct, frozen=True):
    """What would happen to a client now. reply: what it would be told, None when the mail server gets it."""

    address: str
    verdict: str
    steps: list[Step]
    reply: str | None = None
    cache: dict[str, Remembered] | None = None
    lists: list[ListSaid] = []


class Deleted(Struct, frozen=True):
    deleted: int


class Stored(Struct, frozen=True):
    stored: int


class Until(Struct, frozen=True):
    """Of the panic switch: s since 1970, None when it is off."""

    until: float | None = None
