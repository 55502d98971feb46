"""The memory of offenses: what counts, how it decays, and what neighbors do to each other."""

from __future__ import annotations

import ipaddress
import itertools
import random
import struct
from collections.abc import Iterable
from typing import Any

import pytest

from fastscreen.core import (
    HISTORY_FIELDS,
    HISTORY_MARKS,
    HISTORY_OUTCOMES,
    SCORERS,
    TESTS,
    AsTable,
    OffenseRules,
    history_write,
    offense_add,
    offense_add_as,
    offense_as,
    offense_keys,
    offense_read,
    offense_summary,
    offense_tidy,
    offense_without,
    offenses_in,
    seen_in,
)
from fastscreen.offenses.store import learn

TODAY = 20_000
DAY = 86400
BAD, HALF_BAD = 256, 128
NOT_GOOD, HANDED_OFF, ACCEPTED = range(3)


class Memory:
    """Records in a dictionary: a transaction for the writer, a source for the scorers."""

    def __init__(self, rules: OffenseRules | None = None) -> None:
        self.rules = rules or OffenseRules()
        self.records: dict[bytes, bytes] = {}
        self.get = self.records.get
        self.record = self.records.get

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def end_batch(self) -> None:
        """Nothing is held."""

    def learn(self, clients: Iterable[str] | str, bad: int = BAD, good: int = NOT_GOOD, day: int = TODAY) -> None:
        for client in [clients] if isinstance(clients, str) else clients:
            learn(self, {packed(client): (bad, good)}, day, self.rules)

    def good(self, clients: Iterable[str] | str, days: int = 3, last: int = TODAY) -> None:
        """Addresses that deliver mail day after day."""
        for client, day in itertools.product([clients] if isinstance(clients, str) else clients, range(days)):
            self.learn(client, 0, ACCEPTED, last - days + 1 + day)

    def seen(self, client: str, day: int = TODAY) -> dict[str, str]:
        return dict(seen_in(self, self.rules, client, day))


def packed(client: str) -> bytes:
    return ipaddress.ip_address(client).packed


def hosts(first: int, count: int, network: str = "192.0.2.") -> list[str]:
    return [f"{network}{number}" for number in range(first, first + count)]


# ---- an address


def test_unknown_client() -> None:
    assert Memory().seen("192.0.2.1") == {}


def test_single_offense_counts_for_two_half_lives() -> None:
    memory = Memory()
    memory.learn("192.0.2.1")
    assert memory.seen("192.0.2.1") == {"seen_address": "192.0.2.1: bad 1.0, good 0.0, today"}
    assert memory.seen("192.0.2.1", TODAY + 14) == {"seen_address": "192.0.2.1: bad 0.5, good 0.0, 14 days ago"}
    assert "seen_address" in memory.seen("192.0.2.1", TODAY + 28)
    assert memory.seen("192.0.2.1", TODAY + 29) == {}
    assert memory.seen("192.0.2.2") == {}


def test_many_offenses_are_forgiven_as_well() -> None:
    memory = Memory()
    for day in range(200):
        memory.learn("192.0.2.1", day=TODAY - 199 + day)
    assert "seen_address" in memory.seen("192.0.2.1", TODAY + 67)
    assert memory.seen("192.0.2.1", TODAY + 68) == {}


def test_good_history_wins() -> None:
    memory = Memory()
    memory.learn(hosts(10, 20))
    memory.good("192.0.2.1")
    memory.learn("192.0.2.1")
    assert memory.seen("192.0.2.1") == {}  # neither its own offense nor 20 of 20 neighbors
    assert "seen_network" in memory.seen("192.0.2.2")


def test_spammer_that_behaves_for_a_month() -> None:
    """Its good conduct outweighs the first days with offenses, and no more than a week of them."""
    memory = Memory()
    memory.good("192.0.2.1", days=30, last=TODAY - 1)
    memory.learn(hosts(10, 5), day=TODAY)
    found = []
    for day in range(7):
        memory.learn("192.0.2.1", day=TODAY + day)
        memory.learn(hosts(10, 5), day=TODAY + day)
        found.append(sorted(memory.seen("192.0.2.1", TODAY + day)))
    assert found[:3] == [[], [], []]
    assert found[4] == ["seen_network"]
    assert found[6] == ["seen_address", "seen_network"]


def test_offenses_are_not_forgotten_in_a_quiet_month() -> None:
    memory = Memory()
    for day in range(3):
        memory.learn("192.0.2.7", day=TODAY - 32 + day)
    assert "seen_address" in memory.seen("192.0.2.7")


def test_large_sender_whose_mail_is_rejected_now_and_then_is_not_bad() -> None:
    """Thousands of messages a day are accepted, and each day some are rejected."""
    memory = Memory()
    for day in range(60):
        for _ in range(20):
            memory.learn(hosts(1, 5), BAD, ACCEPTED, TODAY - 59 + day)
    for day in range(3):  # and nothing was accepted on the last two days
        assert memory.seen("192.0.2.1", TODAY + day) == {}
        memory.learn(hosts(1, 5), BAD, NOT_GOOD, TODAY + day)


def test_good_conduct_counts_once_per_day() -> None:
    memory = Memory()
    for _ in range(100):
        memory.learn("192.0.2.1", 0, ACCEPTED)
    assert members(memory, "192.0.2.1") == [(1, 0.0, 1.0)]
    for _ in range(100):
        memory.learn("192.0.2.2", 0, HANDED_OFF)
    assert members(memory, "192.0.2.2")[1] == (2, 0.0, 0.25)


def test_unknown_outcome_is_worth_little() -> None:
    """Clients that are handed off get no more than two offenses' worth, on many days."""
    memory = Memory()
    for day in range(60):
        memory.learn("192.0.2.1", 0, HANDED_OFF, TODAY - day)
        memory.learn("192.0.2.2", 0, HANDED_OFF, TODAY - 59 + day)
    (_, _, good) = members(memory, "192.0.2.2")[1]
    assert 1.9 <= good <= 2.0


# ---- neighbors


def test_network_counts_from_the_least_number_on() -> None:
    memory = Memory()
    memory.learn(hosts(10, 2))
    assert memory.seen("192.0.2.1") == {}
    memory.learn("192.0.2.12")
    assert memory.seen("192.0.2.1") == {"seen_network": "192.0.2.0/24: 3 of 3 addresses bad in 28 days"}
    assert memory.seen("192.0.2.10") == {"seen_address": "192.0.2.10: bad 1.0, good 0.0, today"}  # two others
    assert memory.seen("192.0.3.1") == {}


def test_noisy_machine_counts_once() -> None:
    memory = Memory()
    for _ in range(100):
        memory.learn("192.0.2.10", 16 * BAD)
    assert memory.seen("192.0.2.1") == {}
    assert members(memory, "192.0.2.10") == [(10, 1.0, 0.0)]


def test_network_is_judged_by_its_good_share() -> None:
    """A large provider, or addresses behind CGNAT: some are bad, more are good."""
    memory = Memory()
    memory.learn(hosts(10, 20))
    memory.good(hosts(100, 21), days=1)
    assert memory.seen("192.0.2.1") == {}
    memory.learn(hosts(30, 1))
    assert memory.seen("192.0.2.1") == {"seen_network": "192.0.2.0/24: 21 of 42 addresses bad in 28 days"}


def test_cgnat_address_with_good_and_bad_users() -> None:
    """One address that good and bad machines share is bad only if days with offenses outnumber the good ones by far."""
    memory = Memory()
    for day in range(30):
        memory.learn(hosts(10, 5), 0 if day % 3 else BAD, HANDED_OFF if day % 2 else NOT_GOOD, TODAY - 29 + day)
        memory.learn(hosts(20, 5), BAD if day % 2 else 0, 0 if day % 2 else ACCEPTED, TODAY - 29 + day)
    assert "seen_address" in memory.seen("192.0.2.10")
    assert memory.seen("192.0.2.20") == {"seen_network": "192.0.2.0/24: 5 of 9 addresses bad in 28 days"}
    memory.good("192.0.2.30", days=1)
    assert memory.seen("192.0.2.20") == {"seen_network": "192.0.2.0/24: 5 of 10 addresses bad in 28 days"}
    memory.good("192.0.2.31", days=1)
    assert memory.seen("192.0.2.20") == {}


def test_attacker_cannot_make_a_good_network_look_bad() -> None:
    """He rents some addresses in a competitor's network and misbehaves as much as he can."""
    memory = Memory()
    memory.good(hosts(1, 6))
    for _ in range(200):
        memory.learn(hosts(200, 5), 16 * BAD)
    assert memory.seen("192.0.2.1") == {}
    assert memory.seen("192.0.2.50") == {}  # a new customer
    memory.learn(hosts(205, 30))  # most of it is his by now
    assert memory.seen("192.0.2.1") == {}  # but never those that deliver
    assert "seen_network" in memory.seen("192.0.2.50")


def test_full_network() -> None:
    memory = Memory()
    memory.learn(hosts(0, 256))
    assert memory.seen("192.0.2.9")["seen_network"] == "192.0.2.0/24: 255 of 255 addresses bad in 28 days"
    assert len(memory.records[b"4" + packed("192.0.2.0")[:3]]) == 4 + 256 * 9


def test_ipv6_networks() -> None:
    memory = Memory()
    memory.learn([f"2001:db8:1:2::{number:x}" for number in range(1, 4)])
    assert memory.seen("2001:db8:1:2::99") == {"seen_network": "2001:db8:1:2::/64: 3 of 3 bad in 28 days"}
    assert memory.seen("2001:db8:1:3::99") == {}  # one /64 is bad
    memory.learn([f"2001:db8:1:{number:x}::1" for number in range(0x10, 0x12)])
    assert memory.seen("2001:db8:1:3::99") == {"seen_network": "2001:db8:1::/48: 3 of 3 /64 bad in 28 days"}
    assert memory.seen("2001:db8:2:3::99") == {}


def test_one_machine_with_a_whole_ipv6_network_counts_once() -> None:
    memory = Memory()
    memory.learn([f"2001:db8:1:2::{number:x}" for number in range(1, 1000)])
    assert memory.seen("2001:db8:1:3::1") == {}
    assert len(memory.records[b"6" + packed("2001:db8:1:2::")[:8]]) == 4 + 32 * 12


def test_longest_evidence_fits_into_an_event() -> None:
    memory = Memory()
    memory.learn([f"2001:db8:1234:5678:9abc:def0:1234:{number:x}" for number in range(0x1000, 0x1020)])
    text = memory.seen("2001:db8:1234:5678:9abc:def0:1234:1000")["seen_network"]
    assert text == "2001:db8:1234:5678::/64: 31 of 31 bad in 28 days"
    assert len(f"seen_network: {text}") <= 68


# ---- autonomous systems

TABLE = AsTable(b"192.0.2.0,192.0.3.255,64500\n2001:db8::/32,64500\n198.51.100.0/24,AS64501\n", "as.csv")


def test_as_counts_distinct_addresses() -> None:
    memory = Memory(OffenseRules(as_table=TABLE))
    for _ in range(5):
        memory.learn(hosts(1, 20))
    assert "seen_as" not in memory.seen("192.0.3.200")
    memory.learn([f"2001:db8:{number:x}::1" for number in range(10)])
    assert memory.seen("192.0.3.200") == {"seen_as": "AS64500: 30 of 30 addresses bad in 180 days"}
    assert memory.seen("198.51.100.1") == {}
    memory.good(hosts(1, 31, "192.0.3."), days=1)
    assert memory.seen("192.0.3.200") == {}  # most of it is good


def system(memory: Memory, day: int = TODAY) -> tuple[float, float]:
    """The sums of AS 64500, bad and good."""
    ((_, bad, good, *_),) = offense_read(memory.records[offense_as(64500)], day, memory.rules) or []
    return round(bad, 2), round(good, 2)


def slash_64s(network: str, count: int = 1000, first: int = 0) -> list[str]:
    return [f"{network}:{number:x}::1" for number in range(first, first + count)]


def test_one_customer_with_an_ipv6_network_does_not_decide_about_its_as() -> None:
    """He has 65536 /64s at no cost, and uses another one for each session."""
    memory = Memory(OffenseRules(as_table=TABLE))
    memory.good("192.0.2.1")
    memory.learn(slash_64s("2001:db8:a"))
    assert system(memory) == (4.0, 1.0)
    assert "seen_as" not in memory.seen("192.0.3.200")
    memory.learn(slash_64s("2001:db8:b"), 0, ACCEPTED)
    assert system(memory) == (4.0, 5.0)
    # His network is full of /64s that are heavier than a single offense, so that each takes the place of the last one.
    memory.good(slash_64s("2001:db8:c", 64), days=4)
    before = system(memory)
    memory.learn(slash_64s("2001:db8:c", first=64))
    assert system(memory) == before
    for day in range(365):
        memory.learn(slash_64s("2001:db8:a", 60, first=60 * day), day=TODAY + day)
    bad, _ = system(memory, TODAY + 364)
    assert bad < 10


def test_address_that_goes_on_is_topped_up_in_its_as() -> None:
    """An address counts once, however often it is seen, and not less for having been seen before."""
    memory = Memory(OffenseRules(as_table=TABLE))
    for day in range(60):
        memory.learn("192.0.2.1", day=TODAY - 59 + day)
    value = memory.records[offense_as(64500)]
    assert offense_summary(value, TODAY, memory.rules)[:2] == (1, 1)  # type: ignore[index]
    (only,) = offense_read(value, TODAY, memory.rules) or []
    assert only[1] == pytest.approx(1.0, abs=0.05)


def test_no_as_without_a_table_or_a_range() -> None:
    memory = Memory(OffenseRules(as_table=TABLE))
    memory.learn("203.0.113.1")
    assert list(memory.records) == [b"4" + packed("203.0.113.1")[:3]]


# ---- clocks, half-lives and counters


def test_clock_that_jumps() -> None:
    memory = Memory()
    memory.learn("192.0.2.1", day=TODAY)
    assert "seen_address" in memory.seen("192.0.2.1", TODAY - 3000)  # never a negative age
    memory.learn("192.0.2.1", day=TODAY - 3000)
    assert members(memory, "192.0.2.1", TODAY - 3000) == [(1, 2.0, 0.0)]
    memory.learn("192.0.2.1", day=TODAY - 3000)
    assert members(memory, "192.0.2.1", TODAY - 3000) == [(1, 2.0, 0.0)]
    memory.learn("192.0.2.2", day=0xFFFF)
    assert memory.seen("192.0.2.2") == {"seen_address": "192.0.2.2: bad 1.0, good 0.0, today"}
    tidied = offense_tidy(memory.records[b"4" + packed("192.0.2.0")[:3]], TODAY, memory.rules)
    assert tidied is not None
    assert [(number, day) for number, _, _, day, _, _ in offense_read(tidied, TODAY, memory.rules) or []] == [
        (2, TODAY)
    ]


def test_another_half_life_applies_to_what_is_stored() -> None:
    memory = Memory()
    memory.learn("192.0.2.1", day=TODAY - 14)
    assert members(memory, "192.0.2.1") == [(1, 0.5, 0.0)]
    memory.rules = OffenseRules(7 * DAY)
    assert members(memory, "192.0.2.1") == [(1, 0.25, 0.0)]
    memory.learn("192.0.2.1")
    assert members(memory, "192.0.2.1") == [(1, 1.25, 0.0)]
    memory.rules = OffenseRules(3650 * DAY)
    assert members(memory, "192.0.2.1") == [(1, 1.25, 0.0)]
    assert "seen_address" in memory.seen("192.0.2.1", TODAY + 4095)
    assert memory.seen("192.0.2.1", TODAY + 4096) == {}


def test_counters_neither_underflow_nor_overflow() -> None:
    rules = OffenseRules()
    value: bytes | None = None
    for _ in range(1000):
        value, bad, good = offense_add(value, 1, 7, 0xFFFFFFFF, ACCEPTED, TODAY, rules)
        assert 0 <= bad <= 256
        assert 0 <= good <= 256
    for day in range(1000):
        value, _, _ = offense_add(value, 1, 7, 0xFFFFFFFF, ACCEPTED, TODAY + day, rules)
    assert value is not None
    assert offense_read(value, TODAY + 999, rules) == [(7, 7.0, 4.0, TODAY + 999, TODAY + 999, False)]
    sums = None
    for _ in range(50):
        sums = offense_add_as(sums, 1e8, 1e8, TODAY, rules)
    assert sums is not None
    assert offense_read(sums, TODAY, rules)[0][1] * 256 == pytest.approx(0xFFFFFF00, rel=1e-6)  # type: ignore[index]
    assert offense_add_as(sums, -1e30, -1e30, TODAY + 1, rules) == sums
    far = struct.pack("<BBHIIHH", 1, 0, 0, 0, 0, 0xFFFF, 0xFFFF)
    assert offense_read(far, TODAY, rules) == [(0, 0.0, 0.0, 0xFFFF, 0xFFFF, False)]


@pytest.mark.parametrize("seed", range(200))
def test_foreign_bytes_are_not_records(seed: int) -> None:
    chance = random.Random(seed)
    value = chance.randbytes(chance.randrange(0, 60))
    if seed % 2:  # nearly one
        value = bytes([1, chance.choice((0, 1, 2, 4))]) + struct.pack("<H", chance.randrange(4)) + value
    memory = Memory()
    memory.records = {b"4" + packed("192.0.2.0")[:3]: value}
    memory.record = memory.get = memory.records.get
    memory.seen("192.0.2.1")
    offense_read(value, TODAY, memory.rules)
    offense_summary(value, TODAY, memory.rules)
    offense_tidy(value, TODAY, memory.rules)
    offense_without(value, {1})
    memory.learn("192.0.2.1")
    assert (1, 1.0) in [each[:2] for each in members(memory, "192.0.2.1")] or "seen_address" in memory.seen("192.0.2.1")


def test_full_record_loses_its_lightest_and_oldest_member() -> None:
    rules = OffenseRules()
    value: bytes | None = None
    for number in range(32):
        value, _, _ = offense_add(value, 4, number, BAD, NOT_GOOD, TODAY, rules)
    value, _, _ = offense_add(value, 4, 5, 0, ACCEPTED, TODAY, rules)
    value, _, _ = offense_add(value, 4, 100, BAD, NOT_GOOD, TODAY - 20, rules)  # in the place of one of equal weight
    assert len(numbers(value, rules)) == 32
    assert 100 in numbers(value, rules)
    value, _, _ = offense_add(value, 4, 101, BAD, NOT_GOOD, TODAY, rules)
    assert {5, 101} <= numbers(value, rules)
    assert 100 not in numbers(value, rules)


def test_what_has_decayed_is_tidied_away() -> None:
    memory = Memory()
    memory.learn("192.0.2.1", day=TODAY - 200)
    memory.learn("192.0.2.2", day=TODAY - 20)
    key = b"4" + packed("192.0.2.0")[:3]
    tidied = offense_tidy(memory.records[key], TODAY, memory.rules)
    assert tidied is not None
    assert numbers(tidied, memory.rules) == {2}
    assert offense_tidy(tidied, TODAY, memory.rules) == tidied
    assert offense_tidy(tidied, TODAY + 300, memory.rules) is None


@pytest.mark.parametrize(
    "wrong",
    [(100, 3), (86399, 3), (86400, 0), (float("inf"), 1), (86400, 1, None, 86399), (86400, 1, None, 86400, 0),
     (86400, 1, None, 86400, 101)],
)  # fmt: skip
def test_rules_out_of_range(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"a half-life of|at least"):
        OffenseRules(*wrong)


def test_an_as_has_a_half_life_and_a_share_of_its_own() -> None:
    """60 bad addresses and 8 good ones: 88 %. After 90 days, neither the addresses nor their networks count."""
    memory = Memory(OffenseRules(as_table=TABLE, as_share=88))
    memory.learn([f"192.0.{2 + number % 2}.{number}" for number in range(1, 61)])
    memory.learn(hosts(101, 8), 0, ACCEPTED)
    assert memory.seen("192.0.3.200")["seen_as"] == "AS64500: 60 of 68 addresses bad in 180 days"
    memory.rules = OffenseRules(as_table=TABLE, as_share=89)
    assert "seen_as" not in memory.seen("192.0.3.200")
    memory.rules = OffenseRules(as_table=TABLE, as_share=88)
    assert memory.seen("192.0.3.200", TODAY + 90) == {"seen_as": "AS64500: 30 of 34 addresses bad in 180 days"}
    memory.rules = OffenseRules(as_table=TABLE, as_share=88, as_half_life=14 * DAY)
    assert memory.seen("192.0.3.200", TODAY + 90) == {}


# ---- what a session says

Row = tuple[int, bytes, bytes, int, int]
WEIGHTS = {"seen_network": 2, "seen_address": 1, "helo_reserved": 2}


def row(client: str = "192.0.2.1", outcome: str = "handed_off", marks: str = "", found: str = "", **values: int) -> Row:
    """A session as the recorder reads it."""
    fields = dict.fromkeys(HISTORY_FIELDS, 0)
    record: dict[str, object] = {**fields, "client": packed(client), "server": bytes(len(packed(client))), "name": b""}
    record |= {"ended": TODAY * DAY * 1_000_000, "answers": (), "score": None, "weight": 1}
    record["outcome"] = HISTORY_OUTCOMES.index(outcome)
    record["marks"] = sum(1 << HISTORY_MARKS.index(mark) for mark in marks.split())
    keys = [test.key for test in TESTS]
    record["found"] = sum(1 << keys.index(test) for test in found.split())
    record |= values
    raw = history_write([record[field] for field in HISTORY_FIELDS])
    return TODAY * DAY * 1_000_000, packed(client), raw, HISTORY_OUTCOMES.index(outcome), "cached" in marks


def evidence(*keys: str) -> int:
    return sum(1 << [scorer.key for scorer in SCORERS].index(key) for key in keys)


def judged(*rows: Row) -> tuple[int, int]:
    return offenses_in(rows, 3, WEIGHTS).get(packed("192.0.2.1"), (0, NOT_GOOD))


GOOD = (0, ACCEPTED)
WEAK = (0, HANDED_OFF)
NOTHING = (0, NOT_GOOD)
OFFENSE = (BAD, NOT_GOOD)


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (row("192.0.2.1"), WEAK),
        (row(marks="cached passed"), WEAK),
        (row(outcome="left"), NOTHING),
        (row(outcome="deferred"), NOTHING),
        (row(outcome="busy", found="pregreet"), NOTHING),
        (row(outcome="failed"), NOTHING),
        (row(outcome="rejected", found="pregreet"), OFFENSE),
        (row(outcome="left", found="pregreet"), OFFENSE),
        (row(outcome="rejected", found="bare_newline"), OFFENSE),
        (row(found="pregreet"), OFFENSE),  # in shadow mode
        (row(outcome="rejected", found="dnsbl", score=3), OFFENSE),
        (row(outcome="rejected", found="dnsbl", score=3, marks="unsure"), NOTHING),
        (row(found="dnsbl", score=2), NOTHING),
        (row(outcome="rejected", found="score", score=3, evidence=evidence("helo_reserved")), OFFENSE),
        # No offense leads to others: without its neighbors' part, this client would not have been rejected.
        (row(outcome="rejected", found="score", score=4, evidence=evidence("helo_reserved", "seen_network")), NOTHING),
        (row(outcome="rejected", found="score", score=5, evidence=evidence("helo_reserved", "seen_network")), OFFENSE),
        (row(outcome="rejected", marks="denylisted"), NOTHING),
        (row(marks="bypassed"), NOTHING),
        (row(marks="spared"), NOTHING),
        (row(marks="allowlisted", found="pregreet"), NOTHING),
        (row(marks="allowlisted"), WEAK),
        (row(outcome="relayed", marks="allowlisted", mta_rejected=5, recipients=5, mta_reply=550), NOTHING),
        (row(outcome="relayed", mta_accepted=1, mta_reply=250, recipients=1), GOOD),
        (row(outcome="continued", mta_accepted=1, mta_reply=250, recipients=2, mta_rejected=1), GOOD),
        (row(outcome="relayed", mta_rejected=1, mta_reply=550, recipients=1), (HALF_BAD, NOT_GOOD)),
        (row(outcome="continued", mta_rejected=1, mta_reply=554), (HALF_BAD, NOT_GOOD)),
        (row(outcome="relayed", mta_reply=450, recipients=1), NOTHING),  # greylisted
        (row(outcome="relayed", mta_reply=0), WEAK),  # encrypted
        (row(outcome="relayed", mta_accepted=1, mta_reply=250, mta_rejected=5, recipients=6), OFFENSE),
        (row(outcome="relayed", mta_accepted=1, mta_reply=250, mta_rejected=3, recipients=7), GOOD),
        (row(outcome="relayed", marks="cached", mta_rejected=3, recipients=3, mta_reply=550), OFFENSE),
        (row(marks="lists_allow", found="dnsbl", score=3), NOTHING),
    ],
)
def test_conduct_in_a_session(session: Row, expected: tuple[int, int]) -> None:
    assert judged(session) == expected


def test_worst_and_best_session_of_a_turn_count() -> None:
    bad = row(outcome="rejected", found="pregreet")
    mistyped = row(outcome="relayed", mta_rejected=1, mta_reply=550, recipients=1)
    good = row(outcome="relayed", mta_accepted=1, mta_reply=250)
    assert judged(*[bad] * 3, good, mistyped) == (BAD, ACCEPTED)
    assert judged(mistyped, good, mistyped) == (HALF_BAD, ACCEPTED)
    assert judged(*[bad] * 5000) == OFFENSE


def test_sessions_with_an_unknown_outcome_are_returned() -> None:
    """Instead of being counted; those whose outcome is known are counted as ever."""
    known = [
        row("192.0.2.2", outcome="relayed", mta_accepted=1, mta_reply=250),
        row("192.0.2.3", outcome="relayed", mta_reply=450, mta_recipients=1),
        row("192.0.2.4", outcome="rejected", found="pregreet"),
        row("192.0.2.5", outcome="deferred"),
        row("192.0.2.6", found="pregreet"),
        row("192.0.2.7", marks="bypassed"),
    ]
    waiting = [
        row("192.0.2.1", client_port=1025),
        row("2001:db8::1", outcome="relayed", client_port=65535),
        row("192.0.2.8", marks="allowlisted", client_port=3),
        row("192.0.2.9", marks="spared", client_port=4),
    ]
    unknown: list[tuple[bytes, int, int, bool]] = []
    assert offenses_in([*known, *waiting], 3, WEIGHTS, unknown) == offenses_in(known, 3, WEIGHTS)
    assert unknown == [
        (packed("192.0.2.1"), 1025, HANDED_OFF, True),
        (packed("2001:db8::1"), 65535, HANDED_OFF, True),
        (packed("192.0.2.8"), 3, HANDED_OFF, False),
        (packed("192.0.2.9"), 4, NOT_GOOD, True),
    ]


def test_rows_of_another_version_are_skipped() -> None:
    ended, client, raw, outcome, cached = row(found="pregreet", outcome="rejected")
    assert offenses_in([(ended, client, b"\xff" + raw[1:], outcome, cached)], 3, {}) == {}
    assert offenses_in([(ended, client, b"", outcome, cached)], 3, {}) == {}


# ----


def members(memory: Memory, client: str, day: int = TODAY) -> list[tuple[int, float, float]]:
    """What the record of a client's network has: number, bad and good, rounded."""
    key, _, _ = offense_keys(packed(client))[0]
    found = offense_read(memory.records[key], day, memory.rules) or []
    return [(number, round(bad, 2), round(good, 2)) for number, bad, good, _, _, _ in found]


def numbers(value: bytes, rules: OffenseRules) -> set[int]:
    return {number for number, *_ in offense_read(value, TODAY, rules) or []}


# ---- good and bad senders share networks for two months


@pytest.mark.parametrize("seed", range(5))
def test_soak_with_shared_networks(seed: int) -> None:
    """Spammers are found, and no sender that has delivered mail on some days is ever judged by its neighbors."""
    chance = random.Random(seed)
    memory = Memory(OffenseRules(as_table=AsTable(b"10.0.0.0/16,64500\n10.1.0.0/16,64501\n", "as.csv")))
    good = [f"10.0.{chance.randrange(40)}.{number}" for number in range(100)]
    spammers = [f"10.{chance.randrange(2)}.{chance.randrange(40)}.{100 + number}" for number in range(120)]
    delivered: dict[str, int] = dict.fromkeys(good, 0)
    wrong = found = chances = 0
    for day in range(TODAY - 60, TODAY):
        for client in good:
            if chance.random() < 0.6:
                if delivered[client] >= 4:
                    wrong += bool(memory.seen(client, day))
                memory.learn(client, HALF_BAD if chance.random() < 0.1 else 0, ACCEPTED, day)
                delivered[client] += 1
        for client in spammers:
            if chance.random() < 0.2:
                if day > TODAY - 30:
                    chances += 1
                    found += bool(memory.seen(client, day))
                memory.learn(client, BAD, NOT_GOOD, day)
    assert wrong == 0
    assert found > 0.95 * chances
    assert "seen_as" in memory.seen("10.1.39.1", TODAY)
    assert "seen_as" not in memory.seen("10.0.39.1", TODAY)
