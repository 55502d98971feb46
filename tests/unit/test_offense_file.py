"""The file of the memory of offenses: bounded, looked after, and read while it is written."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from fastscreen import config
from fastscreen.cache import lmdb_file
from fastscreen.config import Config
from fastscreen.control.offense_search import KEPT_SECONDS, MAX_WORST, Search, Wanted
from fastscreen.control.offense_store import OffenseStore, OffenseStoreError
from fastscreen.core import AsTable, OffenseRules, offense_add, offense_read, seen_in
from fastscreen.offenses import store, writer
from fastscreen.offenses.clock import DAY, ClockGuard
from fastscreen.offenses.size import map_size
from fastscreen.offenses.writer import OffenseWriter
from fastscreen.process.conditions import SIZE, Conditions, Kind

TODAY = 20_000
BAD = (256, 0)
GOOD = (0, 2)


def packed(client: str) -> bytes:
    return ipaddress.ip_address(client).packed


_READER = """
import json, sys
from pathlib import Path
from fastscreen.core import OffenseRules, seen_in
from fastscreen.offenses.reader import OffenseReader
reader, rules = OffenseReader(Path(sys.argv[1])), OffenseRules()
for line in sys.stdin:
    client, day = json.loads(line)
    if client:
        print(json.dumps(seen_in(reader, rules, client, day)), flush=True)
        reader.end_batch()
    else:
        reader.check()
        print("[]", flush=True)
"""


class Reader:
    """An `OffenseReader` in a process of its own: LMDB opens a file only once per process."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", _READER, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def check(self) -> None:
        self._ask("", 0)

    def seen(self, client: str, day: int) -> list[str]:
        return [key for key, _ in self._ask(client, day)]

    def _ask(self, client: str, day: int) -> list[list[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([client, day]) + "\n")
        self._process.stdin.flush()
        answer: list[list[str]] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()


class Records:
    """A transaction as the core looks into it."""

    def __init__(self, transaction: Any) -> None:
        self.record = transaction.get

    def end_batch(self) -> None:
        """Nothing is held."""


class Fixture:
    """A writer with a simulated clock, and what it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = float(TODAY * DAY)
        self.monotonic = 1000.0
        self.said: list[str] = []
        self.conditions = Conditions(memoryview(bytearray(SIZE)))
        self.rules = OffenseRules()
        self.max_entries = 1000
        self.writer = self.new()

    def config(self) -> Config:
        settings = config.default()
        score = msgspec.structs.replace(
            settings.score, memory=str(self.path), memory_max_entries=self.max_entries, seen_network=1
        )
        return msgspec.structs.replace(settings, score=score)

    def new(self) -> OffenseWriter:
        return OffenseWriter(
            self.config(),
            self.rules,
            self.conditions,
            info=self.said.append,
            warn=self.said.append,
            clock=lambda: self.now,
            timer=lambda: self.monotonic,
        )

    def turn(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.monotonic += seconds
        self.writer.turn()

    def turns(self, count: int = 10) -> None:
        for _ in range(count):
            self.turn()

    def learn(self, *clients: str, conduct: tuple[int, int] = BAD) -> None:
        self.writer.note({packed(client): conduct for client in clients})
        self.turn()

    def condition(self) -> str | None:
        return next((each.text for each in self.conditions.read() if each.kind is Kind.OFFENSES), None)

    def seen(self, client: str, reader: Reader | None = None) -> list[str]:
        """What another process finds; without one, what is in the file that is open here."""
        today = int(self.now) // DAY
        if reader is not None:
            return reader.seen(client, today)
        file = self.writer._file
        if file is None:
            own = Reader(self.path)
            own.check()
            found = own.seen(client, today)
            own.close()
            return found
        with file.environment.begin() as transaction:
            return [key for key, _ in seen_in(Records(transaction), self.rules, client, today)]

    def entries(self) -> int:
        return self.writer.stats().entries


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path / "offenses")
    yield made
    made.writer.close()


def test_what_is_learned_is_read_by_others(fixture: Fixture) -> None:
    reader = Reader(fixture.path)
    reader.check()
    assert fixture.seen("192.0.2.1", reader) == []  # there is no file yet
    fixture.learn("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert fixture.seen("192.0.2.1", reader) == []
    reader.check()
    assert fixture.seen("192.0.2.1", reader) == ["seen_address"]
    assert fixture.seen("192.0.2.9", reader) == ["seen_network"]
    fixture.learn("192.0.2.4")
    assert fixture.seen("192.0.2.1", reader) == ["seen_address", "seen_network"]  # without another check
    reader.close()
    assert (fixture.path.stat().st_mode & 0o777, fixture.said) == (0o600, [])


def test_conduct_within_a_turn_is_merged(fixture: Fixture) -> None:
    fixture.writer.note({packed("192.0.2.1"): (128, 0)})
    fixture.writer.note({packed("192.0.2.1"): (0, 2)})
    fixture.writer.note({packed("192.0.2.1"): (256, 1)})
    fixture.turn()
    stats = fixture.writer.stats()
    assert (stats.bad, stats.good, stats.entries) == (1, 1, 1)


def test_another_process_goes_on_with_the_file(fixture: Fixture) -> None:
    fixture.learn("192.0.2.1", "192.0.2.2")
    fixture.writer.close()
    fixture.writer = fixture.new()
    fixture.learn("192.0.2.3")
    assert fixture.seen("192.0.2.9") == ["seen_network"]


def test_closing_writes_what_is_pending(fixture: Fixture) -> None:
    fixture.turn()
    fixture.writer.note({packed("192.0.2.1"): BAD})
    fixture.writer.close()
    assert fixture.seen("192.0.2.1") == ["seen_address"]


# ---- bounded


def networks(count: int, first: int = 0) -> list[str]:
    return [str(ipaddress.IPv4Address((first + number << 8) + 1)) for number in range(count)]


def test_lightest_and_oldest_networks_go(fixture: Fixture) -> None:
    """A flood of new networks does not push out those that are heavier."""
    heavy = networks(100, first=0x010000)
    for _ in range(3):
        fixture.learn(*heavy)
        fixture.turn(DAY)
    fixture.learn(*networks(100, first=0x020000))
    fixture.turn(10 * DAY)
    fixture.learn(*networks(5000, first=0x030000))
    fixture.turns(5)
    assert 900 <= fixture.entries() <= 1000
    assert fixture.writer.stats().dropped >= 4000
    assert all(fixture.seen(client) for client in heavy[::10])
    assert not any(fixture.seen(client) for client in networks(100, first=0x020000)[::10])
    fixture.max_entries = 2000
    fixture.writer.configure(fixture.config(), fixture.rules)
    fixture.learn(*networks(900, first=0x040000))
    assert fixture.entries() >= 1800


def test_file_that_may_not_grow_drops_records(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "map_size", lambda entries: 4 << 20)
    fixture.max_entries = 1_000_000
    fixture.writer.configure(fixture.config(), fixture.rules)
    for part in range(200):
        fixture.learn(*networks(1000, first=0x010000 + part * 1000))
    stats = fixture.writer.stats()
    assert stats.dropped > 0
    assert stats.bytes <= 4 << 20
    assert stats.bad == 200_000
    assert fixture.condition() is None
    assert fixture.seen(networks(1, first=0x010000 + 199_999)[0]) == ["seen_address"]


MILLION = 1_000_000


def test_a_million_networks(fixture: Fixture) -> None:
    """The file is full, and a flood of new networks goes on: each turn stays short, and nothing grows."""
    fixture.max_entries = MILLION
    fixture.writer.configure(fixture.config(), fixture.rules)
    heavy = networks(200, first=0x100000)
    for _ in range(3):
        fixture.learn(*heavy)
        fixture.turn(DAY)
    assert fixture.writer._file is not None
    environment = fixture.writer._file.environment
    one, _, _ = offense_add(None, 1, 1, *BAD, int(fixture.now) // DAY, fixture.rules)
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        cursor.putmulti([(b"4" + number.to_bytes(3), one) for number in range(0x200000, 0x200000 + MILLION - 200)])
    fixture.writer._timer = time.monotonic
    fixture.turn()
    assert (fixture.entries(), fixture.writer.stats().dropped) == (MILLION, 0)
    longest, part = 0.0, 0
    while part < 10 or (fixture.writer.stats().dropped < MILLION // 16 and part < 100):  # slow machines take more turns
        began = time.thread_time()
        fixture.learn(*networks(3000, first=0x800000 + 3000 * part))
        longest = max(longest, time.thread_time() - began)
        assert fixture.entries() < MILLION + 3000
        assert part or 0 < fixture.writer.stats().dropped < MILLION // 16, "all of a round at once"
        part += 1
    assert longest < writer.DROP_SECONDS + 1.5, "a turn of 3000 clients, one of them with a part of a round"
    assert fixture.entries() <= MILLION
    assert fixture.writer.stats().dropped >= MILLION // 16
    assert all(fixture.seen(client) for client in heavy)
    assert fixture.seen(networks(1, first=0x800000 + 3000 * part - 1)[0]) == ["seen_address"]
    assert fixture.writer.stats().bytes < map_size(MILLION)
    fixture.writer.close()
    control = OffenseStore(fixture.path, fixture.rules, clock=lambda: fixture.now)
    requests, more = 0, True
    while more:
        began = time.thread_time()
        page, found, more = control.worst(Wanted(), 0, 50)
        assert time.thread_time() - began < 1.0
        requests += 1
    assert requests > 1
    assert (len(page), found) == (50, fixture.entries())
    control.close()


def test_how_far_behind_the_writer_is(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.turn()
    assert (fixture.writer.stats().waiting, fixture.writer.stats().lag) == (0, 0.0)

    def full(*_: object) -> None:
        raise lmdb.DiskError("No space left on device")

    monkeypatch.setattr(store, "learn", full)
    fixture.writer.note({packed("192.0.2.1"): BAD})
    fixture.turn(5.0)
    fixture.writer.note({packed("192.0.2.2"): BAD})
    fixture.turn(5.0)
    assert (fixture.writer.stats().waiting, fixture.writer.stats().lag) == (2, 10.0)
    monkeypatch.undo()
    fixture.turns()
    assert (fixture.writer.stats().waiting, fixture.writer.stats().lag) == (0, 0.0)


def test_pending_conduct_is_bounded(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING", 10)
    fixture.path.mkdir()
    fixture.turn()
    for number in range(12):
        fixture.writer.note({packed(f"192.0.2.{number}"): BAD})
    assert fixture.writer.stats().lost == 2
    fixture.path.rmdir()
    fixture.turns()
    assert fixture.writer.stats().bad == 10


# ---- damage


@pytest.mark.parametrize("damage", ["truncated", "garbage", "foreign", "other version", "a record"])
def test_damaged_or_foreign_file(fixture: Fixture, damage: str) -> None:
    fixture.learn("192.0.2.1")
    fixture.writer.close()
    if damage == "truncated":
        os.truncate(fixture.path, 5000)
    elif damage == "garbage":
        fixture.path.write_bytes(b"garbage" * 3000)
    else:
        with lmdb.open(str(fixture.path), subdir=False) as environment, environment.begin(write=True) as transaction:
            if damage == "a record":
                transaction.put(b"4" + packed("192.0.2.0")[:3], b"\x09no record")
            elif damage == "other version":
                transaction.put(lmdb_file.MEMORY.key, b"\x02")
            else:
                transaction.delete(lmdb_file.MEMORY.key)
                transaction.put(lmdb_file.CACHE.key, lmdb_file.CACHE.version)
    fixture.writer = fixture.new()
    fixture.learn("192.0.2.2")
    assert fixture.seen("192.0.2.1") == []
    assert fixture.seen("192.0.2.2") == ["seen_address"]
    aside = list(fixture.path.parent.glob("offenses.damaged-*"))
    if damage == "a record":
        assert (aside, fixture.said) == ([], [])  # one record is replaced
    else:
        assert aside
        assert fixture.said[0].startswith(f"score.memory lmdb:{fixture.path} is damaged or foreign (")
    assert fixture.condition() is None


def test_cache_is_not_taken_for_the_memory(fixture: Fixture) -> None:
    """And the other way around: each would move the other's file aside."""
    fixture.learn("192.0.2.1")
    fixture.writer.close()
    with pytest.raises(lmdb_file.UnusableError, match="another program"):
        lmdb_file.open_existing(fixture.path, 1 << 20)


def test_file_that_is_replaced_while_it_is_open(fixture: Fixture) -> None:
    reader = Reader(fixture.path)
    fixture.learn("192.0.2.1")
    reader.check()
    fixture.path.unlink()
    fixture.learn("192.0.2.2")
    reader.check()
    assert fixture.seen("192.0.2.1", reader) == []
    assert fixture.seen("192.0.2.2", reader) == ["seen_address"]
    reader.close()


def test_full_disk_is_a_condition_until_it_is_over(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.learn("192.0.2.1")
    learn = store.learn

    def full(*_: object) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(store, "learn", full)
    fixture.learn("192.0.2.2")
    assert fixture.condition() == f"score.memory lmdb:{fixture.path}: No space left on device"
    fixture.turns(3)
    assert fixture.seen("192.0.2.1") == ["seen_address"]  # what is there can be read
    monkeypatch.setattr(store, "learn", learn)
    fixture.turns(6)
    assert fixture.condition() is None
    assert fixture.seen("192.0.2.2") == ["seen_address"]
    assert fixture.said == [
        f"score.memory lmdb:{fixture.path}: No space left on device",
        f"score.memory lmdb:{fixture.path}: works again",
    ]


def test_link_is_not_followed(fixture: Fixture) -> None:
    other = fixture.path.with_name("other")
    other.write_text("kept")
    fixture.path.symlink_to(other)
    fixture.learn("192.0.2.1")
    assert "symbolic link" in (fixture.condition() or "")
    assert other.read_text() == "kept"


def test_reader_survives_a_map_that_grows(fixture: Fixture) -> None:
    fixture.learn("192.0.2.1")
    reader = Reader(fixture.path)
    reader.check()
    assert fixture.seen("192.0.2.1", reader) == ["seen_address"]
    fixture.max_entries = 1_000_000
    fixture.writer.configure(fixture.config(), fixture.rules)
    fixture.learn("192.0.2.2", *networks(3000, first=0x050000))
    fixture.seen("192.0.2.1", reader)
    reader.check()
    assert fixture.seen("192.0.2.2", reader) == ["seen_address"]
    reader.close()


# ---- clocks


def test_jump_ahead_deletes_nothing(fixture: Fixture) -> None:
    fixture.learn("192.0.2.1", "192.0.2.2", "192.0.2.3")
    fixture.now += 3000 * DAY
    fixture.turns(20)
    assert fixture.seen("192.0.2.1") == []  # it looks old
    fixture.learn("192.0.9.1")
    fixture.now -= 3000 * DAY
    fixture.turns(20)
    assert fixture.seen("192.0.2.1") == ["seen_address"]
    assert fixture.seen("192.0.9.1") == ["seen_address"]
    fixture.turn(DAY + 10)
    fixture.turns(20)
    fixture.turn(40 * DAY)  # the day in the future was corrected, so it decays as others do
    assert fixture.seen("192.0.9.1") == []


def test_start_with_a_wrong_clock_deletes_nothing(fixture: Fixture) -> None:
    fixture.learn("192.0.2.1")
    fixture.writer.close()
    fixture.now += 3000 * DAY
    fixture.writer = fixture.new()
    fixture.turns(20)
    fixture.now -= 3000 * DAY
    assert fixture.seen("192.0.2.1") == ["seen_address"]


def test_old_records_are_deleted(fixture: Fixture) -> None:
    fixture.learn(*networks(50))
    for _ in range(400):
        fixture.turn(DAY)
    assert fixture.entries() == 0


def test_reload_with_another_half_life(fixture: Fixture) -> None:
    """What is stored decays by the new one, when it is written and when it is tidied, too."""
    fixture.learn("192.0.2.1", "192.0.9.1")
    for _ in range(14):
        fixture.turn(DAY)
    fixture.rules = OffenseRules(2 * DAY)
    fixture.writer.configure(fixture.config(), fixture.rules)
    fixture.learn("192.0.2.1")
    assert fixture.writer._file is not None
    with fixture.writer._file.environment.begin() as transaction:
        found = offense_read(transaction.get(b"4" + packed("192.0.2.0")[:3]), int(fixture.now) // DAY, fixture.rules)
    assert found is not None
    assert [(number, round(bad, 2)) for number, bad, *_ in found] == [(1, 1.01)]
    fixture.turns(3)
    assert fixture.entries() == 1, "the other one has decayed"


@pytest.mark.parametrize(
    ("last", "believed"), [(None, True), (TODAY, True), (TODAY - 7, True), (TODAY - 8, False), (TODAY + 2, False)]
)
def test_clock_at_a_start(last: int | None, believed: bool) -> None:
    now = [float(TODAY * DAY), 50.0]
    guard = ClockGuard(lambda: now[0], lambda: now[1], last)
    assert guard.is_believed is believed
    now = [now[0] + DAY, now[1] + DAY]
    assert guard.is_believed


# ---- the control server


def test_deleting(fixture: Fixture) -> None:
    fixture.learn("192.0.2.1", "192.0.2.2", "192.0.2.200", "198.51.100.1", "2001:db8:1:2::1", "2001:db8:1:2::2")

    def delete(text: str) -> tuple[int, bool]:
        fixture.writer.close()
        made = OffenseStore(fixture.path, fixture.rules, lambda: fixture.now)
        found = made.delete(ipaddress.ip_network(text))
        made.close()
        return found

    assert delete("203.0.113.0/24") == (0, False)
    assert delete("192.0.2.2") == (1, False)
    assert fixture.seen("192.0.2.2") == []
    assert fixture.seen("192.0.2.1") == ["seen_address"]
    assert delete("192.0.2.0/25") == (1, False)
    assert fixture.seen("192.0.2.1") == []
    assert fixture.seen("192.0.2.200") == ["seen_address"]
    assert delete("192.0.0.0/16") == (1, False)
    assert fixture.seen("192.0.2.200") == []
    assert delete("2001:db8:1:2::1") == (2, False)  # the /48 has it as well
    assert fixture.seen("2001:db8:1:2::1") == []
    assert fixture.seen("2001:db8:1:2::2") == ["seen_address"]
    assert delete("2001:db8::/32") == (1, False)
    assert fixture.seen("2001:db8:1:2::2") == []
    assert delete("0.0.0.0/0") == (1, False)
    made = OffenseStore(fixture.path, fixture.rules, lambda: fixture.now)
    assert made.page(None, b"", 100) == ([], b"")
    made.close()


def test_members_are_in_the_order_of_addresses(fixture: Fixture) -> None:
    """The bad ones first."""
    for host in (200, 9, 31):
        fixture.learn(f"192.0.2.{host}")
    for host in (150, 4):
        fixture.learn(f"192.0.2.{host}", conduct=GOOD)
    for part in (0x300, 0x2, 0x100):
        fixture.learn(f"2001:db8:1:{part:x}::1")
    fixture.writer.close()
    made = OffenseStore(fixture.path, fixture.rules, lambda: fixture.now)
    found = {each.subject: [member.subject for member in each.members] for each in made.page(None, b"", 100)[0]}
    assert found["192.0.2.0/24"] == [f"192.0.2.{host}" for host in (9, 31, 200, 4, 150)]
    assert found["2001:db8:1::/48"] == [f"2001:db8:1:{part}::/64" for part in (2, 100, 300)]
    made.close()


def test_pages_and_the_worst(fixture: Fixture) -> None:
    fixture.learn(*(f"10.0.{network}.{host}" for network in range(40) for host in range(1, 2 + network)))
    fixture.learn("10.0.39.200", conduct=GOOD)
    fixture.learn(*(f"10.9.0.{host}" for host in range(1, 131)), conduct=GOOD)
    fixture.learn(*(f"10.9.0.{host}" for host in range(131, 221)))  # more than all others, but less than half
    fixture.writer.close()
    made = OffenseStore(fixture.path, fixture.rules, lambda: fixture.now)
    worst, number, more = made.worst(Wanted(), 0, 2)
    assert [(each.subject, each.bad_members, each.known_members) for each in worst] == [
        ("10.0.39.0/24", 40, 41),
        ("10.0.38.0/24", 39, 39),
    ]
    assert (number, more) == (41, False)
    assert [each.subject for each in made.worst(Wanted(), 0, 100)[0]].index("10.9.0.0/24") == 38  # of 3 or more: 38
    assert [each.subject for each in made.worst(Wanted(), 39, 100)[0]] == ["10.0.1.0/24", "10.0.0.0/24"]
    assert made.worst(Wanted("as"), 0, 10) == ([], 0, False)
    found, place = [], b""
    while True:
        page, place = made.page(None, place, 7)
        found += [each.subject for each in page]
        if not place:
            break
    assert found == [*(f"10.0.{network}.0/24" for network in range(40)), "10.9.0.0/24"]
    made.close()


def worst(made: OffenseStore, wanted: Wanted) -> list[str]:
    return [each.subject for each in made.worst(wanted, 0, 100)[0]]


def test_worst_by_share_and_by_day_and_within(fixture: Fixture) -> None:
    fixture.rules = OffenseRules(as_table=AsTable(b"10.0.0.0/8,64500\n2001:db8::/32,64501\n", "test"))
    fixture.writer.configure(fixture.config(), fixture.rules)
    fixture.learn(*(f"10.1.0.{host}" for host in range(1, 9)))
    fixture.learn(*(f"10.1.0.{host}" for host in range(20, 24)), conduct=GOOD)
    fixture.learn(*(f"192.0.2.{host}" for host in range(1, 4)))
    fixture.now += 3 * DAY
    fixture.learn("10.2.0.1", *(f"2001:db8:1:2::{host}" for host in range(1, 3)))
    fixture.writer.close()
    made = OffenseStore(fixture.path, fixture.rules, lambda: fixture.now)
    assert worst(made, Wanted()) == [
        "10.1.0.0/24", "192.0.2.0/24", "2001:db8:1:2::/64", "2001:db8:1::/48", "10.2.0.0/24"
    ]  # fmt: skip
    assert worst(made, Wanted(sort="share"))[:2] == ["192.0.2.0/24", "10.1.0.0/24"]
    assert worst(made, Wanted(sort="recent"))[0] == "2001:db8:1:2::/64"
    assert set(worst(made, Wanted(sort="recent"))[3:]) == {"10.1.0.0/24", "192.0.2.0/24"}
    for within, expected in (
        ("10.0.0.0/8", ["10.1.0.0/24", "10.2.0.0/24"]),
        ("192.0.2.7/32", ["192.0.2.0/24"]),
        ("2001:db8::/32", ["2001:db8:1:2::/64", "2001:db8:1::/48"]),
        ("0.0.0.0/0", ["10.1.0.0/24", "192.0.2.0/24", "10.2.0.0/24"]),
        ("198.51.100.0/24", []),
    ):
        assert worst(made, Wanted(within=ipaddress.ip_network(within))) == expected
    assert worst(made, Wanted(within=64500)) == ["10.1.0.0/24", "10.2.0.0/24"]
    assert worst(made, Wanted(within=64999)) == []
    assert worst(made, Wanted("as")) == ["AS64500", "AS64501"]
    found = {each.subject: each.system for each in made.worst(Wanted(), 0, 100)[0]}
    assert (found["10.1.0.0/24"], found["192.0.2.0/24"], found["2001:db8:1::/48"]) == (64500, 0, 64501)
    made.delete(ipaddress.ip_network("10.1.0.0/24"))
    assert worst(made, Wanted())[0] == "192.0.2.0/24"  # although the file is not searched again yet
    made.close()


def test_search_goes_on_with_the_next_request(fixture: Fixture) -> None:
    """It reads a thousand records at a time; what was found last stays until it has been through once more."""
    fixture.max_entries = 10_000
    fixture.writer.configure(fixture.config(), fixture.rules)
    fixture.learn(*(f"10.{net >> 8}.{net & 255}.{host}" for net in range(2500) for host in range(1, 2 + net // 2499)))
    fixture.writer.close()
    environment = lmdb.open(str(fixture.path), subdir=False, readonly=True, map_size=64 << 20)
    search, now = Search(Wanted(), fixture.rules, TODAY), 1000.0
    for found, complete in ((1000, False), (2000, False), (2500, False), (2500, True), (2500, True)):
        search.go_on(environment, TODAY, 0.0, now)
        assert (search.found, search.is_complete, len(search.keys)) == (found, complete, MAX_WORST)
    assert search.keys[0] == b"4" + packed("10.9.195.0")[:3]  # with two bad addresses
    environment.close()
    fixture.writer = fixture.new()
    fixture.learn(*(f"10.0.0.{host}" for host in range(1, 4)))
    fixture.writer.close()
    environment = lmdb.open(str(fixture.path), subdir=False, readonly=True, map_size=64 << 20)
    search.go_on(environment, TODAY, 0.0, now + KEPT_SECONDS - 0.1)
    search.go_on(environment, TODAY, 0.0, now + KEPT_SECONDS + 0.1)
    assert (search.found, search.is_complete, search.keys[0][:4]) == (2500, True, b"4" + packed("10.9.195.0")[:3])
    for _ in range(3):
        search.go_on(environment, TODAY, 0.0, now + KEPT_SECONDS + 0.2)
    assert search.keys[0] == b"4" + packed("10.0.0.0")[:3]
    environment.close()


def test_store_without_a_file(tmp_path: Path) -> None:
    made = OffenseStore(tmp_path / "none", OffenseRules())
    with pytest.raises(OffenseStoreError, match="does not exist yet"):
        made.of_address("192.0.2.1")


def test_copy_of_the_file_in_use(fixture: Fixture, tmp_path: Path) -> None:
    """An operator may copy the file to another host."""
    fixture.learn("192.0.2.1")
    shutil.copy(fixture.path, tmp_path / "copy")
    reader = Reader(tmp_path / "copy")
    reader.check()
    assert fixture.seen("192.0.2.1", reader) == ["seen_address"]
    reader.close()
