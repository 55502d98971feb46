"""Passes shared through real servers: Redis, Valkey, Sentinel; and what happens when they fail."""

import asyncio
import contextlib
import ipaddress
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.ports import free_port
from fastscreen.cache import keys
from fastscreen.cache.interfaces import Entry, Network
from fastscreen.cache.stamps import TESTS, Stamps
from fastscreen.cluster import files, records, tombstones
from fastscreen.cluster.deletion_file import DeletionFile
from fastscreen.cluster.files import Files
from fastscreen.cluster.local_cache import LocalCache
from fastscreen.cluster.records import Lifetime, Reason, SharedPass, record_name
from fastscreen.cluster.servers import Servers
from fastscreen.cluster.sharing import Found, Offenses, Sharing
from fastscreen.cluster.store import HostEntry, Store, Write
from fastscreen.cluster.tombstones import Tombstone
from fastscreen.config.model import ClusterConfig, Endpoint
from fastscreen.core import read_record, write_record
from peers import needs
from peers.redis_server import FLAVORS, RedisServer, Sentinel, wait_for_replica

DAY = 86400
LIFETIMES = (Lifetime(30 * DAY, 30 * DAY),) * TESTS
SECRET = b"a secret of the cluster's hosts"
KEY = b"\xc0\x00\x02\x01"
PREFIX = "fastscreen:"


def stamps(days: float = 20.0) -> Stamps:
    return (int(time.time() + days * DAY),) * TESTS


class FakeCache:
    """A `CacheAdmin` in memory."""

    def __init__(self, entries: dict[bytes, Stamps] | None = None) -> None:
        self.records = dict(entries or {})
        self.reads = 0

    def get(self, key: bytes) -> Stamps | None:
        return self.records.get(key)

    def entries(self, network: Network | None, after: bytes, limit: int) -> tuple[list[Entry], bool]:
        self.reads += 1
        found = [(key, self.records[key]) for key in sorted(self.records) if key > after]
        return found[:limit], len(found) > limit

    def delete(self, network: Network, is_kept: Callable[[Stamps], bool] | None = None) -> tuple[int, bool]:
        first, last = network.network_address.packed, network.broadcast_address.packed
        gone = [
            key
            for key, stamps in self.records.items()
            if keys.within(key, first, last) and not (is_kept is not None and is_kept(stamps))
        ]
        for key in gone:
            del self.records[key]
        return len(gone), False

    def put(self, entries: Iterable[Entry]) -> None:
        self.records.update(entries)

    def stats(self, enabled: tuple[int, ...], now: float) -> Any:
        return None

    def close(self) -> None:
        pass


class Host:
    """One host of a cluster, in this process."""

    def __init__(
        self,
        url: str,
        name: str = "mx1",
        *,
        cache: FakeCache | None = None,
        secret: bytes = SECRET,
        clock: Callable[[], float] = time.time,
        read: Files | None = None,
        deletions: DeletionFile | None = None,
        offenses: Offenses | None = None,
        **settings: Any,
    ) -> None:
        cluster = ClusterConfig(server=url, secret_file="secret", prefix=PREFIX, **settings)
        loop = asyncio.get_running_loop()
        found = read or files.parse(cluster, secret)
        self.found: list[tuple[int, list[Found]]] = []
        self.lines: list[str] = []
        self.deleted: list[str] = []
        self.cache = cache if cache is not None else FakeCache()
        self.sharing = Sharing(
            cluster,
            name,
            "1.0",
            Servers(cluster, found),
            found.secrets,
            LIFETIMES,
            LocalCache(self.cache, self.lines.append, loop.time),
            deletions,
            deliver=lambda worker, found: self.found.append((worker, found)),
            deleted=lambda tombstone: self.deleted.append(str(tombstone.network)),
            info=self.lines.append,
            warn=self.lines.append,
            clock=clock,
            timer=loop.time,
            loop=loop,
            offenses=offenses,
        )
        self.sharing.start()

    @property
    def store(self) -> Store:
        return self.sharing.store

    def keep(self, key: bytes, made: Stamps) -> None:
        assert self.sharing.keep(key, write_record(made))

    def is_ready(self) -> bool:
        return self.sharing._is_ready

    async def look_up(self, key: bytes, worker: int = 0, seconds: float = 2.0) -> Stamps | None:
        """What a worker gets; None: nothing."""
        self.found.clear()
        self.sharing.look_up(worker, [key])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.found:
                assert self.found[0][0] == worker
                assert self.found[0][1][0][0] == key
                return read_record(self.found[0][1][0][1])
            if not len(self.sharing.lookups):
                return None
            await asyncio.sleep(0.002)
        return None


async def wait(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:g} s still waiting for {what}")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def hosts(*some: Host, ready: bool = True) -> AsyncIterator[tuple[Host, ...]]:
    try:
        for host in some:
            if ready:
                await wait(host.is_ready, f"a connection: {host.store.status()}")
        yield some
    finally:
        for host in some:
            await host.sharing.close(0)
            assert host.sharing.failed() is None


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscreen.cluster.sharing.SETTLED_SECONDS", 0.05)


@pytest.fixture(scope="module", params=FLAVORS)
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("server"), flavor=request.param)
    yield server
    server.close()


@pytest.fixture
def server(either: RedisServer) -> RedisServer:
    either.client.flushall()
    return either


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    servers: list[RedisServer] = []

    def started(*options: str, **settings: Any) -> RedisServer:
        servers.append(RedisServer(tmp_path / str(len(servers)), *options, **settings))
        return servers[-1]

    yield started
    for each in servers:
        each.close()


# ---- storing and looking up


def test_a_pass_of_one_host_is_found_by_another(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2")) as (one, two):
            made = stamps()
            started = time.monotonic()
            one.keep(KEY, made)
            while await two.look_up(KEY) is None:
                assert time.monotonic() - started < 1
            assert await two.look_up(KEY, worker=3) == made
            shared = await two.sharing.get(KEY)
            assert isinstance(shared, SharedPass) and shared.host == "mx1"
            assert await two.look_up(b"\xc0\x00\x02\x02") is None
            left = server.client.ttl(PREFIX.encode() + record_name(KEY))
            assert 20 * DAY - 5 <= left <= 20 * DAY
            for key in server.client.keys("*"):
                assert server.client.ttl(key) > 0, key
            await wait(lambda: len(one.sharing.queue) == 0, "the queue to be empty")

    run(work())


def test_the_later_expiry_wins(server: RedisServer) -> None:
    name = b"p:c0000201"

    async def work() -> None:
        async with hosts(Host(server.url)) as (host,):
            now = int(time.time())

            async def put(expiry: int, *, force: bool = False, made: int = now) -> int:
                value = records.seal(
                    host.sharing._secrets, b"x", name, b"%d" % expiry, expiry=expiry, stored=made, host="mx1"
                )
                return (await host.store.put([Write(name, value, force)], 40 * DAY, "mx1", HostEntry()))[0]

            assert await put(now + 1000) == 1
            assert await put(now + 1000) == 0
            assert await put(now + 500) == 0
            assert await put(now + 1000, made=now + 60) == 1, "another test was renewed, which expires earlier"
            assert await put(now + 1000, made=now + 30) == 0
            assert await put(now + 2000, made=now - 60) == 1
            assert await put(now + 500, force=True) == 1
            assert 490 <= server.client.ttl(PREFIX.encode() + name) <= 500
            assert await put(now + 90 * DAY) == 1, "an expiry later than any pass lives"
            assert server.client.ttl(PREFIX.encode() + name) <= 40 * DAY
            assert await put(now + 500) == 1, "it is replaced"
            for other in (b"", b"hello", b"\x02\x00\xff\xff\xff\xff of a newer version"):
                server.client.set(PREFIX.encode() + name, other)
                assert await put(now + 100) == 1
            server.client.delete(PREFIX.encode() + name)
            server.client.rpush(PREFIX.encode() + name, "a list")
            assert await put(now + 100) == 1

    run(work())


def test_many_passes_in_batches(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2")) as (one, two):
            made = stamps()
            wanted = [b"\x0a\x00" + number.to_bytes(2, "big") for number in range(5000)]
            for key in wanted:
                one.keep(key, made)
            await wait(lambda: not len(one.sharing.queue), "5000 passes to be stored")
            for key in wanted:
                two.sharing.look_up(1, [key])
            await wait(lambda: two.sharing.hits == 5000, "5000 passes to be found")
            assert {key for _, found in two.found for key, _ in found} == set(wanted)
            commands = server.client.info("commandstats")
            assert commands["cmdstat_mget"]["calls"] < 5000

    run(work())


def test_records_that_are_not_believed(server: RedisServer) -> None:
    prefix = PREFIX.encode()

    async def work() -> None:
        stranger = Host(server.url, "evil", secret=b"another secret, not ours")
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2"), stranger) as (one, two, evil):
            one.keep(KEY, stamps())
            await wait(lambda: server.client.exists(prefix + record_name(KEY)), "the record")
            good = server.client.get(prefix + record_name(KEY))
            others = [bytes([10, 0, 0, number]) for number in range(6)]
            server.client.set(prefix + record_name(others[0]), good)  # of another client
            server.client.set(prefix + record_name(others[1]), "something else")
            server.client.set(prefix + record_name(others[2]), b"\x02" + good[1:])
            server.client.set(prefix + record_name(others[3]), "x" * 100_000)
            server.client.rpush(prefix + record_name(others[4]), "a list")
            evil.keep(others[5], stamps())
            await wait(lambda: server.client.exists(prefix + record_name(others[5])), "the forged record")
            for key in others:
                assert await two.look_up(key) is None
            assert two.sharing.ignored == {Reason.BAD_MAC: 2, Reason.FOREIGN: 1, Reason.NEWER: 1}
            assert two.store.oversized == 1
            assert time.time() - two.sharing.bad_mac_at < 5
            # The next pass replaces what is not believed, even where that expires later.
            mine = stamps(1)
            for key in (others[0], others[5]):
                two.keep(key, mine)
            await wait(lambda: not len(two.sharing.queue), "passes to be stored")
            for key in (others[0], others[5]):
                assert await one.look_up(key) == mine

    run(work())


def test_secrets_are_rotated(server: RedisServer) -> None:
    async def work() -> None:
        new = b"the new secret of all of them"
        one = Host(server.url, "mx1")
        two = Host(server.url, "mx2", secret=new + b"\n" + SECRET + b"\n")
        three = Host(server.url, "mx3", secret=new)
        async with hosts(one, two, three):
            one.keep(KEY, stamps())
            await wait(lambda: not len(one.sharing.queue), "the pass to be stored")
            assert await two.look_up(KEY) == await one.look_up(KEY) != None  # noqa: E711
            assert await three.look_up(KEY) is None
            other = b"\xc0\x00\x02\x07"
            two.keep(other, stamps())
            await wait(lambda: not len(two.sharing.queue), "the pass to be stored")
            assert await three.look_up(other) is not None

    run(work())


# ---- deletions


def test_a_deletion_reaches_all_hosts(server: RedisServer) -> None:
    made, other = stamps(), b"\xc0\x00\x03\x01"
    prefix = PREFIX.encode()

    async def work() -> None:
        cache = FakeCache({KEY: made, other: made})
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2", cache=cache)) as (one, two):
            two.keep(KEY, made)
            two.keep(other, made)
            await wait(lambda: not len(two.sharing.queue), "the passes to be stored")
            old = server.client.get(prefix + record_name(KEY))
            started = time.monotonic()
            assert await one.sharing.delete(ipaddress.ip_network("192.0.2.0/24"))
            await wait(lambda: KEY not in cache.records, "the deletion at the other host")
            assert time.monotonic() - started < 1
            assert other in cache.records
            assert two.deleted == ["192.0.2.0/24"]
            for host in (one, two):
                assert await host.look_up(KEY) is None
                assert await host.look_up(other) == made
            await wait(lambda: all(task.done() for task in one.sharing._removals), "records to be removed")
            assert not server.client.exists(prefix + record_name(KEY))
            # Replayed, it is not accepted; a pass that was made later is.
            server.client.set(prefix + record_name(KEY), old)
            for host in (one, two):
                assert await host.look_up(KEY) is None
                assert host.sharing.ignored[Reason.DELETED] >= 1
            await asyncio.sleep(1.1)
            later = stamps(10)
            two.keep(KEY, later)
            await wait(lambda: not len(two.sharing.queue), "the pass to be stored")
            assert await one.look_up(KEY) == later
            # A host that starts now knows of it, too.
            async with hosts(Host(server.url, "mx3")) as (three,):
                server.client.set(prefix + record_name(KEY), old)
                assert await three.look_up(KEY) is None
            for key in server.client.keys("*"):
                assert server.client.ttl(key) > 0 or key == prefix + record_name(KEY)

    run(work())


def test_an_old_deletion_leaves_newer_passes(server: RedisServer) -> None:
    """It is in the server when a host joins, or somebody publishes it again."""
    now = int(time.time())
    older, newer, other = KEY, b"\xc0\x00\x02\x07", b"\xc0\x00\x02\x08"
    local = {older: (now + 29 * DAY,) * TESTS, newer: (now + 30 * DAY - 60,) * TESTS}

    async def work() -> None:
        two, three = FakeCache(local), FakeCache(local)
        async with hosts(Host(server.url, "mx1")) as (one,):
            old = tombstones.Tombstone(ipaddress.ip_network("192.0.0.0/16"), now - DAY // 2, "mx9")
            value = tombstones.sign(one.sharing._secrets, old, 30 * DAY)
            async with hosts(Host(server.url, "mx2", cache=two)) as (host,):
                host.sharing._is_ready = False  # nothing is sent for now
                host.keep(other, stamps(30))
                server.client.publish(PREFIX + "deleted", value)
                await wait(lambda: older not in two.records, "the older pass to be deleted")
                assert newer in two.records
                assert len(host.sharing.queue) == 1
                assert host.deleted == [], "workers have nothing that is older"
                host.sharing._is_ready = True
            server.client.zadd(PREFIX + "deleted", {value: now - DAY // 2})
            async with hosts(Host(server.url, "mx3", cache=three)):
                await wait(lambda: older not in three.records, "the older pass to be deleted")
                assert newer in three.records
            assert await one.sharing.delete(ipaddress.ip_network("192.0.0.0/16"))
            async with hosts(Host(server.url, "mx3", cache=three)):
                await wait(lambda: newer not in three.records, "a deletion that is newer")

    run(work())


def test_records_are_left_alone_by_a_host_whose_clock_is_slow(server: RedisServer) -> None:
    """They are not from the future: nothing is replaced with force."""
    made = stamps(20)

    async def work() -> None:
        slow = Host(server.url, "mx2", clock=lambda: time.time() - 3600)
        async with hosts(Host(server.url, "mx1"), slow) as (one, two):
            one.keep(KEY, made)
            await wait(lambda: not len(one.sharing.queue), "the pass to be stored")
            assert await two.look_up(KEY) is None
            assert two.sharing.ignored[Reason.FUTURE] == 1
            two.keep(KEY, stamps(10))
            await wait(lambda: not len(two.sharing.queue), "the older pass to be sent")
            assert await one.look_up(KEY) == made

    run(work())


def test_a_deletion_is_made_where_a_clock_is_an_hour_ahead(server: RedisServer) -> None:
    async def work() -> None:
        cache = FakeCache({KEY: (int(time.time()) + 3600 + 30 * DAY - 60,) * TESTS})
        wrong = Host(server.url, "mx2", cache=cache, clock=lambda: time.time() + 3600)
        async with hosts(Host(server.url, "mx1"), wrong) as (one, two):
            assert await one.sharing.delete(ipaddress.ip_network("192.0.0.0/16"))
            await wait(lambda: KEY not in cache.records, "the pass to be deleted")
            assert two.deleted == ["192.0.0.0/16"]

    run(work())


def test_a_deletion_holds_where_a_clock_is_ahead(server: RedisServer) -> None:
    """The record claims to be newer than its deletion, so it is removed; so is what waits to be stored."""
    made, other = stamps(), b"\xc0\x00\x02\x07"

    async def work() -> None:
        ahead = Host(server.url, "mx2", clock=lambda: time.time() + 300)
        async with hosts(Host(server.url, "mx1"), ahead) as (one, two):
            two.keep(KEY, made)
            await wait(lambda: not len(two.sharing.queue), "the pass to be stored")
            assert await one.look_up(KEY) == made
            two.sharing._is_ready = False  # nothing is sent for now
            two.keep(other, made)
            assert await one.sharing.delete(ipaddress.ip_network("192.0.0.0/16"))
            await wait(lambda: not server.client.exists(PREFIX.encode() + record_name(KEY)), "the record to be removed")
            await wait(lambda: not len(two.sharing.queue), "what waits to be removed")
            two.sharing._is_ready = True
            for host in (one, two):
                assert await host.look_up(KEY) is await host.look_up(other) is None

    run(work())


def test_only_records_of_the_network_are_removed(server: RedisServer) -> None:
    names = {
        *(b"p:c0000201", b"p:c00002ff", b"p:c000020018", b"p:c00002", b"p:c0000201xx", b"p:nonsense", b"hosts"),
        *(b"p:c0000301", b"p:c000020010", b"p:c0000200" + b"00" * 12),
    }

    async def work() -> None:
        async with hosts(Host(server.url)) as (host,):
            odd = Store(host.sharing.store._servers, "a*[b-c]^\\?:", host.sharing)
            odd._writes, odd._where = host.store._writes, host.store._where
            host.sharing.store = odd
            for prefix in (b"a*[b-c]^\\?:", b"axb^\\?:"):
                server.client.mset(dict.fromkeys((prefix + name for name in names), b""))
            server.client.mset({b"a*[b-c]^\\?:p:0a%06x" % number: b"" for number in range(5000)})
            await host.sharing._remove(ipaddress.ip_network("192.0.2.0/23"))
            left = {name.removeprefix(b"a*[b-c]^\\?:") for name in server.client.keys("a\\**")}
            assert names - left == {b"p:c0000201", b"p:c00002ff", b"p:c000020018", b"p:c0000301"}
            assert len(left) == 5000 + len(names) - 4
            assert len(server.client.keys("axb*")) == len(names)
            odd._writes = None

    run(work())


def test_a_deleted_address_is_removed_from_the_server(server: RedisServer) -> None:
    async def work() -> None:
        async with hosts(Host(server.url)) as (host,):
            host.keep(KEY, stamps())
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
            assert await host.sharing.delete(ipaddress.ip_network("192.0.2.1"))
            assert not server.client.exists(PREFIX.encode() + record_name(KEY))

    run(work())


def test_deletions_while_the_server_is_away(start: Callable[..., RedisServer]) -> None:
    server = start()
    made = stamps()

    async def work() -> None:
        cache = FakeCache({KEY: made})
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2", cache=cache)) as (one, two):
            server.kill()
            await wait(lambda: not one.is_ready() and not two.is_ready(), "the connections to be lost")
            two.keep(KEY, made)
            await asyncio.sleep(1.1)
            assert not await one.sharing.delete(ipaddress.ip_network("192.0.2.1"))
            server.start()
            await wait(lambda: one.is_ready() and two.is_ready(), "new connections")
            await wait(lambda: KEY not in cache.records, "the deletion at the other host")
            await wait(lambda: not len(two.sharing.queue), "the queue to be empty")
            assert await one.look_up(KEY) is None

    run(work())


def test_many_deletions_while_many_passes_wait(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else waits for long: the queue is searched once for deletions that are read together."""
    server = start()
    made = stamps()

    def network(number: int) -> Network:
        return ipaddress.ip_network((b"\x0a\x00" + number.to_bytes(2, "big"), 32))

    async def work() -> None:
        ahead = time.time() + 300
        cache = FakeCache()
        one, two = Host(server.url, "mx1"), Host(server.url, "mx2", cache=cache)
        async with hosts(one, two):
            two.sharing._is_ready = False  # nothing is sent for now
            for number in range(20_000):
                two.keep(b"\x0a\x00" + number.to_bytes(2, "big"), made)
            searches, remove = 0, two.sharing.queue.remove

            def counted(is_deleted: Callable[[bytes, float], bool]) -> int:
                nonlocal searches
                searches += 1
                return remove(is_deleted)

            two.sharing.queue.remove = counted  # type: ignore[method-assign]
            values = [
                tombstones.sign(one.sharing._secrets, Tombstone(network(number), int(time.time()), "mx1"), 30 * DAY)
                for number in range(3000)
            ]
            # Of a clock that is ahead.
            two.sharing.queue._entries[b"\x0a\x00\x01\x00"].made = ahead
            for value in values[:1000]:
                two.sharing.published(value)
            # A pass that comes now is a later one.
            two.keep(b"\x0a\x00\x00\x05", made)
            assert (searches, len(two.sharing.queue)) == (1, 19_001)
            assert [each.key for batch in two.sharing.queue.take(1000) for each in batch][-1] == b"\x0a\x00\x00\x05"
            two.sharing.queue.put_back()
            for value in values[1000:]:
                two.sharing.published(value)
            await asyncio.sleep(0.01)
            assert (searches, len(two.sharing.queue)) == (2, 17_001)
            # After a cut, they come from the server all at once.
            stored = [
                tombstones.sign(one.sharing._secrets, Tombstone(network(number), int(time.time()) + 5, "mx1"), 30 * DAY)
                for number in range(3000, 13_000)
            ]
            server.client.zadd("fastscreen:deleted", {value: time.time() for value in stored})
            turn = 0
            learned: Counter[int] = Counter()
            add = two.sharing.tombstones.add

            def count(tombstone: Tombstone, value: bytes) -> bool:
                learned[turn] += 1
                return add(tombstone, value)

            monkeypatch.setattr(two.sharing.tombstones, "add", count)
            learning = asyncio.create_task(two.sharing._learn_stored(10_000))
            while not learning.done():
                await asyncio.sleep(0)
                turn += 1
            await learning
            await asyncio.sleep(0.01)
            assert len(two.sharing.queue) == 7001
            assert searches <= 2 + 101
            assert sum(learned.values()) == 10_000
            assert max(learned.values()) <= 100, "others have their turn between some of them and the next"

    run(work())


def test_a_deletion_that_could_not_be_verified_is_made_after_the_secret_is_right(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when later ones could be, and when it is no longer among the newest."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    monkeypatch.setattr("fastscreen.cluster.sharing.RECENT_DELETIONS", 1)
    monkeypatch.setattr("fastscreen.cluster.sharing.RESCORE", 0.0)
    wrong = b"a secret that is not the others'"

    def deleted_score() -> float:
        return float(json.loads(server.client.hget("fastscreen:hosts", "mx2"))["deleted"])

    async def work() -> None:
        cache = FakeCache({KEY: stamps()})
        one, two = Host(server.url, "mx1"), Host(server.url, "mx2", secret=wrong, cache=cache)
        three = Host(server.url, "mx3", secret=wrong)
        async with hosts(one, two, three):
            assert await one.sharing.delete(ipaddress.ip_network("192.0.2.1"))
            await wait(lambda: two.sharing.ignored[Reason.BAD_MAC] >= 2, "a refresh")
            await asyncio.sleep(1.1)
            assert await three.sharing.delete(ipaddress.ip_network("198.51.100.1"))
            await wait(lambda: two.deleted == ["198.51.100.1/32"], "the other deletion")
            await wait(lambda: deleted_score() > time.time() - 60, "it to be noted")
            await asyncio.sleep(0.5)
            assert KEY in cache.records
        async with hosts(Host(server.url, "mx2", cache=cache)):
            await wait(lambda: KEY not in cache.records, "the deletion to be made")
        # What has been made is not made again.
        cache.records[KEY] = stamps()
        async with hosts(Host(server.url, "mx2", secret=SECRET + b"\n" + wrong, cache=cache)) as (two,):
            assert two.deleted == ["198.51.100.1/32"]
        async with hosts(Host(server.url, "mx2", secret=SECRET + b"\n" + wrong, cache=cache)) as (two,):
            assert two.deleted == []

    run(work())


# ---- servers that fail


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_server_that_comes_back_empty(start: Callable[..., RedisServer], flavor: str) -> None:
    server = start(flavor=flavor)
    made = stamps()
    local = {b"\x0a\x01" + number.to_bytes(2, "big"): made for number in range(1500)}

    async def work() -> None:
        async with hosts(Host(server.url, "mx1", cache=FakeCache(local)), Host(server.url, "mx2")) as (one, two):
            await wait(lambda: one.sharing.stored >= 1500, "the local cache to be stored")
            await wait(lambda: one.sharing.acknowledged > time.time() - 10, "that to be acknowledged")
            server.kill()
            await wait(lambda: not one.is_ready(), "the connection to be lost")
            assert "127.0.0.1" in one.store.status().problem
            one.keep(KEY, made)
            server.start()
            await wait(lambda: one.sharing.stored >= 3001, "all to be stored again")
            for key in (KEY, *list(local)[::100]):
                assert await two.look_up(key) == made
            assert server.client.dbsize() == 1500 + 1 + 1
            # What is acknowledged is not sent again after the next loss of the connection.
            stored, reads = one.sharing.stored, one.cache.reads

            def acknowledged() -> float:
                return float(json.loads(server.client.hget("fastscreen:hosts", "mx1"))["acknowledged"])

            await wait(lambda: acknowledged() > time.time() - 10, "that to be acknowledged")
            server.client.client_kill_filter(_type="normal", skipme=True)
            server.client.client_kill_filter(_type="pubsub", skipme=True)
            await wait(lambda: sum("connected to" in line for line in one.lines) == 3, "a new connection")
            await asyncio.sleep(0.5)
            assert (one.sharing.stored, one.cache.reads) == (stored, reads)

    run(work())


def test_a_process_that_was_replaced(server: RedisServer) -> None:
    """Its successor sends what the local cache has and the server does not."""
    name = b"fastscreen:p:"
    lost, old = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02"

    async def work() -> None:
        cache = FakeCache()
        async with hosts(Host(server.url, cache=cache)) as (host,):
            await wait(lambda: host.sharing.acknowledged > 0, "the first resynchronization")
            host.keep(KEY, stamps(30))
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
        cache.records |= {KEY: stamps(30), lost: stamps(30), old: stamps(29)}
        async with hosts(Host(server.url, cache=cache)) as (host,):
            await wait(lambda: server.client.exists(name + lost.hex().encode()), "the lost pass to be stored")
            assert not server.client.exists(name + old.hex().encode()), "a day old: it was stored, and then deleted"

    run(work())


def test_a_local_cache_that_cannot_be_read(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else depends on it; it is read again until that works, and logged once."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)

    async def work() -> None:
        cache = FakeCache({KEY: stamps()})
        entries = cache.entries

        def fail(network: Network | None, after: bytes, limit: int) -> tuple[list[Entry], bool]:
            cache.reads += 1
            raise OSError(5, "Input/output error", "/cache")

        cache.entries = fail  # type: ignore[method-assign]
        async with hosts(Host(server.url, cache=cache)) as (host,):
            await wait(lambda: cache.reads >= 3, "attempts")
            host.keep(b"\x0a\x00\x00\x01", stamps())
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
            assert host.sharing.acknowledged == 0
            cache.entries = entries  # type: ignore[method-assign]
            await wait(lambda: host.sharing.stored == 2, "the local cache to be stored")
            await wait(lambda: host.sharing.acknowledged > 0, "that to be acknowledged")
            assert sum("/cache: Input/output error" in line for line in host.lines) == 1

    run(work())


def test_a_server_that_is_emptied_meanwhile(start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.2)
    server = start()
    made = stamps()

    async def work() -> None:
        async with hosts(Host(server.url, cache=FakeCache({KEY: made}))) as (host,):
            await wait(lambda: host.sharing.stored == 1, "the local cache to be stored")
            server.client.flushall()
            await wait(lambda: host.sharing.stored == 2, "it to be stored again")
            assert await host.look_up(KEY) == made

    run(work())


def test_passes_that_the_queue_had_no_room_for(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without the server, it gets them from the local cache."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.2)
    server = start()
    name = b"fastscreen:p:"

    async def work() -> None:
        cache = FakeCache()
        async with hosts(Host(server.url, cache=cache)) as (host,):
            await wait(lambda: host.sharing.acknowledged > 0, "the first resynchronization")
            server.signal(signal.SIGSTOP)
            await wait(lambda: not host.is_ready(), "the connection to be lost")
            host.sharing.queue._bytes_max = 20_000
            old, made = stamps(10), stamps(30)
            cache.records[KEY] = old  # made long ago: the server has it, as far as this host knows
            for number in range(300):
                key = b"\x0a\x06" + number.to_bytes(2, "big")
                cache.records[key] = made
                host.keep(key, made)
            assert host.sharing.queue.dropped > 200
            server.signal(signal.SIGCONT)
            await wait(lambda: len(server.client.keys(name + b"*")) == 300, "all of them to be stored")
            await wait(lambda: host.sharing.queue.dropped_since == float("inf"), "the gap to be closed")
            assert not server.client.exists(name + KEY.hex().encode())

    run(work())


@pytest.mark.parametrize(("flavor", "seconds"), [("redis", 3.0), ("valkey", 1.5)])
def test_a_frozen_server(start: Callable[..., RedisServer], flavor: str, seconds: float) -> None:
    server = start(flavor=flavor)

    async def work() -> None:
        async with hosts(Host(server.url, "mx1"), Host(server.url, "mx2")) as (one, two):
            server.signal(signal.SIGSTOP)
            frozen = time.monotonic()
            slowest, count = 0.0, 0
            while time.monotonic() - frozen < seconds:
                one.keep(b"\x0a\x02" + count.to_bytes(2, "big"), stamps())
                one.sharing.look_up(0, [b"\x0a\x03" + count.to_bytes(2, "big")])
                one.sharing.expire()
                count += 1
                before = time.monotonic()
                await asyncio.sleep(0.01)
                slowest = max(slowest, time.monotonic() - before)
            assert slowest < 0.3
            assert not one.store.is_connected
            assert "no answer within 1 s" in one.store.status().problem or "Timeout" in one.store.status().problem
            assert len(one.sharing.lookups) < 150, "questions that are too old are dropped"
            server.signal(signal.SIGCONT)
            await wait(lambda: one.is_ready() and two.is_ready(), "a connection")
            await wait(lambda: not len(one.sharing.queue), "the queue to be empty")
            for number in (0, count // 2, count - 1):
                assert await two.look_up(b"\x0a\x02" + number.to_bytes(2, "big")) is not None

    run(work())


def test_a_server_without_memory(start: Callable[..., RedisServer]) -> None:
    server = start("--maxmemory-policy", "noeviction")

    async def work() -> None:
        async with hosts(Host(server.url)) as (host,):
            host.keep(KEY, stamps())
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
            server.client.config_set("maxmemory", "1")
            host.keep(b"\x0a\x00\x00\x01", stamps())
            await wait(lambda: host.store.status().problem, "a problem")
            assert "refuses records" in host.store.status().problem
            assert host.store.is_connected
            assert await host.look_up(KEY) is not None, "look-ups still work"
            server.client.config_set("maxmemory", "0")
            await wait(lambda: not len(host.sharing.queue), "the queue to be empty")
            assert host.store.status().problem == ""

    run(work())


def test_a_server_that_refuses_look_ups(start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked rarely, and the problem stays while passes are stored."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    server = start("--requirepass", "horse", password="horse")
    allowed: dict[str, Any] = {"enabled": True, "keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
    server.client.acl_setuser("mx", passwords=["+staple"], commands=["-mget"], **allowed)
    read = files.parse(ClusterConfig(secret_file="s", password_file="p"), SECRET, b"mx:staple")

    async def work() -> None:
        async with hosts(Host(server.url, read=read)) as (host,):
            assert await host.look_up(KEY) is None
            problem = host.store.status().problem
            assert "refuses look-ups" in problem and "mget" in problem.lower()
            end = time.monotonic() + 1
            while time.monotonic() < end:
                host.sharing.look_up(0, [KEY])
                host.keep(KEY, stamps())
                await asyncio.sleep(0.01)
                assert host.store.status().problem == problem
            assert host.sharing.stored > 0
            assert server.client.info("commandstats")["cmdstat_mget"]["rejected_calls"] < 10
            server.client.acl_setuser("mx", enabled=True, commands=["+mget"])
            await wait(lambda: len(host.sharing.lookups) == 0, "the pause to end")
            assert await host.look_up(KEY) is not None
            assert host.store.status().problem == ""

    run(work())


def test_a_scan_that_never_ends(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile server does not keep a host busy for ever, and later removals have a place."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REMOVAL_SECONDS", 0.2)

    async def work() -> None:
        async with hosts(Host(server.url)) as (host,):

            async def scan(cursor: bytes, start: bytes) -> tuple[bytes, list[bytes]]:
                return b"7", []

            monkeypatch.setattr(host.store, "scan", scan)
            assert await host.sharing.delete(ipaddress.ip_network("198.51.100.0/24"))
            [removal] = host.sharing._removals
            assert not removal.done()
            await wait(removal.done, "the end")

    run(work())


def test_the_rights_in_the_manual_are_sufficient(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For everything that a host does, deletions of networks included."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    page = (Path(__file__).parents[2] / "docs/cluster.md").read_text()
    [[name, *rules]] = [line.split()[2:] for line in page.splitlines() if line.strip().startswith("ACL SETUSER ")]
    server = start("--requirepass", "horse", password="horse")

    def permit(*rules: str) -> None:
        server.client.execute_command("ACL", "SETUSER", name, "reset", *rules)

    password = rules[1].removeprefix(">")
    read = files.parse(ClusterConfig(secret_file="s", password_file="p"), SECRET, f"{name}:{password}".encode())

    async def work() -> None:
        permit(*rules)
        one, two = (Host(server.url, each, read=read) for each in ("mx1", "mx2"))
        async with hosts(one, two):
            for key in (KEY, KEY[:3] + b"\x07"):
                one.keep(key, stamps())
            await wait(lambda: one.sharing.stored == 2 and not len(one.sharing.queue), "the passes to be stored")
            assert await two.look_up(KEY) is not None
            assert await two.sharing.delete(ipaddress.ip_network("192.0.2.0/24"))
            await wait(lambda: one.deleted, "the deletion")
            await wait(lambda: not server.client.exists(*(PREFIX.encode() + record_name(KEY),)), "it to be removed")
            await one.sharing.check()
            await wait(lambda: one.sharing.peers and one.store.difference, "other hosts and the server's time")
            server.client.delete("fastscreen:hosts")
            for _ in range(20):
                await asyncio.sleep(0.02)
                assert one.store.status().problem == two.store.status().problem == ""
            assert one.store.status().role == "primary"
            denied = [entry for entry in server.client.acl_log() if entry["username"] == name]
            assert denied == []

    run(work())


@pytest.mark.parametrize(
    ("missing", "problem", "effect"),
    [
        ("subscribe", "refuses to subscribe to deletions: ", "deletions take up to 5 s"),
        ("publish", "refuses to publish deletions: ", "deletions take up to 5 s"),
        ("zadd", "refuses deletions: ", "they are kept until it takes them"),
        ("zrevrange", "refuses to list deletions: ", "clients that other hosts delete stay known here"),
    ],
)
def test_deletions_that_are_not_permitted(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch, missing: str, problem: str, effect: str
) -> None:
    """That is a problem which is shown, and over as soon as they are permitted."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    server = start("--requirepass", "horse", password="horse")
    allowed = {"enabled": True, "passwords": ["+staple"], "keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
    server.client.acl_setuser("mx", commands=[f"-{missing}"], **allowed)
    read = files.parse(ClusterConfig(secret_file="s", password_file="p"), SECRET, b"mx:staple")

    async def work() -> None:
        async with hosts(Host(server.url, read=read), Host(server.url, "mx2", read=read)) as (host, other):
            sent = await host.sharing.delete(ipaddress.ip_network("198.51.100.1"))
            assert sent == (missing != "zadd")
            await wait(lambda: host.store.status().problem, "the problem")
            status = host.store.status()
            assert status.connected
            assert status.problem.startswith(problem)
            assert status.effect == effect
            assert missing in status.problem.lower()
            if missing in ("subscribe", "publish"):
                await wait(lambda: other.deleted == ["198.51.100.1/32"], "the deletion")
            server.client.acl_setuser("mx", enabled=True, commands=[f"+{missing}"])
            await wait(lambda: not host.store.status().problem, "the end of the problem")
            await wait(lambda: "198.51.100.1/32" in other.deleted, "the deletion")
            assert await host.sharing.delete(ipaddress.ip_network("198.51.100.3"))
            await wait(lambda: "198.51.100.3/32" in other.deleted, "the message")

    run(work())


def test_what_was_refused_after_a_connect_is_tried_again(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lost everything, and takes no deletion (or does not say who is there) when this host comes back."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    server = start("--requirepass", "horse", password="horse")
    allowed = {"enabled": True, "passwords": ["+staple"], "keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
    server.client.acl_setuser("mx", **allowed)
    read = files.parse(ClusterConfig(secret_file="s", password_file="p"), SECRET, b"mx:staple")

    async def work() -> None:
        made = stamps()
        async with hosts(Host(server.url, cache=FakeCache({KEY: made}), read=read)) as (host,):
            assert await host.sharing.delete(ipaddress.ip_network("198.51.100.1"))
            await wait(lambda: host.sharing.acknowledged > 0, "the local cache to be stored")
            for command in ("zadd", "hlen"):
                stored, connects = host.sharing.stored, len(host.lines)
                server.client.acl_setuser("mx", enabled=True, commands=[f"-{command}"])
                server.client.flushall()
                server.client.client_kill_filter(_type="pubsub", skipme=True)
                await wait(lambda: len(host.lines) > connects, "a new connection")  # noqa: B023
                await wait(host.is_ready, "it to be used")
                host.keep(b"\x0a\x00\x00\x01", made)
                await wait(lambda: server.client.exists("fastscreen:hosts"), "an entry of this host")
                await asyncio.sleep(0.3)
                assert not server.client.exists("fastscreen:deleted")
                server.client.acl_setuser("mx", enabled=True, commands=[f"+{command}"])
                await wait(lambda: server.client.zcard("fastscreen:deleted") == 1, "the deletion to be stored")
                await wait(lambda: host.sharing.stored > stored, "the local cache to be stored")  # noqa: B023
                await wait(lambda: not host.sharing._has_gap(), "the end of that")
                assert await host.look_up(KEY) == made

    run(work())


def test_a_slow_server_delays_nobody(start: Callable[..., RedisServer]) -> None:
    """100 ms each way: look-ups are answered within the budget, many at a time."""
    server = start()

    async def work() -> None:
        seen: list[str] = []

        async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> None:
            loop = asyncio.get_running_loop()
            while data := await reader.read(65536):
                seen.extend(["MGET"] * data.count(b"MGET") if kind == "request" else ["reply"])
                loop.call_later(0.1, writer.write, data)
            writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs, ours = await asyncio.open_connection("127.0.0.1", server.port)
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(delayed(reader, ours, "request"), delayed(theirs, writer, "reply"))

        proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        async with hosts(Host(server.url, "mx1"), Host(f"redis://127.0.0.1:{port}", "mx2")) as (one, two):
            wanted = [b"\x0a\x04" + number.to_bytes(2, "big") for number in range(1000)]
            for key in wanted:
                one.keep(key, stamps())
            await wait(lambda: not len(one.sharing.queue), "passes to be stored")
            seen.clear()
            two.sharing.look_up(0, wanted)
            await wait(lambda: two.sharing.hits == 1000, "all to be found")
            assert seen[:10] == ["MGET"] * 10  # none waits for the reply to another
            assert set(seen[10:]) == {"reply"}
            assert two.sharing.lookups.late == 0
        proxy.close()

    run(work())


# ---- deployments


def test_a_replica_takes_no_records(start: Callable[..., RedisServer]) -> None:
    primary = start()
    replica = start("--replicaof", "127.0.0.1", str(primary.port))
    wait_for_replica(primary)

    async def work() -> None:
        async with hosts(Host(replica.url), ready=False) as (host,):
            await wait(lambda: host.store.status().problem, "a problem")
            assert "is a replica" in host.store.status().problem
            replica.client.replicaof("NO", "ONE")
            await wait(host.is_ready, "a connection")
            host.keep(KEY, stamps())
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
            # It becomes one while it is connected.
            replica.client.replicaof("127.0.0.1", primary.port)
            host.keep(b"\x0a\x00\x00\x01", stamps())
            await wait(lambda: not host.is_ready(), "the connection to be given up")
            await wait(lambda: "is a replica" in host.store.status().problem, "a problem")
            replica.client.replicaof("NO", "ONE")
            await wait(host.is_ready, "a connection")
            await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
            assert replica.client.exists(PREFIX.encode() + record_name(b"\x0a\x00\x00\x01"))

    run(work())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_fail_over(start: Callable[..., RedisServer], tmp_path: Path, how: signal.Signals) -> None:
    primary = start()
    replica = start("--replicaof", "127.0.0.1", str(primary.port))
    wait_for_replica(primary)
    sentinel = Sentinel(tmp_path / "sentinel", "mail", primary)

    async def work() -> None:
        # The second Sentinel does not exist.
        where = (Endpoint("127.0.0.1", sentinel.port), Endpoint("127.0.0.1", 1))
        async with hosts(
            Host("", "mx1", sentinels=where, master="mail"), Host("", "mx2", sentinels=where, master="mail")
        ) as (one, two):
            assert one.store.status().server == f"127.0.0.1:{primary.port}"
            one.cache.records[KEY] = stamps(30)
            one.keep(KEY, one.cache.records[KEY])
            await wait(lambda: not len(one.sharing.queue), "the pass to be stored")
            await wait(sentinel.has_replica, "Sentinel to know the replica")
            if how == signal.SIGKILL:
                primary.kill()
            else:
                primary.signal(how)
            moved = f"127.0.0.1:{replica.port}"
            number = 0

            def is_moved() -> bool:
                nonlocal number
                number += 1
                one.keep(b"\x0a\x05" + number.to_bytes(2, "big"), stamps())
                return all(host.is_ready() and host.store.status().server == moved for host in (one, two))

            await wait(is_moved, f"the new primary: {one.store.status()}")
            await wait(lambda: not len(one.sharing.queue), "the queue to be empty")
            wanted = [KEY, *(b"\x0a\x05" + each.to_bytes(2, "big") for each in range(1, number + 1))]
            # What the old primary has acknowledged and not replicated comes from the local cache.
            names = [PREFIX.encode() + record_name(key) for key in wanted]
            await wait(lambda: replica.client.exists(*names) == len(names), "all passes to be there")
            assert await two.look_up(KEY) is not None
            two.sharing.look_up(0, wanted)
            await wait(lambda: not len(two.sharing.lookups), "answers")
            assert two.sharing.hits + two.sharing.lookups.late >= len(wanted)

    try:
        run(work())
    finally:
        primary.signal(signal.SIGCONT) if how == signal.SIGSTOP else None
        sentinel.close()


def test_sentinels_that_do_not_agree_and_want_a_password(start: Callable[..., RedisServer], tmp_path: Path) -> None:
    """The server that one of them takes for the primary is a replica."""
    protected = ("--requirepass", "horse", "--masterauth", "horse")
    primary = start(*protected, password="horse")
    replica = start("--replicaof", "127.0.0.1", str(primary.port), *protected, password="horse")
    wait_for_replica(primary)
    sentinels: list[Sentinel] = []
    for number, known in enumerate((replica, primary)):
        text = f"sentinel auth-pass mail horse\n{'requirepass horse' if number else ''}\n"
        sentinels.append(
            Sentinel(tmp_path / f"sentinel{number}", "mail", known, text, password="horse" if number else "")
        )
    where = tuple(Endpoint("127.0.0.1", each.port) for each in sentinels)
    read = files.parse(ClusterConfig(secret_file="s", password_file="p"), SECRET, b"horse")

    async def work() -> None:
        async with hosts(Host("", sentinels=where, master="mail", read=read)) as (host,):
            assert host.store.status().server == f"127.0.0.1:{primary.port}"
            await host.store.keep_alive()
            assert host.store.is_connected
        async with hosts(Host("", sentinels=where, master="other", read=read), ready=False) as (host,):
            await wait(lambda: host.store.status().problem, "a problem")
            assert "does not know cluster.master" in host.store.status().problem

    try:
        run(work())
    finally:
        for sentinel in sentinels:
            sentinel.close()


def test_passwords(start: Callable[..., RedisServer]) -> None:
    server = start("--requirepass", "correct horse", password="correct horse")
    server.client.acl_setuser(
        "mx",
        enabled=True,
        passwords=["+staple"],
        keys=["fastscreen:*"],
        reset_channels=True,  # Redis 6.2 permits all of them
        channels=["fastscreen:*"],
        categories=["+@all"],
    )

    def read(password: bytes) -> Files:
        return files.parse(ClusterConfig(secret_file="s", password_file="p" if password else ""), SECRET, password)

    async def work() -> None:
        for password in (b"", b"wrong", b"mx:wrong"):
            async with hosts(Host(server.url, read=read(password)), ready=False) as (host,):
                await wait(lambda: host.store.status().problem, "a problem")
                problem = host.store.status().problem
                assert "refuses the user or the password" in problem
                assert "wrong:" not in problem and "horse" not in problem
        for password in (b"correct horse\n", b"mx:staple"):
            async with hosts(Host(server.url, read=read(password))) as (host,):
                host.keep(KEY, stamps())
                await wait(lambda: not len(host.sharing.queue), "the pass to be stored")
                assert await host.look_up(KEY) is not None

    run(work())


def test_tls(start: Callable[..., RedisServer], tmp_path: Path) -> None:
    openssl = needs.program("openssl")
    for name in ("ca", "other"):
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem", "-days", "3"),
                *("-subj", "/CN=server.example.test", "-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
    server = start()
    for name, value in (
        ("tls-cert-file", f"{tmp_path}/ca.pem"),
        ("tls-key-file", f"{tmp_path}/ca.key"),
        ("tls-ca-cert-file", f"{tmp_path}/ca.pem"),
        ("tls-auth-clients", "no"),
    ):
        server.client.config_set(name, value)
    port = free_port()
    server.client.config_set("tls-port", str(port))

    def read(name: str) -> Files:
        cluster = ClusterConfig(secret_file="s", ca_file="ca")
        return files.parse(cluster, SECRET, b"", (tmp_path / f"{name}.pem").read_bytes())

    async def work() -> None:
        url = f"rediss://127.0.0.1:{port}"
        async with hosts(
            Host(url, read=read("ca")), Host(f"valkeys://127.0.0.1:{port}", "mx2", read=read("ca"))
        ) as two:
            two[0].keep(KEY, stamps())
            await wait(lambda: not len(two[0].sharing.queue), "the pass to be stored")
            assert await two[1].look_up(KEY) is not None
        for settings in (
            {"url": url, "read": read("other")},
            {"url": f"rediss://localhost:{port}", "read": read("ca")},
        ):
            async with hosts(Host(**settings), ready=False) as (host,):  # type: ignore[arg-type]
                await wait(lambda: host.store.status().problem, "a problem")
                assert "certificate" in host.store.status().problem.lower()

    run(work())


def test_a_unix_socket_and_a_check(start: Callable[..., RedisServer]) -> None:
    server = start()

    async def work() -> None:
        async with hosts(Host(f"unix://{server.folder}/server.sock?db=3")) as (host,):
            assert 0 < await host.sharing.check() < 1
            assert server.client.dbsize() == 0
            assert host.store.status().role == "primary"
            assert host.store.status().round_trip > 0

    run(work())


def test_hosts_see_each_other(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is there while it changes its entry, even if its clock is slow."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    monkeypatch.setattr("fastscreen.cluster.sharing.AWAY_SECONDS", 1.0)

    async def work() -> None:
        late = Host(server.url, "mx2", clock=lambda: time.time() - 300)
        async with hosts(Host(server.url, "mx1"), late) as (one, _):
            server.client.hset("fastscreen:hosts", "mx3", '{"time": 1e999}')
            server.client.hset("fastscreen:hosts", "not a name", '{"time": 1}')
            server.client.hset("fastscreen:hosts", "mx4", "nonsense")
            server.client.hset(
                "fastscreen:hosts", "mx5", json.dumps({"time": time.time() - 3600, "version": "0.9", "more": 1})
            )
            await wait(lambda: len(one.sharing.present_peers()) >= 2, "two peers")
            seen = {name: (entry.version, away) for name, entry, away in one.sharing.present_peers()}
            assert seen["mx2"] == ("1.0", False)
            assert seen["mx5"] == ("0.9", True)
            assert not {"mx4", "not a name", "mx1"} & set(seen)
            server.client.hset("fastscreen:hosts", "mx6", json.dumps({"time": time.time()}))

            def away() -> set[str]:
                return {name for name, _, is_away in one.sharing.present_peers() if is_away}

            await wait(lambda: "mx6" in one.sharing.peers, "another peer")
            assert away() == {"mx5"}
            await wait(lambda: away() == {"mx5", "mx6"}, "it to be away")

    run(work())


def test_hosts_that_have_been_gone_for_a_week_are_forgotten(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when there are so many that the others are not looked at."""
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.1)
    week = 7 * DAY

    def entries(count: int, seconds: float) -> dict[str, str]:
        return {f"old{number}": json.dumps({"time": time.time() - seconds}) for number in range(count)}

    async def work() -> None:
        cache = FakeCache({KEY: stamps()})
        server.client.hset("fastscreen:hosts", mapping=entries(3000, week - 3600))
        async with hosts(Host(server.url, "mx1", cache=cache), Host(server.url, "mx2")) as (one, two):
            await wait(lambda: one.store.status().problem and two.store.status().problem, "a problem")
            assert "fastscreen:hosts has 300" in one.store.status().problem
            await wait(lambda: one.sharing.acknowledged > 0, "the local cache to be stored")
            assert await two.look_up(KEY) is not None
            assert one.sharing.present_peers() == []
            server.client.hset("fastscreen:hosts", mapping=entries(2999, week + 3600))
            await wait(lambda: not one.store.status().problem, "them to be forgotten")
            await wait(lambda: len(one.sharing.present_peers()) == 2, "the other hosts")
            assert set(server.client.hkeys("fastscreen:hosts")) == {b"mx1", b"mx2", b"old2999"}

    run(work())
