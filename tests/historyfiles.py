"""Histories for tests: records written short, and folders of days as the recorder makes them."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fastscreen.core import (
    HISTORY_FIELDS,
    HISTORY_MARKS,
    HISTORY_NUMBERS,
    HISTORY_OUTCOMES,
    HISTORY_TLS,
    SCORERS,
    STAGES,
    TESTS,
    history_read,
    history_write,
)
from fastscreen.history.day import COUNT_BITS, Part, Row, create, day_at, index, insert
from fastscreen.history.settings import HistorySettings, SiteSettings, TestSettings, encode, number

NOON = 1_795_348_800  # 2026-11-22 12:00:00 UTC
LISTS = ("zen.example", "bl.example", "allow.example")
SETTINGS = HistorySettings(
    lists=LISTS,
    sites=(SiteSettings(0, "127.0.0.[2..11]", 3), SiteSettings(1, "", 2), SiteSettings(2, "", -2)),
    threshold=3,
    allowlist_threshold=-2,
    dnsbl_min_ttl=60,
    dnsbl_max_ttl=3600,
    tests={test.key: TestSettings(True, "enforce", 86400) for test in TESTS},
    weights={"helo_address": 2},
    denylist_action="enforce",
    shadow=False,
    soft_bounce=False,
    continues=False,
    relays=False,
    greet_wait=6.0,
    prefix=(32, 64),
)
NUMBER = number(encode(SETTINGS))

_NAMES = {"stage": STAGES, "outcome": HISTORY_OUTCOMES, "tls": HISTORY_TLS}
_SETS = {
    **dict.fromkeys(("needed", "made", "found", "failed"), tuple(test.key for test in TESTS)),
    "evidence": tuple(scorer.key for scorer in SCORERS),
    "marks": HISTORY_MARKS,
}


def row(second: float, client: str = "192.0.2.1", counter: int = 0, **fields: Any) -> Row:
    """A session that ended so many seconds after noon. Names, or sets of names, stand for numbers."""
    ended = round((NOON + second) * 1_000_000)
    address = ipaddress.ip_address(client)
    server = "198.51.100.7" if address.version == 4 else "2001:db8::7"
    known: dict[str, Any] = dict.fromkeys(HISTORY_NUMBERS, 0)
    known |= {"settings": NUMBER, "weight": 1, "client_port": 1111, "server_port": 25, "worker": 1, "score": None}
    known |= {"lasted": 1_000_000, "answers": (), "name": b"", "stage": "dialogue", "outcome": "left", "tls": "none"}
    known |= fields | {"ended": ended, "client": address.packed}
    known["server"] = ipaddress.ip_address(fields.get("server", server)).packed
    for field, names in _NAMES.items():
        known[field] = names.index(known[field])
    for field, names in _SETS.items():
        if not isinstance(known[field], int):
            known[field] = sum(1 << names.index(each) for each in known[field])
    packed = history_write([known[field] for field in HISTORY_FIELDS])
    return ended << COUNT_BITS | counter, address.packed, packed


def known(second: float, client: str = "192.0.2.1", **fields: Any) -> Row:
    """A session of a known client."""
    marks = ("cached", "passed")
    usual: dict[str, Any] = {"outcome": "handed_off", "stage": "handoff", "marks": marks, "lasted": 400}
    return row(second, client, **usual | fields)


def deferred(second: float, client: str = "192.0.2.1", **fields: Any) -> Row:
    """A client that has just passed the deep tests."""
    tests = ("pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline")
    usual: dict[str, Any] = {"outcome": "deferred", "verdict": 450, "reply": 221}
    usual |= {"recipients": 1, "commands": 5, "lasted": 7_000_000}
    usual |= {"marks": ("new", "passed", "esmtp", "lists_judged"), "needed": tests, "made": tests, "score": 0}
    return row(second, client, **usual | {"name": b"mail.example"} | fields)


def listed(second: float, client: str = "192.0.2.1", lists: int = 1, score: int = 3, **fields: Any) -> Row:
    """A client that lists have, and that is rejected for it."""
    answers = tuple((at, 127 << 24 | 2) for at in range(8) if lists >> at & 1)
    usual: dict[str, Any] = {"outcome": "rejected", "verdict": 550, "reply": 221}
    usual |= {"recipients": 1, "commands": 5, "lasted": 7_000_000}
    usual |= {"found": ("dnsbl",), "failed": ("dnsbl",), "made": ("pregreet", "dnsbl"), "needed": ("pregreet", "dnsbl")}
    usual |= {
        "marks": ("esmtp", "lists_judged", "turned_away"),
        "listed": lists,
        "answers": answers,
        "name": b"user-pc",
    }
    usual |= dict.fromkeys(("score", "lists_total", "lists_lowest", "lists_highest"), score)
    return row(second, client, **usual | fields)


def make(folder: Path, rows: Iterable[Row], settings: Mapping[int, bytes] | None = None, parts: int = 1) -> Path:
    """Write the days of these sessions, as the recorder would; return the folder. One half of them is in the index.

    parts: of each day; the sessions go to them in turn.
    """
    known_settings = {NUMBER: encode(SETTINGS)} if settings is None else settings
    folder.mkdir(parents=True, exist_ok=True)
    by_day: dict[date, list[Row]] = {}
    for each in sorted(rows):
        by_day.setdefault(day_at(each[0] >> COUNT_BITS), []).append(each)
    for day, among in by_day.items():
        for part in range(parts):
            part_of_them = among[part::parts]
            connection = create(Part(day, part + 1).path(folder))
            connection.execute("BEGIN")
            half = len(part_of_them) // 2
            insert(connection, part_of_them[:half], sums(part_of_them[:half]), known_settings.items())
            index(connection)
            insert(connection, part_of_them[half:], sums(part_of_them[half:]))
            connection.execute("COMMIT")
            connection.close()
    return folder


def sums(rows: Iterable[Row]) -> list[tuple[int, int, int, int]]:
    """The minutes' sums of sessions."""
    found: Counter[tuple[int, int, int]] = Counter()
    outcome, marks, weight = (HISTORY_FIELDS.index(field) for field in ("outcome", "marks", "weight"))
    cached = 1 << HISTORY_MARKS.index("cached")
    for each in rows:
        fields = history_read(each[0] >> COUNT_BITS, each[1], each[2])
        assert fields is not None
        minute = (each[0] >> COUNT_BITS) // 60_000_000
        found[minute, fields[outcome], int(fields[marks] & cached > 0)] += fields[weight]
    return [(*key, count) for key, count in sorted(found.items())]


def at(second: float) -> datetime:
    """The time so many seconds after noon."""
    return datetime.fromtimestamp(NOON + second, UTC)
