"""One host's part in sharing offenses, against real servers: merging, gaps, deletions, bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastscreen.cluster import forgotten, offense_sharing, records, secrets, sharing, tombstones
from fastscreen.cluster.deletion_file import DeletionFile
from fastscreen.cluster.forgotten import Forgotten
from fastscreen.cluster.local_cache import LocalDeletions
from fastscreen.cluster.offense_sharing import OffenseSharing
from fastscreen.cluster.records import offenses_name
from fastscreen.cluster.sharing import Offenses
from fastscreen.cluster.tombstones import Tombstone
from fastscreen.config.model import ClusterConfig
from fastscreen.core import OffenseRules, offense_keys, offense_read, offense_summary
from fastscreen.offenses.networks import numbers_in
from fastscreen.offenses.packets import Record
from fastscreen.offenses.store import learn, merge
from peers.redis_server import FLAVORS, RedisServer
from peers.test_cluster_store import PREFIX, SECRET, Host, hosts, run, stamps, wait

DAY = 86400
RULES = OffenseRules()
BOTH = ("passes", "offenses")
KEY = b"4\xc0\x00\x02"


class Memory:
    """What the recorder has of a host, in a dictionary. It stands for a transaction, too."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.get = self.records.get
        self.resent: list[int] = []
        self.given = 0
        self.deleted: list[str] = []
        self.host: Host | None = None

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def merge(self, found: list[Record]) -> None:
        self.given += len(found)
        merge(self, found, today(), RULES)

    def resend(self, since: int) -> None:
        self.resent.append(since)
        if self.host is not None:
            sharing_of(self.host).keep(list(self.records.items()))

    def delete(self, network: Any, is_kept: object = None) -> tuple[int, bool]:
        self.deleted.append(str(network))
        for key in [key for key in self.records if key[:4] == b"4" + network.network_address.packed[:3]]:
            del self.records[key]
        return 1, False

    def close(self) -> None:
        pass

    def offend(self, *clients: str, bad: int = 256, good: int = 0, day: int | None = None) -> None:
        """The recorder writes it, and says so."""
        for client in clients:
            packed = ipaddress.ip_address(client).packed
            changed = learn(self, {packed: (bad, good)}, day if day is not None else today(), RULES)
            assert self.host is not None
            sharing_of(self.host).keep([(key, self.records[key]) for key in changed.bad + changed.others])

    def bad(self, key: bytes = KEY) -> list[int]:
        value = self.records.get(key)
        return bad_in(value) if value is not None else []


def today() -> int:
    return int(time.time()) // DAY


def bad_in(record: bytes) -> list[int]:
    return sorted(member[0] for member in offense_read(record, today(), RULES) or () if member[5])


def sharing_of(host: Host) -> OffenseSharing:
    assert host.sharing.offenses is not None
    return host.sharing.offenses


def new(url: str, name: str, kinds: tuple[str, ...] = BOTH, file: Path | None = None, **settings: Any) -> Host:
    memory = Memory()
    loop = asyncio.get_running_loop()
    deletions = DeletionFile(file) if file is not None else None
    offenses = Offenses(RULES, LocalDeletions(memory, print, loop.time), deletions, memory.merge, memory.resend)
    host = Host(url, name, share=kinds, accept=kinds, offenses=offenses, **settings)
    host.memory = memory  # type: ignore[attr-defined]
    memory.host = host
    return host


def memory_of(host: Host) -> Memory:
    found: Memory = host.memory  # type: ignore[attr-defined]
    return found


def stored(server: RedisServer, key: bytes = KEY) -> bytes | None:
    """The record in the server."""
    value = server.client.get(PREFIX.encode() + offenses_name(key))
    if value is None:
        return None
    found = records.verify_offenses(secrets.parse(SECRET, "secret"), key, value, now=time.time())
    return found.body if isinstance(found, records.Sealed) else None


def bad_at(server: RedisServer, key: bytes = KEY) -> list[int]:
    record = stored(server, key)
    return bad_in(record) if record is not None else []


async def asked(host: Host, client: str) -> None:
    """A client begins its greet wait, and what is found is merged."""
    sharing_of(host)._asked.clear()
    host.sharing.look_up(0, [ipaddress.ip_address(client).packed])
    await wait(lambda: not len(host.sharing.lookups), "the answer")


async def settled(*some: Host) -> None:
    """Until they have sent what the server may have lacked when they connected."""
    for host in some:
        await wait(lambda host=host: memory_of(host).resent and not len(sharing_of(host)), "what the server lacks")  # type: ignore[misc]
    await asyncio.sleep(0.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offense_sharing, "GATHER", 0.02)
    monkeypatch.setattr(sharing, "REFRESH_SECONDS", 0.2)
    monkeypatch.setattr(sharing, "SETTLED_SECONDS", 0.05)


@pytest.fixture(scope="module", params=FLAVORS)
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("server"), flavor=request.param)
    yield server
    server.close()


@pytest.fixture
def server(either: RedisServer) -> RedisServer:
    either.client.flushall()
    return either


def test_a_look_up_brings_pass_and_offenses_in_one_request(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            memory_of(one).offend("192.0.2.1", "192.0.2.2")
            memory_of(one).offend("2001:db8::1")
            await wait(lambda: bad_at(server) == [1, 2] and server.client.dbsize() == 4, "the records")
            await settled(one, two)
            before = server.client.info("commandstats")["cmdstat_mget"]["calls"]
            await asked(two, "192.0.2.9")
            await asked(two, "2001:db8::2")
            assert server.client.info("commandstats")["cmdstat_mget"]["calls"] == before + 2
            assert memory_of(two).records == memory_of(one).records
            seconds = server.client.ttl(PREFIX.encode() + offenses_name(KEY))
            assert 4 * 14 * DAY < seconds <= 4 * 14 * DAY + DAY, "a single day has decayed after four half-lives"

    run(work())


def test_two_hosts_that_store_at_once(server: RedisServer) -> None:
    """Neither overwrites what the other has stored."""

    async def work() -> None:
        names = [f"mx{number}" for number in range(1, 5)]
        async with hosts(*(new(server.url, name) for name in names)) as some:
            for turn in range(10):
                for number, host in enumerate(some):
                    memory_of(host).offend(f"192.0.2.{10 * turn + number}")
                await asyncio.sleep(0.01)
            wanted = [10 * turn + number for turn in range(10) for number in range(4)]
            await wait(lambda: bad_at(server) == sorted(wanted), "all of them")
            for host in some:
                await asked(host, "192.0.2.200")
                assert memory_of(host).bad() == sorted(wanted)

    run(work())


def test_what_has_not_changed_is_neither_stored_nor_given_again(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            await settled(one, two)
            memory_of(one).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            for _ in range(3):
                await asked(two, "192.0.2.9")
                await asked(one, "192.0.2.9")
            assert (memory_of(one).given, memory_of(two).given) == (0, 1)
            value = server.client.get(PREFIX.encode() + offenses_name(KEY))
            memory_of(two).offend("192.0.2.1")  # the same day
            sharing_of(two).keep(list(memory_of(two).records.items()))
            await wait(lambda: not len(sharing_of(two)), "the queue")
            await asyncio.sleep(0.1)
            assert server.client.get(PREFIX.encode() + offenses_name(KEY)) == value
            assert sharing_of(two).stored == 0

    run(work())


@pytest.mark.parametrize("kinds", [("passes",), ("offenses",), ()])
def test_kinds(server: RedisServer, kinds: tuple[str, ...]) -> None:
    """Only what is configured is shared and accepted; a reload changes that."""

    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2", kinds)) as (one, two):
            has = "offenses" in kinds
            memory_of(two).offend("192.0.2.1")
            await asyncio.sleep(0.2)
            assert bad_at(server) == ([1] if has else [])
            memory_of(one).offend("192.0.2.2")
            await wait(lambda: 2 in bad_at(server), "the record")
            await asked(two, "192.0.2.9")
            assert memory_of(two).bad() == ([1, 2] if has else [1])
            two.sharing.configure(one_like(server.url))
            await wait(lambda: bad_at(server) == [1, 2], "what was there before")
            await asked(two, "192.0.2.9")
            assert memory_of(two).bad() == [1, 2]

    run(work())


def one_like(url: str) -> Any:
    return ClusterConfig(server=url, secret_file="secret", prefix=PREFIX, share=BOTH, accept=BOTH)


def test_a_queue_that_is_full_is_made_good(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offense_sharing, "QUEUE_MAX", 10)

    async def work() -> None:
        async with hosts(new(server.url, "mx1")) as (host,):
            memory = memory_of(host)
            await wait(lambda: memory.resent, "the first time")
            memory.resent.clear()
            memory.offend(*(f"192.0.{number}.1" for number in range(30)))
            assert len(sharing_of(host)) == 10
            assert sharing_of(host).dropped == 20
            memory.host = None
            await wait(lambda: memory.resent == [today()], "the request for the rest")
            memory.host = host
            for first in range(0, 30, 10):
                sharing_of(host).keep(list(memory.records.items())[first : first + 10])
                await wait(lambda: not len(sharing_of(host)), "a part of it")
            await wait(lambda: len(server.client.keys(PREFIX + "o:*")) == 30, "all of it")

    run(work())


@pytest.mark.parametrize("kind", ["restarted", "emptied", "new"])
def test_what_the_server_lacks_is_sent_again(server: RedisServer, kind: str) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1")) as (host,):
            memory_of(host).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            await wait(lambda: memory_of(host).resent == [0], "the first request")
            await wait(lambda: b'"offenses":1' in server.client.hget(PREFIX + "hosts", "mx1"), "the host's entry")
            if kind == "emptied":
                server.client.flushall()
                await wait(lambda: bad_at(server) == [1], "the record again")
                await wait(lambda: memory_of(host).resent == [0, 0], "the second request")
        name = "mx2" if kind == "new" else "mx1"
        async with hosts(new(server.url, name)) as (host,):
            await wait(lambda: memory_of(host).resent, "the request")
            assert memory_of(host).resent == [0 if kind == "new" else today() - 1]

    run(work())


def test_records_that_are_not_believed(server: RedisServer) -> None:
    """They are ignored, counted, and replaced."""

    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            memory_of(one).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            await settled(one, two)
            name = PREFIX.encode() + offenses_name(KEY)
            right = server.client.get(name)
            others = [
                *(right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :] for at in (40, len(right) - 1)),
                b"\2" + right[1:],
                *(b"", b"x", b"\1" * 2501, bytes(100)),
            ]
            for other in others:
                server.client.set(name, other)
                await asked(two, "192.0.2.9")
            server.client.delete(name)
            server.client.hset(name, "a", "b")
            await asked(two, "192.0.2.9")
            assert memory_of(two).records == {}
            ignored = two.sharing.ignored
            assert ignored[records.Reason.BAD_MAC] >= 2 and ignored[records.Reason.NEWER] == 1
            assert ignored[records.Reason.FOREIGN] >= 2 and two.store.oversized == 1
            for other in others:
                server.client.delete(name)
                server.client.set(name, other)
                memory_of(two).offend("192.0.2.7")
                sharing_of(two).keep(list(memory_of(two).records.items()))
                await wait(lambda: bad_at(server) == [7], f"a right record instead of {other!r}")

    run(work())


def test_a_replayed_record_adds_nothing(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            name = PREFIX.encode() + offenses_name(KEY)
            await settled(one, two)
            memory_of(one).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            old = server.client.get(name)
            memory_of(one).offend("192.0.2.2")
            await wait(lambda: bad_at(server) == [1, 2], "the newer record")
            await asked(two, "192.0.2.9")
            before = dict(memory_of(two).records)
            server.client.set(name, old)
            await asked(two, "192.0.2.9")
            assert memory_of(two).records == before
            memory_of(two).offend("192.0.2.3")
            await wait(lambda: bad_at(server) == [1, 2, 3], "what all of them know")

    run(work())


def test_a_deletion_holds(server: RedisServer) -> None:
    """Also for records that are on their way when it is made, and for a single address."""

    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            await settled(one, two)
            memory_of(one).offend("192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2")
            await wait(lambda: bad_at(server) == [1, 2] and bad_at(server, b"4\xc6\x33\x64") == [1, 2], "the records")
            for client in ("192.0.2.9", "198.51.100.9"):
                await asked(two, client)
            old = server.client.get(PREFIX.encode() + offenses_name(KEY))
            late = list(memory_of(two).records.items())
            assert await one.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))
            assert await one.sharing.forget(ipaddress.ip_network("198.51.100.2"))
            await wait(
                lambda: sorted(memory_of(two).deleted)[:2] == ["192.0.2.0/24", "198.51.100.2/32"], "the deletions"
            )
            assert stored(server) is None
            sharing_of(two).keep(late)  # it does not know of them yet
            await wait(lambda: not len(sharing_of(two)), "the queue")
            await asyncio.sleep(0.1)
            assert stored(server) is None
            server.client.set(PREFIX.encode() + offenses_name(KEY), old)
            for client in ("192.0.2.9", "198.51.100.9"):
                await asked(two, client)
            assert memory_of(two).bad() == []
            assert memory_of(two).bad(b"4\xc6\x33\x64") == [1]
            assert two.lines.count("cluster: mx1 deleted what is remembered of 192.0.2.0/24") == 1
            assert two.deleted == [], "workers have nothing to forget"
            assert not await two.look_up(b"\xc0\x00\x02\x01")

    run(work())


def test_what_begins_again_soon_after_a_deletion_is_shared_later(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first, it cannot be told from what was deleted."""
    monkeypatch.setattr(offense_sharing, "SETTLED", 1)

    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            await settled(one, two)
            memory_of(one).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            assert await one.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))
            await wait(lambda: memory_of(two).deleted, "the deletion")
            memory_of(two).offend("192.0.2.2")
            await wait(lambda: not len(sharing_of(two)), "the queue")
            await asyncio.sleep(0.1)
            assert stored(server) is None

            def is_shared() -> bool:
                two.sharing.expire()  # the process does so each second
                return bad_at(server) == [2]

            await wait(is_shared, "the new record")

    run(work())


def test_a_deletion_of_passes_leaves_offenses_and_the_reverse(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1"), new(server.url, "mx2")) as (one, two):
            client = b"\xc0\x00\x02\x01"
            memory_of(one).offend("192.0.2.1")
            one.keep(client, stamps())
            await wait(lambda: bad_at(server) == [1] and server.client.dbsize() == 3, "the records")
            assert await one.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))
            assert await two.look_up(client) is not None
            memory_of(two).offend("192.0.2.3")
            await asyncio.sleep(0.1)
            assert await one.sharing.delete(ipaddress.ip_network("192.0.2.0/24"))
            await wait(lambda: two.deleted == ["192.0.2.0/24"], "the deletion")
            assert memory_of(two).bad() == [3]

    run(work())


def test_a_deletion_without_a_server_is_kept(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "server")

    async def work() -> None:
        async with hosts(new(server.url, "mx1", file=tmp_path / "offenses"), new(server.url, "mx2")) as (one, two):
            memory_of(one).offend("192.0.2.1")
            await wait(lambda: bad_at(server) == [1], "the record")
            await asked(two, "192.0.2.9")
            server.kill()
            await wait(lambda: not one.is_ready() and not two.is_ready(), "the end")
            assert not await one.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))
            assert (tmp_path / "offenses.deletions").exists()
        async with hosts(new(server.url, "mx1", file=tmp_path / "offenses"), new(server.url, "mx2"), ready=False) as (
            one,
            two,
        ):
            server.start()
            await wait(lambda: memory_of(two).deleted, "the deletion")
            assert memory_of(two).deleted[0] == "192.0.2.0/24"
            await wait(lambda: not (tmp_path / "offenses.deletions").exists(), "the file")

    try:
        run(work())
    finally:
        server.close()


def test_a_host_without_a_memory_ignores_deletions_of_offenses(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(new(server.url, "mx1"), Host(server.url, "mx2")) as (one, two):
            assert await one.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))
            await asyncio.sleep(0.5)
            assert (len(two.sharing.tombstones), two.deleted, two.sharing.failed()) == (0, [], None)
            with pytest.raises(ValueError, match="no memory of offenses"):
                await two.sharing.forget(ipaddress.ip_network("192.0.2.0/24"))

    run(work())


@pytest.mark.parametrize(
    ("network", "left"),
    [
        ("192.0.2.0/24", []),
        ("192.0.0.0/16", []),
        ("0.0.0.0/0", []),
        ("192.0.2.0/31", [2, 3]),
        ("192.0.2.3", [1, 2]),
        ("192.0.3.0/24", [1, 2, 3]),
        ("2001:db8::/32", [1, 2, 3]),
    ],
)
def test_what_a_deletion_leaves(network: str, left: list[int]) -> None:
    memory = Memory()
    for number in (1, 2, 3):
        learn(memory, {bytes((192, 0, 2, number)): (256, 0)}, today(), RULES)
    known = Forgotten()
    assert known.left_of(KEY, memory.records[KEY], 0) == memory.records[KEY]
    tombstone = Tombstone(ipaddress.ip_network(network), 1000, "mx1", True)
    assert known.add(tombstone, b"")
    assert not known.add(tombstone, b"")
    record = known.left_of(KEY, memory.records[KEY], 1000)
    assert (bad_in(record) if record is not None else []) == left
    assert known.left_of(KEY, memory.records[KEY], 1001) == memory.records[KEY], "it was made later"
    known.expire(1001)
    assert known.left_of(KEY, memory.records[KEY], 1000) == memory.records[KEY]
    assert len(known) == 0


@pytest.mark.parametrize(
    ("network", "key", "left"),
    [
        ("2001:db8::1", b"6", 1),
        ("2001:db8::/64", b"6", 0),
        ("2001:db8::/65", b"6", 2),  # of hashes nobody knows which they are
        ("2001:db8::/64", b"w", 1),
        ("2001:db8::/63", b"w", 0),
        ("2001:db8::/48", b"w", 0),
        ("2001:db8::1", b"w", 1),
    ],
)
def test_what_a_deletion_leaves_of_ipv6(network: str, key: bytes, left: int) -> None:
    memory = Memory()
    for client in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        learn(memory, {ipaddress.ip_address(client).packed: (256, 0)}, today(), RULES)
    known = Forgotten()
    known.add(Tombstone(ipaddress.ip_network(network), 1000, "mx1", True), b"")
    wanted = next(each for each, *_ in offense_keys(ipaddress.ip_address("2001:db8::1").packed) if each[:1] == key)
    record = known.left_of(wanted, memory.records[wanted], 1000)
    summary = offense_summary(record, today(), RULES) if record is not None else (0,)
    assert summary is not None and summary[0] == left


def test_tombstones_of_offenses_are_signed_as_such() -> None:
    signing = secrets.parse(SECRET, "secret")
    for network in ("192.0.2.0/24", "192.0.2.111", "2001:db8::/64", "111.0.0.0/8"):
        for of_offenses in (True, False):
            tombstone = Tombstone(ipaddress.ip_network(network), int(time.time()), "mx1", of_offenses)
            value = tombstones.sign(signing, tombstone, DAY)
            assert tombstones.verify(signing, value, time.time()) == tombstone


def test_many_small_deletions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "MOST", 5)
    known = Forgotten()
    for number in range(100):
        known.add(Tombstone(ipaddress.ip_network((bytes((192, 0, number, 1)), 32)), 1000, "mx1", True), b"")
    assert sum(map(len, known._inside.values())) == known._count == 5
    assert numbers_in(KEY, ipaddress.ip_network("192.0.2.8/30")) == {8, 9, 10, 11}
