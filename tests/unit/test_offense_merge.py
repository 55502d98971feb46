"""What other hosts know is merged into the memory of offenses: days and addresses count once."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from fastscreen.core import (
    AsTable,
    OffenseRules,
    offense_add,
    offense_as,
    offense_keys,
    offense_merge,
    offense_read,
)
from fastscreen.offenses.store import learn, merge

TODAY = 20_000
RULES = OffenseRules()
BAD, NOT_GOOD, ACCEPTED = 256, 0, 2
TABLE = AsTable(b"192.0.2.0/24,64500\n2001:db8::/32,64501\n", "as")


class Host:
    """The memory of one host, in a dictionary. It stands for a transaction, too."""

    def __init__(self, rules: OffenseRules = RULES) -> None:
        self.rules = rules
        self.records: dict[bytes, bytes] = {}
        self.get = self.records.get

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def learn(self, client: str, bad: int = BAD, good: int = NOT_GOOD, day: int = TODAY) -> None:
        learn(self, {packed(client): (bad, good)}, day, self.rules)

    def merge(self, other: Host, today: int = TODAY) -> int:
        return merge(self, [each for each in other.records.items() if each[0][:1] != b"a"], today, self.rules)

    def weights(self, client: str, today: int = TODAY) -> tuple[float, float] | None:
        """Of the address, bad and good."""
        key, _, number = offense_keys(packed(client))[0]
        for member in offense_read(self.records[key], today, self.rules) or ():
            if member[0] == number:
                return round(member[1], 2), round(member[2], 2)
        return None

    def of_system(self, number: int, today: int = TODAY) -> tuple[float, float]:
        [sums] = offense_read(self.records[offense_as(number)], today, self.rules) or []
        return round(sums[1], 2), round(sums[2], 2)


def packed(client: str) -> bytes:
    return ipaddress.ip_address(client).packed


def shared(*hosts: Host, today: int = TODAY) -> None:
    """Each gets what the others know."""
    for host in hosts:
        for other in hosts:
            host.merge(other, today)


def test_the_same_day_on_two_hosts_is_one_day() -> None:
    one, two = Host(), Host()
    one.learn("192.0.2.1")
    two.learn("192.0.2.1")
    shared(one, two)
    assert one.weights("192.0.2.1") == two.weights("192.0.2.1") == (1.0, 0.0)


def test_days_on_several_hosts_add_up_as_on_one() -> None:
    one, two, alone = Host(), Host(), Host()
    for number, host in enumerate([one, two, one, one, two]):
        host.learn("192.0.2.1", day=TODAY - 4 + number)
        alone.learn("192.0.2.1", day=TODAY - 4 + number)
        shared(one, two, today=TODAY - 4 + number)
    assert one.weights("192.0.2.1") == two.weights("192.0.2.1") == alone.weights("192.0.2.1")


def test_good_days_protect_on_other_hosts() -> None:
    one, two = Host(), Host()
    for day in range(3):
        one.learn("192.0.2.1", 0, ACCEPTED, TODAY - day)
    two.learn("192.0.2.1")
    shared(one, two)
    for host in (one, two):
        weights = host.weights("192.0.2.1")
        assert weights is not None and weights[0] == 1.0 and weights[1] > 1.9
        assert not (offense_read(host.records[b"4\xc0\x00\x02"], TODAY, RULES) or [])[0][5]


def test_own_offenses_that_come_back_change_nothing() -> None:
    one, two = Host(), Host()
    one.learn("192.0.2.1")
    one.learn("192.0.2.2")
    two.merge(one)
    before = dict(one.records)
    for _ in range(3):
        assert one.merge(two) == 0
    assert one.records == before
    assert one.merge(two, TODAY + 20) == 0, "nor do they in three weeks"


def test_an_address_counts_once_in_its_network_and_as() -> None:
    hosts = [Host(OffenseRules(as_table=TABLE)) for _ in range(3)]
    for host in hosts:
        host.learn("192.0.2.1")
    hosts[0].learn("192.0.2.2")
    hosts[2].learn("192.0.2.3", 0, ACCEPTED)
    shared(*hosts)
    shared(*hosts)
    for host in hosts:
        members = offense_read(host.records[b"4\xc0\x00\x02"], TODAY, RULES) or []
        assert sorted(member[0] for member in members) == [1, 2, 3]
        assert host.of_system(64500) == (2.0, 1.0)


def test_an_as_counts_ipv6_networks_once() -> None:
    one, two = (Host(OffenseRules(as_table=TABLE)) for _ in range(2))
    one.learn("2001:db8::1")
    two.learn("2001:db8::2")
    shared(one, two)
    assert one.of_system(64501) == two.of_system(64501) == (1.0, 0.0)
    assert one.records[b"6" + packed("2001:db8::")[:8]] != b""
    assert len(offense_read(one.records[b"6" + packed("2001:db8::")[:8]], TODAY, RULES) or []) == 2


def test_one_customer_with_an_ipv6_network_does_not_decide_about_its_as() -> None:
    """Each host sees other /64s of his, more than there is room for."""
    one, two, three = (Host(OffenseRules(as_table=TABLE)) for _ in range(3))
    for number in range(100):
        one.learn(f"2001:db8:a:{number:x}::1")
        two.learn(f"2001:db8:a:{0x8000 + number:x}::1", day=TODAY - 1)
        two.learn(f"2001:db8:b:{number:x}::1", 0, ACCEPTED, day=TODAY - 1)
    three.merge(two)
    three.merge(one)  # heavier: they take the places of those of the day before
    assert three.of_system(64501) == pytest.approx((4, 4), abs=0.05)
    for _ in range(3):
        shared(one, two, three)
    for host in (one, two, three):
        assert max(host.of_system(64501)) <= 4


def test_an_as_forgets_old_offenses_of_others() -> None:
    """By the half-life of AS, as at the host that has seen them; of good conduct too, and for what it had before."""
    rules = OffenseRules(as_table=TABLE, half_life=14 * 86400, as_half_life=28 * 86400)
    one, two = Host(rules), Host(rules)
    one.learn("192.0.2.1", day=TODAY - 28)
    one.learn("192.0.2.2", 0, ACCEPTED, TODAY - 28)
    two.merge(one)
    assert two.of_system(64500) == one.of_system(64500) == (0.5, 0.5)
    for client, bad, good in (("192.0.2.1", BAD, NOT_GOOD), ("192.0.2.2", 0, ACCEPTED)):
        one.learn(client, bad, good)
    two.merge(one)
    assert two.of_system(64500) == one.of_system(64500) == (1.0, 1.0)


def test_what_has_decayed_is_not_merged() -> None:
    """Whether or not the rest of the address's record is known: hosts that merge in another order agree."""
    one, two, three = Host(), Host(), Host()
    one.learn("192.0.2.1", 0, ACCEPTED)
    two.learn("192.0.2.1", day=TODAY - 60)
    three.merge(two)
    assert three.records == {}
    three.merge(one)
    one.merge(two)
    assert one.records == three.records


def test_a_day_in_the_future_is_today() -> None:
    one, two = Host(), Host()
    one.learn("192.0.2.1", day=TODAY + 100)
    two.merge(one)
    [member] = offense_read(two.records[b"4\xc0\x00\x02"], TODAY, RULES) or []
    assert member[3] == TODAY


def test_weights_are_no_higher_than_here() -> None:
    other = b"\x01\x01\x01\x00" + b"\x07" + b"\xff\xff\xff\xff" + TODAY.to_bytes(2, "little") * 2
    merged = offense_merge(None, other, 1, TODAY, RULES)
    assert merged is not None and merged[0] is not None
    [member] = offense_read(merged[0], TODAY, RULES) or []
    assert member[1:3] == (7.0, 4.0)


@pytest.mark.parametrize("size", [4, 2])
def test_the_heaviest_members_stay(size: int) -> None:
    room = {4: 32, 2: 64}[size]
    value, other = None, None
    for number in range(room):
        value = offense_add(value, size, number, BAD, NOT_GOOD, TODAY - 1, RULES)[0]
        other = offense_add(other, size, 100 + number, BAD, NOT_GOOD, TODAY - number, RULES)[0]
    assert value is not None and other is not None
    merged = offense_merge(value, other, size, TODAY, RULES)
    assert merged is not None and merged[0] is not None
    members = offense_read(merged[0], TODAY, RULES) or []
    assert len(members) == room
    assert {100}.issubset(member[0] for member in members), "one of today"
    assert not {100 + room - 1} & {member[0] for member in members}, "but not the oldest"


@pytest.mark.parametrize(
    "other",
    [b"", b"\x01", b"\x02\x01\x00\x00", b"\x01\x02\x00\x00", b"\x01\x01\x01\x00", b"\x01\x01\x01\x01" + bytes(257 * 9),
     b"\x01\x00" + bytes(14)],
    ids=["empty", "short", "version", "size", "cut off", "too many", "an AS"],
)  # fmt: skip
def test_what_is_not_a_record_changes_nothing(other: bytes) -> None:
    host = Host()
    host.learn("192.0.2.1")
    before: dict[bytes, Any] = dict(host.records)
    assert offense_merge(before[b"4\xc0\x00\x02"], other, 1, TODAY, RULES) is None
    assert merge(host, [(b"4\xc0\x00\x02", other)], TODAY, RULES) == 0
    assert host.records == before


def test_what_has_decayed_is_not_kept() -> None:
    one, two = Host(), Host()
    one.learn("192.0.2.1", day=TODAY - 100)
    assert two.merge(one) == 0
    assert two.records == {}
    assert offense_merge(None, one.records[b"4\xc0\x00\x02"], 1, TODAY, RULES) == (None, 0.0, 0.0)


def test_a_damaged_local_record_is_replaced() -> None:
    one = Host()
    one.learn("192.0.2.1")
    merged = offense_merge(b"\x01\x01\xff\xff", one.records[b"4\xc0\x00\x02"], 1, TODAY, RULES)
    assert merged is not None and merged[0] == one.records[b"4\xc0\x00\x02"]


@pytest.mark.parametrize(("size", "today"), [(3, TODAY), (0, TODAY), (1, -1), (1, 1 << 16)])
def test_wrong_arguments(size: int, today: int) -> None:
    with pytest.raises(ValueError, match="a member's number"):
        offense_merge(None, b"", size, today, RULES)
