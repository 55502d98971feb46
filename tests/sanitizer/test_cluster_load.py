"""The core's side of the cluster under load: clients that other hosts have passed, answers that are late, malformed or
repeated, sessions that leave while they are asked about, a cluster process that is killed. Nothing may be reported."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.redis_server import RedisServer
from robust.conftest import Alter, Start
from robust.control import Control
from robust.fakedns import Answer, FakeDns, Question, reply
from robust.fakemta import FakeMta
from robust.harness import Screener, wait_until

from fastscreen.cluster import records, secrets
from fastscreen.core import TESTS
from sanitizer.load import NETWORKS
from sanitizer.test_load import PORTS, assert_nothing_stale, load

SECRET = b"the secret of these hosts\n"
# Every fifth answer comes after the budget of a second, others before or after those of the lists. Packets that no
# cluster process sends come with them.
ODD = """
import asyncio, os, random
from fastscreen.cluster import packets
from fastscreen.cluster.packets import PASS, Item
from fastscreen.cluster.process import ClusterProcess

def odd(key):
    some = os.urandom(random.randrange(1, 300))
    whole = packets.encode_found([Item(PASS, key, some[:255])])[0]
    return random.choice((
        some,
        b"F" + some,
        b"F" + os.urandom(5000),
        whole,
        whole[:random.randrange(1, len(whole))],
        packets.encode_found([Item(random.randrange(256), key, some[:40])] * 80)[0],
        packets.encode_found([Item(PASS, key + b"x", some[:40])])[0],
        packets.encode_keep([Item(PASS, key, some[:40])])[0],
        packets.encode_look_up([key])[0],
    ))

deliver = ClusterProcess._deliver

def deliver_oddly(self, worker, found):
    def now():
        for _ in range(random.randrange(3)):
            self._workers.send(worker, odd(found[0][0]))
        for _ in range(random.choice((1, 1, 2))):
            deliver(self, worker, found)
    asyncio.get_running_loop().call_later(random.random() * 0.06 + random.choice((0, 0, 0, 0, 1)), now)

ClusterProcess._deliver = deliver_oddly
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "server")
    yield made
    made.close()


def store_passes(server: RedisServer) -> None:
    """All clients of the load that the cluster may know: some lack a test, some have expired."""
    known, now = secrets.parse(SECRET, "secret"), int(time.time())
    passed = [("pregreet", "dnsbl"), ("pregreet", "dnsbl"), ("pregreet",), ("dnsbl",), ()]
    pipeline = server.client.pipeline(transaction=False)
    for network in (NETWORKS["shared"], NETWORKS["overlap"]):
        for third in range(10, 110):
            for fourth in range(1, 251):
                key = bytes((127, network, third, fourth))
                keys = passed[fourth % len(passed)]
                stamps = tuple(now + 3600 if test.key in keys else 1 if fourth % 2 else 0 for test in TESTS)
                value = records.sign_pass(known, key, stamps, host="mx9", stored=now)
                pipeline.set(b"fastscreen:" + records.record_name(key), value, ex=3600)
    pipeline.execute()


def some_listed(question: Question) -> list[Answer]:
    """Every third client; the answer comes before that of the cluster, or after it."""
    is_listed = int(question.name.partition(".")[0]) % 3 == 0
    return [Answer(reply(question, *(["127.0.0.2"] if is_listed else []), ttl=1), random.random() * 0.05)]


def cluster_pids(screener: Screener) -> list[int]:
    found = []
    for pid in screener.workers():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "fastscreen-clus":
                found.append(pid)
    return found


def test_answers_of_the_cluster(
    start: Start, alter: Alter, folder: Path, mta: FakeMta, dns: FakeDns, server: RedisServer, seconds: float
) -> None:
    store_passes(server)
    dns.zones["bl.test"] = some_listed
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    settings: dict[str, Any] = {
        "greet": {"wait": "2s", "action": "drop"},
        "dnsbl": {"sites": ["bl.test"], "resolvers": [dns.endpoint], "action": "drop", "max_ttl": "1s"},
        "control": {"path": str(folder / "control")},
        "cluster": {"server": server.url, "secret_file": str(secret), "name": "mx1"},
    }
    alter(ODD)
    screener = start(PORTS, settings)
    screener.line(" cluster: connected to ")
    over = threading.Event()
    trouble: list[str] = []

    def disturb() -> None:
        """Kill the cluster process, and reload what the workers have of it."""
        dice = random.Random(1)
        while not over.wait(dice.random() * 2):
            if dice.random() < 0.4:
                with contextlib.suppress(ProcessLookupError):
                    for pid in cluster_pids(screener):
                        os.kill(pid, signal.SIGKILL)
                continue
            changed = {"budget": dice.choice(("1s", "9s")), "accept": dice.choice((["passes"], ["passes"], []))}
            screener.configure({**screener.settings, "cluster": {**settings["cluster"], **changed}})
            screener.signal(signal.SIGHUP)

    def disturb_and_tell() -> None:
        try:
            disturb()
        except Exception as error:
            trouble.append(repr(error))

    disturbing = threading.Thread(target=disturb_and_tell)
    disturbing.start()
    try:
        load(screener, seconds, "shared", "overlap", "overlap", "leave")
    finally:
        over.set()
        disturbing.join()
    assert not trouble
    with Control(screener.folder / "control") as control:
        counts = control.ok("status")["cluster"]
    # Each of these ways was taken; otherwise the load tests nothing.
    assert all(counts[name] > 50 for name in ("asked", "found", "ended", "late")), counts
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] > 0, "passes were stored"
    wait_until(lambda: len(cluster_pids(screener)) == 1, "the last cluster process")
    assert_nothing_stale(screener)
