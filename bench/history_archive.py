"""A history of any size, made quickly, and what the queries on it cost.

    python -m bench.history_archive FOLDER --days 30 --sessions 1000000     make it (about 5 s per million sessions)
    python -m bench.history_archive FOLDER --measure                        measure the queries on it
    python -m bench.history_archive FOLDER --measure --cold                 the same, with the files out of the cache

The clients, their behavior and the lists' answers come from a seed. As in a server's traffic, few clients make most
sessions, most of these are of known clients, and of the others most are rejected. The files are those that the recorder
would have written.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from fastscreen.core import HISTORY_FIELDS, HISTORY_MARKS, HISTORY_NUMBERS, HISTORY_OUTCOMES, TESTS, history_write
from fastscreen.history.archive import Archive
from fastscreen.history.day import CHUNK, COUNT_BITS, SUFFIX, Row, begin_of, create, index, insert
from fastscreen.history.filter import query
from fastscreen.history.settings import HistorySettings, SiteSettings, TestSettings, encode, number

LISTS = ("zen.example", "bl.example.net", "spam.example.org", "dyn.example", "auth.example", "allow.example")
SETTINGS = HistorySettings(
    lists=LISTS,
    sites=(
        SiteSettings(0, "127.0.0.[2..11]", 3),
        *(SiteSettings(at, "", 2) for at in range(1, 5)),
        SiteSettings(5, "", -4),
    ),
    threshold=3,
    allowlist_threshold=-2,
    dnsbl_min_ttl=60,
    dnsbl_max_ttl=3600,
    tests={test.key: TestSettings(test.key != "score", "enforce", 86400) for test in TESTS},
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
SERVER = bytes((198, 51, 100, 25))
CLIENTS = 200_000  # of a day
KINDS = {"known": 55, "listed": 22, "pregreet": 12, "new": 6, "left": 5}
VARIANTS = 4000  # records of each kind
DAY = 86_400_000_000  # µs

_TEST = {test.key: 1 << at for at, test in enumerate(TESTS)}
_MARK = {mark: 1 << at for at, mark in enumerate(HISTORY_MARKS)}
_OUTCOME = {outcome: at for at, outcome in enumerate(HISTORY_OUTCOMES)}
_OUTCOME_OF = {
    kind: (_OUTCOME[outcome], int(kind == "known"))
    for kind, outcome in (("known", "handed_off"), ("listed", "rejected"), ("pregreet", "rejected"),
                          ("new", "deferred"), ("left", "left"))
}  # fmt: skip
"""Of each kind: the outcome by number, and whether it is cached."""
_EMPTY: dict[str, Any] = dict.fromkeys(HISTORY_NUMBERS, 0) | {"weight": 1, "settings": NUMBER, "server_port": 25}


def packed(kind: str, rng: random.Random) -> bytes:
    """A record of a session of this kind."""
    found = _EMPTY | {
        "ended": 0, "client": bytes(4), "server": SERVER, "answers": (), "name": _name(kind, rng), "score": None,
        "client_port": rng.randrange(1024, 65536), "worker": rng.randrange(1, 5),
    }  # fmt: skip
    greet = _TEST["pregreet"] | _TEST["dnsbl"]
    if kind == "known":
        found |= {"lasted": rng.randrange(200, 3000), "outcome": _OUTCOME["handed_off"], "name": b""}
        found["marks"] = _MARK["cached"] | _MARK["passed"]
        found["stage"] = 3
        return history_write([found[key] for key in HISTORY_FIELDS])
    deep = _TEST["pipelining"] | _TEST["non_smtp_command"] | _TEST["bare_newline"]
    found |= {"needed": greet | deep, "made": greet | deep, "marks": _MARK["esmtp"] | _MARK["lists_judged"], "stage": 1}
    found |= {"lasted": rng.randrange(6_000_000, 9_000_000), "reply": 221, "commands": 5, "recipients": 1, "score": 0}
    if kind == "new":
        found |= {"outcome": _OUTCOME["deferred"], "verdict": 450, "pass_seconds": 3600}
        found["marks"] |= _MARK["new"] | _MARK["passed"]
    elif kind == "left":
        found |= {"outcome": _OUTCOME["left"], "made": greet, "lasted": rng.randrange(100_000, 6_000_000)}
        found |= {"stage": 0, "recipients": 0, "commands": 0, "reply": 0, "name": b"", "score": None}
        found["marks"] = _MARK["hung_up"]
    else:
        found |= {"outcome": _OUTCOME["rejected"], "verdict": 550}
        found["marks"] |= _MARK["turned_away"]
    if kind == "listed":
        listed = rng.choice((0b1, 0b11, 0b111, 0b101, 0b110, 0b1011))
        score = sum(site.weight for site in SETTINGS.sites if listed >> site.list & 1)
        answers = tuple((at, 127 << 24 | rng.choice((2, 3, 4, 10, 11))) for at in range(6) if listed >> at & 1)
        found |= {"listed": listed, "answers": answers, "found": _TEST["dnsbl"], "failed": _TEST["dnsbl"]}
        found |= dict.fromkeys(("score", "lists_total", "lists_lowest", "lists_highest"), score)
    elif kind == "pregreet":
        found |= {"found": _TEST["pregreet"], "failed": _TEST["pregreet"]}
    return history_write([found[key] for key in HISTORY_FIELDS])


def _name(kind: str, rng: random.Random) -> bytes:
    if kind == "new":
        return b"mail%d.customer%d.example" % (rng.randrange(40), rng.randrange(9000))
    return rng.choice(
        (b"ylmf-pc", b"User", b"[192.0.2.%d]" % rng.randrange(256), b"host-%d.dyn.example" % rng.randrange(9000))
    )


def address(client: int) -> bytes:
    """The address of a client by number: four in each /24."""
    network = client // 4 * 2_654_435_761 % 0xDF0000 + 0x010000
    return (network << 8 | client % 4 * 7 + 1).to_bytes(4)


def make(folder: Path, days: int, sessions: int, last: date, seed: int) -> None:
    """Write the files of so many days, the last one included."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    records = {kind: [packed(kind, rng) for _ in range(VARIANTS)] for kind in kinds}
    # A client has one kind; by Zipf's law, the first ones make most sessions.
    kind_of = rng.choices(kinds, list(KINDS.values()), k=CLIENTS)
    weights = list(accumulate(1 / (rank + 20) for rank in range(CLIENTS)))
    addresses = [address(client) for client in range(CLIENTS)]
    folder.mkdir(parents=True, exist_ok=True)
    for back in reversed(range(days)):
        day = last - timedelta(days=back)
        start, step = begin_of(day), DAY // max(1, sessions)
        connection = create(folder / f"{day}{SUFFIX}")
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(0, sessions, CHUNK):
            rows: list[Row] = []
            minutes: Counter[tuple[int, int, int]] = Counter()
            clients = rng.choices(range(CLIENTS), cum_weights=weights, k=min(CHUNK, sessions - first))
            for at, client in enumerate(clients, first):
                ended = start + at * step
                kind = kind_of[client]
                minutes[ended // 60_000_000, *_OUTCOME_OF[kind]] += 1
                rows.append((ended << COUNT_BITS, addresses[client], records[kind][at % VARIANTS]))
            connection.execute("BEGIN")
            sums = [(*minute, count) for minute, count in minutes.items()]
            insert(connection, rows, sums, [(NUMBER, encode(SETTINGS))])
            index(connection)
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()


# ---- measuring


def forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    for each in folder.iterdir():
        with each.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, rounds: int, cold: bool) -> bool:
    """Print a row for each query: the median, the shortest and the longest of the rounds. False: a limit is missed."""
    archive = Archive(folder, print)
    days = archive.days()
    total = archive.count()
    size = sum(each.stat().st_size for each in folder.iterdir())
    print("files not in the page cache" if cold else "files in the page cache")
    print(f"{len(days)} days, {total:,} sessions, {size / max(1, total):.0f} bytes per session with all indexes\n")
    busy, rare = (".".join(map(str, address(client))) for client in (0, CLIENTS // 2))
    middle = days[len(days) // 2]
    minute = middle.since + 43_200_000_000
    now = days[-1].until / 1e6
    day = f"since:@{middle.since // 1_000_000} until:@{middle.until // 1_000_000}"
    names = archive.all_list_names

    def asked(text: str) -> Callable[[], int]:
        return lambda: sum(len(page) for page in Archive(folder).pages(query(text, now, names)))

    command = [sys.executable, "-m", "fastscreen", "history", "--path", str(folder)]
    queries: list[tuple[str, Callable[[], int], float | None]] = [
        ("sessions of a rare client, all days", asked(rare), 0.5),
        ("sessions of the busiest client, all days", asked(busy), None),
        ("the sums of a minute", lambda: len(list(Archive(folder).minutes(minute, minute + 60_000_000))), 0.5),
        ("the sessions of a minute", asked(f"since:@{minute // 1_000_000} until:@{minute // 1_000_000 + 60}"), 0.5),
        ("the sums of a day's minutes", lambda: len(list(Archive(folder).minutes(middle.since, middle.until))), None),
        ("a day, every session", asked(day), None),
        ("a day, by reply: verdict:450", asked(f"{day} verdict:450"), 5.0),
        ("a day, by name: helo:*.dyn.example", asked(f"{day} helo:*.dyn.example"), 5.0),
        ("a day, by list: list:zen* score>=5", asked(f"{day} list:zen* score>=5"), 5.0),
        ("a day, by a wide network: 64.0.0.0/8", asked(f"{day} 64.0.0.0/8"), 5.0),
        (f"command: fastscreen history {rare}", lambda: _lines([*command, rare]), 0.5),
        ("command: fastscreen history of a minute", lambda: _lines([*command, f"since:@{minute // 1_000_000}",
                                                                    f"until:@{minute // 1_000_000 + 60}"]), 0.5),
    ]  # fmt: skip
    met = True
    print("| query | found | s (shortest to longest) | CPU, s | limit | met |\n| --- | --- | --- | --- | --- | --- |")
    for title, ask, limit in queries:
        times, used = [], []
        found = 0
        for _ in range(rounds):
            if cold:
                forget(folder)
            began, before = time.perf_counter(), _cpu()
            found = ask()
            times.append(time.perf_counter() - began)
            used.append(_cpu() - before)
        median = statistics.median(times)
        fine = limit is None or median < limit
        met = met and fine
        shown = f"{median:.4f} ({min(times):.4f} to {max(times):.4f})"
        cpu = f"{statistics.median(used):.4f}"
        print(f"| {title} | {found:,} | {shown} | {cpu} | {f'{limit:g}' if limit else ''} | {_met(limit, fine)} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MB")
    return met


def _cpu() -> float:
    """s of this process and of those that it has waited for."""
    found = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


def _met(limit: float | None, fine: bool) -> str:
    return "" if limit is None else "yes" if fine else "**no**"


def _lines(command: list[str]) -> int:
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of each day")
    parser.add_argument("--last", type=date.fromisoformat, default=datetime.now(UTC).date() - timedelta(days=1))
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--replace", action="store_true", help="delete the folder first")
    parser.add_argument("--measure", action="store_true", help="measure queries on what is there")
    parser.add_argument("--cold", action="store_true", help="with the files out of the page cache before each query")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.measure:
        return 0 if measure(arguments.folder, arguments.rounds, arguments.cold) else 1
    if arguments.replace:
        shutil.rmtree(arguments.folder, ignore_errors=True)
    began = time.perf_counter()
    make(arguments.folder, arguments.days, arguments.sessions, arguments.last, arguments.seed)
    size = sum(each.stat().st_size for each in arguments.folder.iterdir())
    total = arguments.days * arguments.sessions
    print(f"{total:,} sessions in {time.perf_counter() - began:.1f} s, {size / max(1, total):.0f} bytes per session")
    return 0


if __name__ == "__main__":
    sys.exit(main())
