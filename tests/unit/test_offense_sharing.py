"""Between the recorder and the cluster process: packets, the order in which records are shared, the writer's part."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.config import Config
from fastscreen.core import OffenseRules, offense_add, offense_read
from fastscreen.offenses import outbox, packets, writer
from fastscreen.offenses.clock import DAY
from fastscreen.offenses.networks import keys_around, keys_of_client, network_of
from fastscreen.offenses.outbox import Outbox
from fastscreen.offenses.packets import Changed, Merge, Record, Resend
from fastscreen.offenses.writer import OffenseWriter
from fastscreen.process.conditions import SIZE, Conditions, Kind

TODAY = 20_000
RULES = OffenseRules()
BAD, GOOD = (256, 0), (0, 2)


def key(number: int) -> bytes:
    return b"4\xc0" + number.to_bytes(2)


def value(*numbers: int, day: int = TODAY, bad: int = 256, good: int = 0) -> bytes:
    record = None
    for number in numbers:
        record, *_ = offense_add(record, 1, number, bad, good, day, RULES)
    assert record is not None
    return record


# ---- packets


def test_packets() -> None:
    some: list[Record] = [(key(number), value(*range(number % 256 + 1))) for number in range(300)]
    some += [(b"6" + bytes(8), b"x"), (b"w" + bytes(6), b"y" * packets.RECORD_MAX)]
    for encode, kind in ((packets.encode_changed, Changed), (packets.encode_merge, Merge)):
        encoded = encode(some)
        assert all(len(packet) <= packets.PACKET_MAX for packet in encoded)
        found: list[Record] = []
        for packet in encoded:
            decoded = packets.decode(packet)
            assert isinstance(decoded, kind)
            found += decoded.records
        assert found == some
        assert encode([]) == []
    assert packets.decode(packets.encode_resend(TODAY)) == Resend(TODAY)


@pytest.mark.parametrize(
    "packet",
    [
        b"", b"C", b"X\x00", b"R\x00", b"R\x00\x00\x00", b"C\x04", b"C\x04\x00\x01", b"C\x04\x00\x024abcx",
        b"C\x04\x00\x004abc", b"M\x03\x00\x014abx", b"M\x05\x00\x01aabcdx", b"M\x04\x00\x01xabcx",
        b"C\x04\xff\xff4abc" + b"x" * 8000, b"C\x04" + (packets.RECORD_MAX + 1).to_bytes(2) + b"4abc" + b"x" * 2309,
        b"C" + b"x" * packets.PACKET_MAX,
    ],
)  # fmt: skip
def test_malformed_packets(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"a record that|a packet of"):
        packets.decode(packet)


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        (bytes((192, 0, 2, 1)), [b"4\xc0\x00\x02"]),
        (bytes((192, 0, 2, 0, 24)), [b"4\xc0\x00\x02"]),
        (bytes((192, 0, 2, 0, 23)), []),
        (bytes(16), [b"6" + bytes(8), b"w" + bytes(6)]),
        (bytes(16) + b"\x40", [b"6" + bytes(8), b"w" + bytes(6)]),
        (bytes(16) + b"\x38", [b"w" + bytes(6)]),
        (bytes(16) + b"\x20", []),
    ],
)
def test_records_about_a_client(client: bytes, wanted: list[bytes]) -> None:
    assert keys_of_client(client) == wanted


@pytest.mark.parametrize("network", ["192.0.2.0/24", "2001:db8::/64", "2001:db8::/48"])
def test_networks_of_records(network: str) -> None:
    wanted = ipaddress.ip_network(network)
    assert wanted in [network_of(each) for each in keys_around(wanted)]
    assert network_of(b"a" + bytes(4)) is None


# ---- the order


def test_records_with_offenses_go_first() -> None:
    box = Outbox()
    box.put([key(1), key(2)], is_bad=False)
    box.put([key(3)], is_bad=True)
    box.put([key(2)], is_bad=True)
    box.put([key(3)], is_bad=False)
    assert box.take(2) == [key(3), key(2)]
    assert box.take(2) == [key(1)]
    assert not len(box)


def test_a_flood_of_good_networks_displaces_no_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 10)
    box = Outbox()
    box.put([key(number) for number in range(5)], is_bad=True)
    box.put([key(number) for number in range(100, 150)], is_bad=False)
    assert (len(box), box.dropped) == (10, 45)
    assert box.take(100) == [*(key(number) for number in range(5)), *(key(number) for number in range(145, 150))]
    box.put([key(number) for number in range(12)], is_bad=True)
    assert box.take(100) == [key(number) for number in range(2, 12)]


def test_what_changed_since_a_day() -> None:
    box = Outbox()
    some = [
        (key(1), value(1, day=TODAY - 3)),
        (key(2), value(1, day=TODAY - 1)),
        (key(3), value(1, bad=0, good=2)),
        (key(4), b"damaged"),
        (b"a" + bytes(4), b"\x01" + bytes(3) + b"\xff" * 4 + bytes(4) + TODAY.to_bytes(2, "little") * 2),
    ]
    box.put_recent(some, TODAY - 1, TODAY, RULES)
    assert box.take() == [key(2), key(3)]
    box.put_recent(some, 0, TODAY, RULES)
    assert box.take() == [key(1), key(2), key(3)]


# ---- the writer


class Fixture:
    """A writer, and what it shares."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shared: list[Record] = []
        self.now = float(TODAY * DAY)
        self.conditions = Conditions(memoryview(bytearray(SIZE)))
        self.said: list[str] = []
        self.writer = self.new()

    def config(self, *share: str) -> Config:
        settings = config.default()
        return msgspec.structs.replace(
            settings,
            score=msgspec.structs.replace(settings.score, memory=str(self.path)),
            cluster=msgspec.structs.replace(settings.cluster, share=share),
        )

    def new(self) -> OffenseWriter:
        return OffenseWriter(
            self.config("passes", "offenses"),
            RULES,
            self.conditions,
            info=self.said.append,
            warn=self.said.append,
            share=self.shared.extend,
            clock=lambda: self.now,
        )

    def learn(self, *clients: str, conduct: tuple[int, int] = BAD) -> list[bytes]:
        """In a turn; return the keys of what was shared."""
        self.writer.note({ipaddress.ip_address(client).packed: conduct for client in clients})
        return self.turn()

    def turn(self) -> list[bytes]:
        self.shared.clear()
        self.writer.turn()
        return [key for key, _ in self.shared]

    def members(self, key: bytes) -> list[int]:
        assert self.writer._file is not None
        with self.writer._file.environment.begin() as transaction:
            found = transaction.get(key)
        return sorted(member[0] for member in offense_read(found, TODAY, RULES) or ()) if found is not None else []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Fixture]:
    found = Fixture(tmp_path / "offenses")
    yield found
    found.writer.close()
    assert found.conditions.read() == []
    assert found.said == []


def test_changes_are_shared_once(file: Fixture) -> None:
    assert file.learn("192.0.2.1", "192.0.2.2", "2001:db8::1") == [
        b"4\xc0\x00\x02", b"6" + ipaddress.ip_address("2001:db8::").packed[:8],
        b"w" + ipaddress.ip_address("2001:db8::").packed[:6],
    ]  # fmt: skip
    assert file.turn() == []
    assert file.learn("192.0.2.1") == [], "the same day"
    assert file.learn("198.51.100.1", conduct=GOOD) == [b"4\xc6\x33\x64"]
    assert file.learn("192.0.2.1", conduct=GOOD) == [b"4\xc0\x00\x02"]


def test_nothing_is_shared_unless_it_is_configured(file: Fixture) -> None:
    file.writer.configure(file.config("passes"), RULES)
    assert file.learn("192.0.2.1") == []
    file.writer.resend(0)
    assert file.turn() == []
    file.writer.configure(file.config("offenses"), RULES)
    assert file.turn() == [b"4\xc0\x00\x02"], "what was asked for meanwhile"


def test_the_rate_is_limited(file: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [f"192.0.{number}.1" for number in range(250)]
    first = file.learn(*clients)
    second = file.turn()
    assert (len(first), len(second)) == (outbox.RATE, 50)
    assert len({*first, *second}) == 250


def test_everything_is_shared_again(file: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RESEND", 40)
    file.learn(*(f"192.0.{number}.1" for number in range(100)))
    file.writer.resend(TODAY)
    assert [len(file.turn()) for _ in range(4)] == [40, 40, 20, 0]
    file.writer.resend(TODAY + 1)
    assert [len(file.turn()) for _ in range(4)] == [0, 0, 0, 0]


def test_records_of_others_are_merged_and_not_shared(file: Fixture) -> None:
    file.learn("192.0.2.1")
    file.writer.merge([(b"4\xc0\x00\x02", value(2, 3)), (b"4\xc6\x33\x64", value(7)), (b"4\xcb\x00\x71", b"damaged")])
    assert file.turn() == []
    assert file.members(b"4\xc0\x00\x02") == [1, 2, 3]
    assert file.members(b"4\xc6\x33\x64") == [7]
    assert file.members(b"4\xcb\x00\x71") == []
    assert file.writer.stats().merged == 2
    file.writer.merge([(b"4\xc0\x00\x02", value(1, 2))])
    file.turn()
    assert file.writer.stats().merged == 2, "it was known"


def test_what_waits_to_be_merged_is_bounded(file: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_MERGING", 100)
    file.writer.merge([(key(number), value(1)) for number in range(100)])
    file.turn()
    assert file.writer.stats().merged == -(-100 // len(value(1)))
    file.writer.merge([(key(200), value(1))])
    file.turn()
    assert file.members(key(200)) == [1]


def test_the_thread_merges_before_its_turn(file: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait for their greeting."""
    monkeypatch.setattr(writer, "TURN_SECONDS", 30.0)
    monkeypatch.setattr(writer, "MERGE_SECONDS", 0.01)
    file.writer.turn()
    file.writer.start()
    for number in range(3):
        file.writer.merge([(b"4\xc0\x00\x02", value(number))])
        end = time.monotonic() + 5
        while number not in file.members(b"4\xc0\x00\x02"):
            assert time.monotonic() < end
            time.sleep(0.005)
    assert file.writer.is_alive


def test_merging_does_not_keep_the_thread_from_its_turns(file: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(writer, "MERGE_SECONDS", 0.01)
    file.writer.start()
    file.writer.note({bytes((192, 0, 2, 1)): BAD})
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.001):
            file.writer.merge([(key(1), value(1))])

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 5
    while not file.shared and time.monotonic() < end:
        time.sleep(0.01)
    over.set()
    thread.join()
    assert [key for key, _ in file.shared] == [b"4\xc0\x00\x02"]


def test_a_file_that_is_moved_aside_loses_nothing_for_good(file: Fixture) -> None:
    """What cannot be merged now comes again with the next look-up."""
    file.writer.close()
    file.path.write_bytes(b"something else" * 1000)
    file.writer = file.new()
    file.writer.merge([(b"4\xc0\x00\x02", value(1))])
    file.turn()
    assert any("moved" in text or "aside" in text or "renamed" in text for text in file.said), file.said
    file.said.clear()
    file.writer.merge([(b"4\xc0\x00\x02", value(1))])
    file.turn()
    assert file.members(b"4\xc0\x00\x02") == [1]
    assert not any(condition.kind == Kind.OFFENSES for condition in file.conditions.read())
