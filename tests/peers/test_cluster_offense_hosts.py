"""Three complete daemons share their memory of offenses through a real server, and go on without it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from robust.control import Control
from robust.harness import GREETING, TEASER, Screener

from fastscreen.cluster import records, secrets
from fastscreen.cluster.offense_sharing import RECENT, SETTLED
from fastscreen.cluster.records import offenses_name
from fastscreen.core import OffenseRules, offense_add, offense_read
from peers.cluster_hosts import PREFIX, SECRET, WAIT, Host, Settings, Site, until
from peers.redis_server import RedisServer
from peers.test_cluster_hosts import QUICK, new_site

LATER = b"450 4.3.2 Service currently unavailable\r\n"
KINDS = ["passes", "offenses"]
WRITE_BEHIND = 4.0
"""Until an offense of one host is in the server (s): its turns take 0.5, 1 and 0.5 s."""
RULES = OffenseRules()


def poor(source: str) -> bytes:
    return f"550 5.7.1 Service unavailable; client [{source}] blocked: poor reputation\r\n".encode()


def with_memory(folder: Path) -> Settings:
    return {
        "score": {
            "action": "enforce",
            "memory": str(folder / "offenses"),
            "seen_address": 3,
            "seen_network": 3,
            "seen_min": 3,
        },
        "dnsbl": {"threshold": 3, "action": "enforce"},
    }


class Hosts:
    def __init__(self, site: Site) -> None:
        self.server: RedisServer = site.keep(RedisServer(site.folder / "server"))
        for number in (1, 2, 3):
            settings = {"server": self.server.url, "share": KINDS, "accept": KINDS}
            site.add(f"mx{number}", settings, workers=number % 2 + 1, altered=QUICK, more=with_memory)
        site.start()
        self.one, self.two, self.three = self.all = site.hosts
        for host in self.all:
            host.connected()

    def bad(self, network: bytes) -> set[int]:
        """The last bytes of the addresses that are bad in an IPv4 network, as the server has it."""
        key = b"4" + network
        value = self.server.client.get(PREFIX + offenses_name(key))
        if value is None:
            return set()
        sealed = records.verify_offenses(secrets.parse(SECRET, "secret"), key, value, now=time.time())
        if isinstance(sealed, records.Reason):
            return set()
        members = offense_read(sealed.body, int(time.time()) // 86400, RULES) or []
        return {number for number, *_, is_bad in members if is_bad}

    def wait_for(self, network: bytes, *numbers: int, seconds: float = WRITE_BEHIND) -> None:
        until(
            lambda: self.bad(network) == {*numbers},
            lambda: f"{numbers} in the server: {self.bad(network)}",
            seconds,
        )


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with new_site() as site:
        yield Hosts(site)


def offend(host: Screener, *sources: str) -> None:
    """Clients that talk before they are greeted."""
    for source in sources:
        with host.connect(source) as client:
            client.send(b"EHLO early\r\n")
            host.line(f"PREGREET .*{client.pattern}")


def judged(host: Screener, source: str) -> tuple[bytes, list[str]]:
    """The reply to a recipient of a client that behaves, and the evidence in the log; it is greeted in time."""
    began = time.monotonic()
    with host.connect(source) as client:
        assert client.read() == TEASER + GREETING
        assert time.monotonic() - began < WAIT + 1
        assert client.ask(b"EHLO mail.provider-host.se").startswith(b"250")
        assert client.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"
        reply = client.ask(b"RCPT TO:<c@d.test>")
        client.ask(b"QUIT")
        host.line(f"DISCONNECT {client.pattern}")
        lines = host.lines(f"SCORE from {client.pattern}")
        return reply, [line.split("SCORE from ", 1)[1].split(": ", 1)[1] for line in lines]


def known(host: Host, subject: str) -> int:
    """How many records a host has about a network."""
    with Control(host.control) as control:
        return len(control.ok("reputation.get", subject=subject)["reputations"])


def test_offenses_are_evidence_on_other_hosts(hosts: Hosts) -> None:
    """In the session that asks for them."""
    offend(hosts.one, "127.50.0.1", "127.50.0.2")
    offend(hosts.three, "127.50.0.3")
    hosts.wait_for(b"\x7f\x32\x00", 1, 2, 3)
    text = "seen_network +3: 127.50.0.0/24: 3 of 3 addresses bad in 28 days"
    assert judged(hosts.two, "127.50.0.9") == (poor("127.50.0.9"), [text])
    assert judged(hosts.three, "127.50.0.8")[0] == poor("127.50.0.8")
    assert judged(hosts.one, "127.50.0.2") == (
        poor("127.50.0.2"),
        ["seen_address +3: 127.50.0.2: bad 1.0, good 0.0, today"],
    ), "itself and two others: too few neighbors"
    status = hosts.two.cluster_status()["offenses"]
    assert status["found"] >= 1
    with Control(hosts.two.control) as control:
        assert control.ok("status")["memory"]["merged"] >= 1


def test_an_address_counts_once_on_all_hosts(hosts: Hosts) -> None:
    for host in hosts.all:
        offend(host, "127.51.0.1")
    offend(hosts.one, "127.51.0.2")
    hosts.wait_for(b"\x7f\x33\x00", 1, 2)
    for host in hosts.all:
        reply, found = judged(host, f"127.51.0.{9 + hosts.all.index(host)}")
        assert (reply, found) == (LATER, [])
    assert judged(hosts.two, "127.51.0.1")[1] == ["seen_address +3: 127.51.0.1: bad 1.0, good 0.0, today"]


def test_a_deletion_is_for_all_hosts(hosts: Hosts) -> None:
    network, name = b"\x7f\x34\x00", PREFIX + offenses_name(b"4\x7f\x34\x00")
    offend(hosts.one, "127.52.0.1", "127.52.0.2", "127.52.0.3")
    hosts.wait_for(network, 1, 2, 3)
    for host in (hosts.two, hosts.three):
        assert judged(host, "127.52.0.9")[0] == poor("127.52.0.9")
    old = hosts.server.client.get(name)
    with Control(hosts.three.control) as control:
        answer = control.ok("reputation.delete", subject="127.52.0.0/24")
    assert (answer["deleted"], answer["cluster"]) == (1, True)
    until(lambda: not any(known(host, "127.52.0.0/24") for host in hosts.all), "all hosts to forget", 3)
    until(lambda: hosts.server.client.get(name) is None, "the server to forget")
    for host in (hosts.one, hosts.two):
        assert host.lines("cluster: mx3 deleted what is remembered of 127.52.0.0/24")
    hosts.server.client.set(name, old)  # somebody has kept it
    time.sleep(RECENT)
    assert judged(hosts.two, "127.52.0.10") == (LATER, [])
    assert known(hosts.two, "127.52.0.0/24") == 0
    assert hosts.two.cluster_status()["ignored"]["deleted"] >= 1
    offend(hosts.two, "127.52.0.1")  # it begins again; right after a deletion, nothing is shared for a moment
    hosts.wait_for(network, 1, seconds=SETTLED + 2 * WRITE_BEHIND)


def test_a_deletion_of_an_address_leaves_its_neighbors(hosts: Hosts) -> None:
    offend(hosts.one, "127.53.0.1", "127.53.0.2", "127.53.0.3")
    hosts.wait_for(b"\x7f\x35\x00", 1, 2, 3)
    assert judged(hosts.two, "127.53.0.9")[0] == poor("127.53.0.9")
    with Control(hosts.two.control) as control:
        assert control.ok("reputation.delete", subject="127.53.0.2")["cluster"] is True
    offend(hosts.three, "127.53.0.4")
    hosts.wait_for(b"\x7f\x35\x00", 1, 3, 4, seconds=SETTLED + 2 * WRITE_BEHIND)
    time.sleep(RECENT)
    text = "seen_network +3: 127.53.0.0/24: 3 of 3 addresses bad in 28 days"
    assert judged(hosts.two, "127.53.0.10") == (poor("127.53.0.10"), [text])


def test_forged_records_change_nothing(hosts: Hosts) -> None:
    """Signed with another secret, for another network, from the future, of something else."""
    client, today, now = hosts.server.client, int(time.time()) // 86400, time.time()
    record = None
    for number in range(1, 6):
        record, *_ = offense_add(record, 1, number, 256, 0, today, RULES)
    assert record is not None
    right, wrong = (secrets.parse(text, "secret") for text in (SECRET, b"the secret of somebody else\n"))

    def signed(key: bytes, by: secrets.Secrets = right, stored: float = now) -> bytes:
        return records.sign_offenses(by, key, record, expiry=int(now) + 86400, host="mx9", stored=stored)

    keys = [b"4\x7f\x36" + bytes([number]) for number in range(5)]
    values = [signed(keys[0], wrong), signed(keys[4]), signed(keys[2], stored=now + 3600), b"x" * 2400]
    for key, value in zip(keys, values, strict=False):
        client.set(PREFIX + offenses_name(key), value)
    before = hosts.two.cluster_status()["ignored"]
    for number in range(4):
        assert judged(hosts.two, f"127.54.{number}.9") == (LATER, [])
        assert known(hosts.two, f"127.54.{number}.0/24") == 0
    after = hosts.two.cluster_status()["ignored"]
    more = {reason: after[reason] - before.get(reason, 0) for reason in after if after[reason] > before.get(reason, 0)}
    assert more == {"bad_mac": 2, "future": 1, "foreign": 1}
    client.set(PREFIX + offenses_name(keys[4]), values[1])
    assert judged(hosts.two, "127.54.4.9")[0] == poor("127.54.4.9"), "the right one counts"
    offend(hosts.one, "127.54.0.1", "127.54.1.1")  # a right record takes the place of a forged one
    hosts.wait_for(b"\x7f\x36\x00", 1)
    hosts.wait_for(b"\x7f\x36\x01", 1)


@contextlib.contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    yield
    server.signal(signal.SIGCONT)


@pytest.mark.parametrize(("trouble", "block"), [(stopped, 60), (frozen, 61)], ids=["stopped", "frozen"])
def test_without_a_server(hosts: Hosts, trouble: type, block: int) -> None:
    """Each host has its own memory, nobody waits longer, and what the server lacks is stored later."""
    network, prefix = bytes((127, block, 0)), f"127.{block}.0"
    with trouble(hosts.server):
        for host in hosts.all:
            host.wait_for_condition()
        offend(hosts.one, f"{prefix}.1", f"{prefix}.2", f"{prefix}.3")
        assert judged(hosts.two, f"{prefix}.9") == (LATER, [])
        assert judged(hosts.one, f"{prefix}.9")[0] == poor(f"{prefix}.9")
    for host in hosts.all:
        host.wait_for_end()
    hosts.wait_for(network, 1, 2, 3, seconds=15)
    time.sleep(RECENT)
    assert judged(hosts.two, f"{prefix}.10")[0] == poor(f"{prefix}.10")


def test_what_was_learned_before_comes_back_to_an_emptied_server(hosts: Hosts) -> None:
    offend(hosts.one, "127.62.0.1", "127.62.0.2", "127.62.0.3")
    hosts.wait_for(b"\x7f\x3e\x00", 1, 2, 3)
    hosts.server.client.flushall()
    hosts.wait_for(b"\x7f\x3e\x00", 1, 2, 3, seconds=15)
