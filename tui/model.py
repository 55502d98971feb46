"""What docs/control.md says comes, as records. All has a default: a daemon may say less, or more, than this view knows.

`zone` is the protocol's `list`, the name of a DNSBL.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from fastscreen.client import Malformed
from fastscreen.escape import cleaned

Record = TypeVar("Record")
Stamps = dict[str, float | str | None]


def record(kind: type[Record], answer: Any) -> Record:
    """An answer, escaped and checked. Raises Malformed."""
    try:
        return msgspec.convert(cleaned(answer), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"not what docs/control.md says: {error!s:.200}") from None


class Hello(Struct):
    fastscreen: str = ""
    rights: list[str] = []
    hostname: str = ""
    workers: int = 0
    pid: int = 0


class Dns(Struct):
    asked: int = 0
    answered: int = 0
    timed_out: int = 0
    ignored: int = 0
    in_flight: int = 0
    kept: int = 0


class Worker(Struct):
    number: int = 0
    pid: int = 0
    sessions: int = 0
    handoffs: int = 0
    clients: int = 0
    accepted: int = 0
    handed: int = 0
    stress: bool = False
    accepting: bool = True
    stages: dict[str, int] = {}
    dns: Dns = field(default_factory=Dns)
    lost_log_lines: int = 0
    rss: int = 0
    cpu: float = 0.0


class Expiring(Struct):
    within: float = 0.0
    entries: int = 0


class CacheStats(Struct):
    path: str = ""
    entries: int = 0
    size: int = 0
    map_size: int = 0
    hits: int = 0
    misses: int = 0
    expiring: list[Expiring] = []


class Limits(Struct):
    pre_queue: int | None = None
    post_queue: int | None = None
    client_connection_count: int | None = None


class Status(Struct):
    time: float = 0.0
    started: float = 0.0
    version: str = ""
    hostname: str = ""
    pid: int = 0
    bypass_until: float | None = None
    limits: Limits = field(default_factory=Limits)
    counts: dict[str, int] = {}
    workers: list[Worker] = []
    cache: CacheStats | None = None
    lists: int = 0
    missing: list[int] = []


class Session(Struct):
    worker: int = 0
    session: int = 0
    address: str = ""
    port: int = 0
    stage: str = ""
    failed: list[str] = []
    score: int | None = None
    age: float = 0.0
    command: str = ""
    name: str = ""


class Sessions(Struct):
    total: int = 0
    matched: int = 0
    sessions: list[Session] = []


class Event(Struct):
    worker: int = 0
    sequence: int = 0
    time: float = 0.0
    kind: str = ""
    session: int = 0
    address: str = ""
    port: int = 0
    stage: str | None = None
    failed: list[str] = []
    score: int | None = None
    zone: str | None = field(default=None, name="list")
    number: int | float | str | None = None
    text: str | None = None


class ListAnswer(Struct):
    zone: str = field(default="", name="list")
    state: str = "unknown"
    answers: list[str] = []
    weight: int = 0


class Story(Struct):
    address: str = ""
    events: list[Event] = []
    begins: float | None = None
    cache: Stamps | None = None
    sessions: list[Session] = []
    lists: list[ListAnswer] = []


class Site(Struct):
    filter: str | None = None
    weight: int = 0


class DnsblList(Struct):
    zone: str = field(default="", name="list")
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


class Dnsbl(Struct):
    threshold: int = 0
    allowlist_threshold: int = 0
    lists: list[DnsblList] = []


class Talker(Struct):
    client: str = ""
    connects: int = 0
    passed: int = 0
    failed: int = 0
    handed: int = 0


class Clients(Struct):
    begins: float | None = None
    clients: list[Talker] = []


class CacheEntry(Struct):
    address: str = ""
    stamps: Stamps = {}


class CacheEntries(Struct):
    entries: list[CacheEntry] = []
    more: bool = False


class Deleted(Struct):
    deleted: int = 0


class Warning(Struct):
    time: float = 0.0
    text: str = ""


class Warnings(Struct):
    warnings: list[Warning] = []
