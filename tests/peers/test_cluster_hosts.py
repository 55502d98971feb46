"""Three complete daemons share passes through real servers, and go on without them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from robust.fakemta import GREETING
from robust.harness import COMMAND, TIMEOUT, Client

from bench.ports import free_port
from fastscreen.cache.stamps import TESTS
from fastscreen.cluster import records, secrets
from peers import needs
from peers.cluster_hosts import (
    PREFIX,
    SECRET,
    Host,
    Load,
    Network,
    RemoteServer,
    Site,
    SlowProxy,
    Visit,
    addresses,
    key_of,
    known_at,
    lacks,
    name_of,
    pass_at,
    publish_deletion,
    stamps_of,
    stored,
    until,
    visits,
)
from peers.redis_server import RedisServer, Sentinel, wait_for_replica

# Conditions, attempts to connect, and looks at the other hosts and at the local cache come sooner than usual.
QUICK = """
from fastscreen.cluster import process, sharing, store
process.GRACE, sharing.REFRESH_SECONDS, store.LONGEST_PAUSE, sharing.SETTLED_SECONDS = 0.5, 1.0, 1.0, 1.5
"""
# Believes every record, and no deletion.
CREDULOUS = """
from fastscreen.cluster.secrets import Secrets
from fastscreen.cluster.tombstones import Tombstones
Secrets.verify = lambda *_: True
Tombstones.deleted_at = lambda *_: -float("inf")
"""
DAY = 86400


def clock(seconds: int) -> str:
    """The cluster process believes that it is so much later."""
    return f"""
import types
from fastscreen.cluster import process
now = process.time.time
process.time = types.SimpleNamespace(time=lambda: now() + {seconds})
"""


@contextlib.contextmanager
def new_site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-cluster-"))  # pytest's own are closed to the hosts' user
    folder.chmod(0o755)
    try:
        with Site(folder) as site:
            yield site
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def site() -> Iterator[Site]:
    with new_site() as made:
        yield made


class Three:
    """Hosts mx1 with one worker, mx2 and mx3 with two, and their server."""

    def __init__(self, site: Site, flavor: str = "redis") -> None:
        self.server: RedisServer = site.keep(RedisServer(site.folder / "server", flavor=flavor))
        for number in (1, 2, 3):
            workers = 1 if number == 1 else 2
            site.add(f"mx{number}", {"server": self.server.url}, workers=workers, altered=QUICK)
        site.start()
        self.hosts = site.hosts
        for host in self.hosts:
            host.connected()
        self.known: list[str] = []
        """A client of each host."""

    def wait_for(self, *sources: str, seconds: float = 10.0) -> None:
        """Until the server has these clients' records."""
        until(
            lambda: self.server.client.exists(*map(name_of, sources)) == len(sources), "the server's records", seconds
        )

    def wait_for_conditions(self, pattern: str, seconds: float = 10.0) -> None:
        """Until all hosts show it."""
        for host in self.hosts:
            host.wait_for_condition(pattern, seconds)


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    with new_site() as made:
        found = Three(made)
        found.known = addresses(99, 3)
        assert all(each.is_tested for each in visits(*zip(found.hosts, found.known, strict=True)))
        yield found


def check_sharing(three: Three, block: int) -> None:
    clients, others = addresses(block, 3), addresses(block + 1, 3)
    assert not any(host.condition() for host in three.hosts)
    passed = visits(*zip(three.hosts, clients, strict=True))
    assert all(each.is_tested for each in passed), passed
    three.wait_for(*clients, seconds=1)
    # Unknown clients wait as ever, those that another host knows do not.
    pairs = [(host, client) for host in three.hosts for client in clients]
    again = visits(*pairs, *zip(three.hosts, others, strict=True))
    shared, unknown = again[: len(pairs)], again[len(pairs) :]
    assert all(each.is_shared for each in shared), shared
    assert all(each.is_tested for each in unknown), unknown
    for host, client in zip(three.hosts, clients, strict=True):
        host.wait_for_lines("PASS OLD", *clients)
        assert host.clients("PASS NEW") & set(clients) == {client}
    # From now on they are known locally: the server is not asked.
    for host in three.hosts:
        host.wait_for_cache(*clients)
    asked = look_ups(three.server)
    at_home = visits(*pairs)
    assert all(each.is_shared and each.said == GREETING for each in at_home), at_home
    assert look_ups(three.server) == asked
    values = stored(three.server)
    for client in clients:
        for host in three.hosts:
            assert host.passes()[key_of(client)] == stamps_of(key_of(client), values[key_of(client)])


def look_ups(server: RedisServer) -> int:
    return int(server.client.info("commandstats")["cmdstat_mget"]["calls"])


def test_a_pass_is_shared(three: Three) -> None:
    check_sharing(three, 0)


def test_a_pass_is_shared_through_valkey(site: Site) -> None:
    check_sharing(Three(site, "valkey"), 0)


def test_a_server_that_is_emptied(three: Three) -> None:
    """It gets the passes again, from the hosts' cache files."""
    clients = addresses(60, 20)
    until(lambda: acknowledged(three) > 0, "what the hosts knew at the start to be stored")
    pass_at(three.hosts[0], *clients)
    three.wait_for(*clients)
    three.hosts[0].wait_for_cache(*clients)
    three.server.client.flushall()
    three.wait_for(*clients)
    known_at(three.hosts[2], *clients)


def acknowledged(three: Three) -> float:
    """Up to when the server has all passes of every host (s since 1970)."""
    entries = three.server.client.hvals(PREFIX + b"hosts")
    return min(float(json.loads(entry)["acknowledged"]) for entry in entries)


# ---- the server is in trouble


@contextlib.contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    """Afterwards it is empty."""
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextlib.contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    server.client.config_set("maxmemory", "1")
    yield
    server.client.config_set("maxmemory", "0")


@contextlib.contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    server.client.replicaof("127.0.0.1", free_port())
    yield
    server.client.replicaof("NO", "ONE")


@contextlib.contextmanager
def foreign_hosts(server: RedisServer) -> Iterator[None]:
    """Something else uses the key with the hosts."""
    server.client.set(PREFIX + b"hosts", "of another program")
    yield
    server.client.delete(PREFIX + b"hosts")


@pytest.mark.parametrize(
    ("trouble", "condition", "connected", "block"),
    [
        (stopped, r"refused.*; clients are screened without it", False, 10),
        (frozen, r"no answer|[Tt]imeout", False, 20),
        (
            out_of_memory,
            r"refuses records: .*used memory > 'maxmemory'; passes are kept until it takes them",
            True,
            30,
        ),
        (read_only, r"is a replica, which takes no records|READONLY", False, 40),
        (foreign_hosts, r"refuses records: .*WRONGTYPE .* kind of value; passes", True, 50),
    ],
)
def test_a_server_in_trouble(
    three: Three,
    trouble: Callable[[RedisServer], contextlib.AbstractContextManager[None]],
    condition: str,
    connected: bool,
    block: int,
) -> None:
    hosts, server = three.hosts, three.server
    known, first, second = three.known, addresses(block, 3), addresses(block + 1, 3)
    before = [host.count("warning: cluster: ") for host in hosts]

    def check(unknown: list[str]) -> None:
        done = visits(*zip(hosts, known, strict=True), *zip(hosts, unknown, strict=True))
        assert all(each.is_shared and each.said == GREETING for each in done[:3]), done
        assert all(each.is_tested for each in done[3:]), done

    with trouble(server):
        check(first)
        three.wait_for_conditions(condition)
        assert [host.cluster_status()["connected"] for host in hosts] == 3 * [connected]
        check(second)
    for host in hosts:
        host.wait_for_end()
    three.wait_for(*known, *first, *second)
    shared = visits(*((host, each) for host in hosts for each in (*first, *second)))
    assert all(each.is_shared for each in shared), shared
    for host, count in zip(hosts, before, strict=True):
        assert host.count("warning: cluster: ") == count + 1, host.lines("cluster: ")


def test_a_server_full_of_others_records(three: Three) -> None:
    """Foreign values where records are expected, records of a newer version, and many other keys."""
    one, two, other = three.hosts
    client = three.server.client
    sources = addresses(62, 7)
    source = addresses(63, 1)[0]
    pass_at(one, source)
    three.wait_for(source)
    good = client.get(name_of(source))
    client.eval("for i = 1, 200000 do redis.call('SET', 'fastscreen:p:' .. i, 'x') end", 0)
    client.set(name_of(sources[0]), "")
    client.set(name_of(sources[1]), "something else")
    client.set(name_of(sources[2]), b"\x02" + good[1:])
    client.set(name_of(sources[3]), os.urandom(100_000))
    client.rpush(name_of(sources[4]), "a list")
    client.sadd(name_of(sources[5]), "a set")
    client.set(name_of(sources[6]), good[:40])
    pass_at(two, *sources)
    until(
        lambda: all(
            client.type(name_of(each)) == b"string" and client.get(name_of(each))[:1] == b"\1" for each in sources
        ),
        "records",
    )
    known_at(other, *sources)
    ignored = two.cluster_status()["ignored"]
    assert ignored["newer"] == 1
    assert ignored["foreign"] >= 2
    three.server.client.flushall()


def test_a_slow_server(site: Site) -> None:
    """200 ms for each answer: passes are found all the same. After 2 s, they are not waited for."""
    server = site.keep(RedisServer(site.folder / "server"))
    proxy = site.keep(SlowProxy(server.port, 0.1))
    fast = site.add("mx1", {"server": server.url}, altered=QUICK)
    slow = site.add("mx2", {"server": f"redis://127.0.0.1:{proxy.port}"}, workers=2, altered=QUICK)
    site.start()
    fast.connected()
    slow.connected()
    clients, unknown = addresses(0, 60), addresses(1, 20)
    pass_at(fast, *clients)
    until(lambda: len(stored(server)) == len(clients), "records")
    done = visits(*((slow, each) for each in clients[:40]), *((slow, each) for each in unknown[:10]))
    assert all(each.is_shared and each.greeting > 0.2 for each in done[:40]), done
    assert all(each.is_tested for each in done[40:]), done
    assert not slow.condition()
    until(lambda: len(stored(server)) == len(clients) + 10, "what the slow host stores")
    proxy.delay = 2.0
    pass_at(slow, *clients[40:50], *unknown[10:])
    slow.wait_for_condition()
    proxy.delay = 0.0
    slow.wait_for_end()
    known_at(slow, *clients[50:])
    until(lambda: len(stored(server)) == len(clients) + 20, "what the slow host stores")


# ---- fail-over


def test_a_fail_over_under_load(site: Site) -> None:
    """Clients of all kinds come all the time; none is rejected or waits longer than without a cluster."""
    primary = site.keep(RedisServer(site.folder / "primary"))
    replica = site.keep(RedisServer(site.folder / "replica", "--replicaof", "127.0.0.1", str(primary.port)))
    wait_for_replica(primary)
    sentinel = site.keep(Sentinel(site.folder / "sentinel", "mail", primary))
    for number in (1, 2, 3):
        where = {"sentinels": [f"127.0.0.1:{sentinel.port}"], "master": "mail"}
        site.add(f"mx{number}", where, workers=1 if number == 1 else 2)
    site.start()
    hosts = site.hosts
    for host in hosts:
        assert f"127.0.0.1:{primary.port}, primary" in host.connected()
    known, elsewhere = addresses(0, 30), addresses(1, 500)
    first = visits(*((host, each) for host in hosts for each in known), *((hosts[0], each) for each in elsewhere))
    assert all(each.is_served for each in first)  # one that comes to a host later may have passed at another one
    until(lambda: len(stored(replica)) == len(known) + len(elsewhere), "records in the replica")
    until(sentinel.has_replica, "Sentinel to know the replica")
    new = addresses(2, 5000)
    kinds = {**dict.fromkeys(known, "known"), **dict.fromkeys(elsewhere, "elsewhere"), **dict.fromkeys(new, "new")}
    unused = iter(elsewhere)

    def plan(number: int) -> tuple[Host, str]:
        if number % 10 < 3:
            return hosts[number % 3], known[number % len(known)]
        if number % 10 < 6 and (source := next(unused, None)) is not None:
            return hosts[1 + number % 2], source
        return hosts[number % 3], new[number]

    with Load(100, plan) as load:
        began = time.monotonic()
        until(lambda: len(new_passes(hosts)) > 60, "the load")
        primary.kill()
        killed = time.monotonic()
        back: dict[str, float] = {}

        def are_back() -> bool:
            for host in hosts:
                if host.name not in back and host.count(f"connected to 127.0.0.1:{replica.port}, primary"):
                    back[host.name] = time.monotonic()
            return len(back) == len(hosts)

        until(are_back, "all hosts to use the new primary")
        until(lambda: time.monotonic() > max(began + 10, max(back.values()) + 2), "the rest of the load")

    def wrong(each: Visit) -> bool:
        match kinds[each.source]:
            case "known":
                return each.said != GREETING or not each.is_shared
            case "new":
                return not each.is_tested
            case _:
                disturbed = killed - 0.5 < each.began < back[each.host]
                return not (each.is_in_time if disturbed else each.is_shared)

    assert len(load.visits) > 900
    assert not (failed := [each for each in load.visits if wrong(each)]), (len(failed), killed, back, failed[:9])
    print(f"{len(load.visits)} clients; fail-over took {max(back.values()) - killed:.1f} s")
    # Sharing works again, and the new primary has every pass, also those of the meantime.
    last: dict[str, list[str]] = {host.name: [] for host in hosts}
    for each in load.visits:
        if kinds[each.source] == "new":
            last[each.host].append(each.source)
    for host in hosts:
        host.wait_for_cache(*last[host.name])
    until(lambda: not lacks(replica, *hosts), lambda: f"passes: {lacks(replica, *hosts)[:9]}")
    for host, other in zip(hosts, (*hosts[1:], hosts[0]), strict=True):
        known_at(other, *last[host.name][-40:])


def new_passes(hosts: list[Host]) -> set[str]:
    """Clients of the load that have passed."""
    return {each for host in hosts for each in host.clients("PASS NEW") if each.startswith("127.102.")}


# ---- a partition


def test_both_sides_of_a_partition_converge(site: Site) -> None:
    """mx1 and mx3 are cut off. mx3 keeps records only for an instant, as if that took more than ten minutes."""
    needs.root("namespaces of the hosts")
    network = site.keep(Network(site.folder, 3))
    server = site.keep(RemoteServer(site.folder / "server", network))
    forgetful = "from fastscreen.cluster import write_behind\nwrite_behind.AGE_MAX = 0.5\n"
    for number, namespace in enumerate(network.hosts):
        altered = QUICK + (forgetful if number == 2 else "")
        site.add(
            f"mx{number + 1}", {"server": server.url}, workers=1 + number % 2, altered=altered, namespace=namespace
        )
    site.start()
    hosts = site.hosts
    for host in hosts:
        host.connected()
    old = addresses(0, 20)
    pass_at(hosts[1], *old)
    until(lambda: len(stored(server)) == len(old), "records")
    own = [addresses(1 + number, 70) for number in range(3)]
    with network.cut(0, 2):
        done = visits(*((host, each) for host, some in zip(hosts, own, strict=True) for each in some))
        assert all(each.is_tested for each in done), [each for each in done if not each.is_tested]
        for host in (hosts[0], hosts[2]):
            host.wait_for_condition()
        until(lambda: len(stored(server)) == len(old) + len(own[1]), "records of the host that is not cut off")
        unheard = visits(*((hosts[0], each) for each in own[1][:10]), *((hosts[1], each) for each in own[0][:10]))
        assert all(each.is_tested for each in unheard), unheard
        for host, some in zip(hosts, own, strict=True):
            host.wait_for_cache(*some)
    for host in hosts:
        host.wait_for_end()
    until(lambda: len(stored(server)) == len(old) + sum(map(len, own)), "the server to have all")
    # The later stamps stay, of those that passed on both sides.
    values = stored(server)
    for key, value in values.items():
        stamps = stamps_of(key, value)
        found = [host.passes()[key] for host in hosts if key in host.passes()]
        assert stamps == max(found), key
    everyone = [*old, *(each for some in own for each in some)]
    tested = [host.clients("PASS NEW") for host in hosts]
    done = visits(*((host, each) for host in hosts for each in everyone))
    assert all(each.is_served for each in done), [each for each in done if not each.is_served]
    for host in hosts:
        host.wait_for_lines("PASS OLD", *everyone)
        host.wait_for_cache(*everyone)
        differing = {key for key, stamps in host.passes().items() if stamps != stamps_of(key, values[key])}
        assert differing <= {key_of(each.source) for each in unheard}, "only those that passed on both sides may"
    assert [host.clients("PASS NEW") for host in hosts] == tested, "nobody is tested again"


def test_a_restart_keeps_deletions(site: Site) -> None:
    """A host deletes clients while the server is down, and is stopped and started before it is back."""
    server = site.keep(RedisServer(site.folder / "server"))
    one, two = (site.add(f"mx{number}", {"server": server.url}, altered=QUICK) for number in (1, 2))
    site.start()
    one.connected()
    two.connected()
    clients, others = addresses(0, 6), addresses(1, 3)
    pass_at(two, *clients, *others)
    two.wait_for_cache(*clients, *others)
    with stopped(server):
        one.wait_for_condition()
        two.wait_for_condition()
        command = [str(COMMAND), "cache", "delete", "127.100.0.0/16", "-c", str(one.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.endswith("the other hosts delete when it can be used again\n")
        one.stop()
        assert [path.name for path in one.folder.glob("*.deletions")] == ["cache.deletions"]
        one.start()
    for host in (one, two):
        host.wait_for_end()
    two.wait_for_deletion(*clients)
    until(lambda: not list(one.folder.glob("*.deletions*")), "the file to be removed")
    known_at(two, *others)
    done_again = visits(*((host, each) for host, each in zip((one, two) * 3, clients, strict=True)))
    assert all(each.is_tested for each in done_again), done_again


# ---- clocks, forgeries


class Four:
    """mx1 is five minutes ahead, mx2 behind. mx4 believes everything."""

    def __init__(self, site: Site) -> None:
        self.server: RedisServer = site.keep(RedisServer(site.folder / "server"))
        for number, altered in enumerate((clock(300), clock(-300), "", CREDULOUS), 1):
            site.add(f"mx{number}", {"server": self.server.url}, altered=QUICK + altered)
        site.start()
        self.hosts = site.hosts
        for host in self.hosts:
            host.connected()


@pytest.fixture(scope="module")
def four() -> Iterator[Four]:
    with new_site() as made:
        yield Four(made)


def test_clocks_that_differ(four: Four) -> None:
    hosts, server = four.hosts[:3], four.server
    clients = addresses(0, 3)
    passed = visits(*zip(hosts, clients, strict=True))
    assert all(each.is_tested for each in passed), passed
    until(lambda: server.client.exists(*map(name_of, clients)) == 3, "records", 1)
    for host in hosts:
        known_at(host, *clients)
    for host in hosts:
        host.wait_for_cache(*clients)
    for host in hosts:
        until(lambda host=host: len(host.cluster_status()["peers"]) == 3, "the other hosts")  # type: ignore[misc]
        assert not any(peer["away"] for peer in host.cluster_status()["peers"]), host.cluster_status()
    # Deleted by a host with the right time, they are unknown everywhere.
    publish_deletion(server, "127.100.0.0/24")
    for host in hosts:
        host.wait_for_deletion(*clients)
    done = visits(*((host, each) for host, each in zip(hosts, (*clients[1:], clients[0]), strict=True)))
    assert all(each.is_tested for each in done), done


def signed(source: str, days: float = 0.5, *, secret: bytes = SECRET, host: str = "mx9", ago: float = 0) -> bytes:
    """A record as another host makes it."""
    now = time.time() - ago
    stamps = (int(now + days * DAY), *[1] * (TESTS - 1))
    return records.sign_pass(secrets.parse(secret, "secret"), key_of(source), stamps, host=host, stored=now)


def extended(source: str) -> bytes:
    """An expired record with later stamps, and the signature that it had."""
    old = signed(source, days=0.5, ago=DAY)
    mac = old[-secrets.MAC_SIZE :]
    return signed(source)[: -secrets.MAC_SIZE] + mac


def test_forged_records(four: Four) -> None:
    """Nothing that has no right signature lets a client pass; where signatures are not checked, it does."""
    honest, credulous, server = four.hosts[2], four.hosts[3], four.server
    genuine = addresses(10, 1)[0]
    pass_at(honest, genuine)
    until(lambda: server.client.exists(name_of(genuine)), "the record")
    value = server.client.get(name_of(genuine))
    copied, foreign, later, world = addresses(11, 1)[0], addresses(12, 1)[0], addresses(13, 1)[0], addresses(14, 100)
    unsigned = signed(world[0])[: -secrets.MAC_SIZE] + bytes(secrets.MAC_SIZE)
    forged = {copied: value, foreign: signed(foreign, secret=b"a secret of strangers"), later: extended(later)}
    forged |= dict.fromkeys(world, unsigned)
    for source, record in forged.items():
        server.client.set(name_of(source), record)
    assert all(each.is_shared for each in visits(*((credulous, each) for each in forged))), "the test would not notice"
    done = visits(*((honest, each) for each in forged))
    assert all(each.is_tested for each in done), done
    honest.line("warning: cluster: the server has records that no known secret has signed; they are ignored")
    assert "no known secret" in honest.condition("cluster_records")
    until(lambda: honest.cluster_status()["ignored"]["bad_mac"] >= len(forged), "them to be counted")
    # The pass that a client gets now replaces what was forged.
    until(lambda: not [each for each in forged if server.client.get(name_of(each)) == forged[each]], "that")
    known_at(four.hosts[0], *forged)


def test_old_records_are_not_accepted_again(four: Four) -> None:
    honest, credulous, server = four.hosts[2], four.hosts[3], four.server
    expired, deleted = addresses(20, 1)[0], addresses(21, 2)
    pass_at(honest, *deleted)
    until(lambda: server.client.exists(*map(name_of, deleted)) == 2, "the records")
    values = [server.client.get(name_of(each)) for each in deleted]
    honest.wait_for_cache(*deleted)
    command = [str(COMMAND), "cache", "delete", "127.121.0.0/16", "-c", str(four.hosts[0].config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the cluster's server has the deletion for the other hosts" in done.stdout
    honest.wait_for_deletion(*deleted)
    server.client.set(name_of(expired), signed(expired, days=0.5, ago=DAY))
    for each, value in zip(deleted, values, strict=True):
        server.client.set(name_of(each), value)
    seen = visits(*((credulous, each) for each in deleted), *((honest, each) for each in (*deleted, expired)))
    assert all(each.is_shared for each in seen[:2]), "the test would not notice"
    assert all(each.is_tested for each in seen[2:]), seen


def test_a_forged_deletion(four: Four) -> None:
    """Nobody without the secret can make the hosts forget their clients."""
    honest, credulous, server = four.hosts[2], four.hosts[3], four.server
    clients = addresses(30, 5)
    done = visits(*((host, each) for host in (honest, credulous) for each in clients))
    assert all(each.is_served for each in done)
    for host in (honest, credulous):
        host.wait_for_cache(*clients)
    publish_deletion(server, "0.0.0.0/0", secret=b"a secret of strangers")
    until(lambda: not credulous.passes(), "the deletion where signatures are not checked")
    assert {key_of(each) for each in clients} <= honest.passes().keys()


# ---- the daemon


def test_cluster_processes_that_fail(three: Three) -> None:
    """Those of mx1 and mx2 are killed, that of mx3 stands still for a while."""
    one, two, other = three.hosts
    known = three.known
    first, second = addresses(70, 30), addresses(71, 6)
    killed = {host: (host.cluster_pids(), host.count(" cluster: connected to ")) for host in (one, two)}
    [frozen_pid] = other.cluster_pids()
    for pids, _ in killed.values():
        os.kill(pids[0], signal.SIGKILL)
    os.kill(frozen_pid, signal.SIGSTOP)
    try:
        done = visits(
            *zip(three.hosts, known, strict=True), *((three.hosts[at % 3], each) for at, each in enumerate(first))
        )
    finally:
        os.kill(frozen_pid, signal.SIGCONT)
    assert all(each.said == GREETING and each.is_shared for each in done[:3]), done
    assert all(each.is_tested for each in done[3:]), done
    for host, (pids, count) in killed.items():
        host.line(r"warning: cluster \(process \d+\) was killed by SIGKILL: it is started again")
        host.connected(count + 1)
        assert len(host.cluster_pids()) == 1
        assert host.cluster_pids() != pids
    assert other.cluster_pids() == [frozen_pid]
    # What came meanwhile is shared, and what comes now.
    three.wait_for(*first)
    done = visits(
        *((three.hosts[at % 3 - 1], each) for at, each in enumerate(first)),
        *((host, each) for host, each in zip((*three.hosts, *three.hosts), second, strict=True)),
    )
    assert all(each.is_shared for each in done[:30]), done
    assert all(each.is_tested for each in done[30:]), done
    three.wait_for(*second)
    done = visits(*((host, each) for host in three.hosts for each in second))
    assert all(each.is_shared for each in done), done
    for host in three.hosts:
        host.wait_for_end()


def test_a_restart(three: Three) -> None:
    """Clients come all the time. The former processes share what they still learn, and then end."""
    restarted, other = three.hosts[:2], three.hosts[2]
    sources = addresses(80, 1000)
    before = {host: (host.cluster_pids(), host.count(" cluster: connected to ")) for host in restarted}
    with contextlib.ExitStack() as stack:
        for host in restarted:
            talker = stack.enter_context(Client(host.address, "127.9.9.1"))
            talker.send(b"EHLO too.early\r\n")  # keeps a former worker
            host.line(rf" PREGREET .*{re.escape(talker.name)}")
        load = stack.enter_context(Load(30, lambda at: (restarted[at % 2], sources[at])))
        restarting = [
            subprocess.Popen([COMMAND, "restart", "-c", host.config], stdout=subprocess.DEVNULL) for host in restarted
        ]
        assert [each.wait(TIMEOUT) for each in restarting] == [0, 0]
        for host, (_, count) in before.items():
            host.connected(count + 1)
            assert len(host.cluster_pids()) == 2, "the former one is still needed"
        used, began = cpu_of(restarted), time.monotonic()
        until(lambda: time.monotonic() > began + 1.5, "some time")
        used = {pid: seconds - used.get(pid, 0.0) for pid, seconds in cpu_of(restarted).items()}
    assert max(used.values()) < 0.6, f"CPU in 1.5 s: {used}"
    assert all(each.is_tested for each in load.visits), [each for each in load.visits if not each.is_tested]
    three.wait_for(*(each.source for each in load.visits))
    known_at(other, *(each.source for each in load.visits))
    for host, (pids, _) in before.items():
        until(lambda host=host: len(host.cluster_pids()) == 1, "the former cluster process to end")  # type: ignore[misc]
        assert host.cluster_pids() != pids


def test_a_former_process_is_not_another_host_of_the_name(site: Site) -> None:
    """However long it is needed, after a restart."""
    server = site.keep(RedisServer(site.folder / "server"))
    soon = "from fastscreen.cluster import sharing\nsharing.PREDECESSOR_SECONDS = 2.0\nsharing.REFRESH_SECONDS = 0.3\n"
    host = site.add("mx1", {"server": server.url}, altered=soon)
    site.start()
    host.connected()
    with Client(host.address, "127.9.9.1") as talker:
        talker.send(b"EHLO too.early\r\n")  # keeps a former worker
        host.line(rf" PREGREET .*{re.escape(talker.name)}")
        assert subprocess.run([COMMAND, "restart", "-c", host.config], stdout=subprocess.DEVNULL).returncode == 0
        host.connected(2)
        restarted = time.monotonic()
        until(lambda: time.monotonic() > restarted + 4, "some time")
        assert len(host.cluster_pids()) == 2
        assert not host.condition("cluster_name")
    assert not host.lines("has the name")


def cpu_of(hosts: Iterable[Host]) -> dict[int, float]:
    """CPU seconds of each process of these hosts."""
    return {pid: seconds for host in hosts for pid, seconds in host.cpu_of_each().items()}


def test_a_stop_stores_what_came_last(three: Three) -> None:
    """Of a daemon with one worker, and of one with two."""
    stopping, other = three.hosts[:2], three.hosts[2]
    sources = addresses(90, 40)
    passed = visits(*((stopping[at % 2], each) for at, each in enumerate(sources)))
    assert all(each.is_tested for each in passed), passed
    for host in stopping:
        host.stop()
    known_at(other, *sources)
    for host in stopping:
        host.start()
    again = addresses(91, 6)
    passed = visits(*zip((*stopping, *stopping, *stopping), again, strict=True))
    assert all(each.is_tested for each in passed), passed
    three.wait_for(*again)
    known_at(other, *again)
