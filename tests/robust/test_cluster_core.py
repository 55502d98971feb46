"""The core's side of the cluster: packets to the cluster process and from it, and what an answer does to a client."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastscreen.core import TESTS, read_record, write_record
from robust.fakedns import FakeDns, listed, not_listed, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.inprocess import Core

ENABLED = ("pregreet", "dnsbl")
CLIENT = "127.71.0.1"


class Cluster:
    """The cluster process's end of the socket pair, for a core that is connected to the other end."""

    def __init__(self, core: Core, budget: float = 30.0, **flags: bool) -> None:
        self.core = core
        self.end, self._worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.setblocking(False)
        core.screener.use_cluster(self._worker.fileno(), budget=budget, **flags)

    def packets(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.end.recv(65536))
        return found

    def next_packet(self) -> bytes:
        self.core.serve(lambda: bool(select.select([self.end], [], [], 0)[0]), "a packet for the cluster process")
        return self.end.recv(65536)

    def asked(self) -> list[str]:
        packet = self.next_packet()
        assert packet[:1] == b"L"
        return [socket.inet_ntoa(key) for (key,) in items(packet[1:], 1)]

    def kept(self) -> list[tuple[int, str, bytes]]:
        packet = self.next_packet()
        assert packet[:1] == b"K"
        return [(kind[0], socket.inet_ntoa(key), record) for kind, key, record in items(packet[1:], 3)]

    def answer(self, client: str, **until: float) -> None:
        """These tests are passed for so many seconds from now; the others are disabled there."""
        self.end.send(b"F" + found_item(socket.inet_aton(client), stamps(**until)))

    def close(self) -> None:
        self.core.screener.use_cluster(-1)
        self.end.close()
        self._worker.close()


def items(data: bytes, fields: int) -> Iterator[list[bytes]]:
    """The items of a packet; with three fields, the first is one byte."""
    at = 0
    while at < len(data):
        item = []
        for field in range(fields):
            size = 1 if field == 0 and fields == 3 else data[at]
            at += not (field == 0 and fields == 3)
            item.append(data[at : at + size])
            at += size
        yield item


def found_item(key: bytes, record: bytes, kind: int = 0) -> bytes:
    return struct.pack("BB", kind, len(key)) + key + bytes([len(record)]) + record


def stamps(**until: float) -> bytes:
    now = int(time.time())
    return write_record([now + int(until[test.key]) if test.key in until else 1 for test in TESTS])


@pytest.fixture
def mta(tmp_path: Path) -> Iterator[FakeMta]:
    mta = FakeMta(tmp_path / "mta")
    mta.start()
    yield mta
    mta.close()


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    server = FakeDns({"bl.test": silent})
    yield server
    server.close()


@pytest.fixture
def core(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> Iterator[Core]:
    """Its greet wait is longer than any test."""
    core = Core(tmp_path, dns, wait="60s", action="enforce", banner="mx.test")
    yield core
    core.close()


@pytest.fixture
def cluster(core: Core) -> Iterator[Cluster]:
    cluster = Cluster(core)
    yield cluster
    cluster.close()


def log_of(core: Core) -> str:
    return core.log.lines().decode()


def reads(client: socket.socket) -> bytes:
    try:
        return client.recv(1000)
    except BlockingIOError:
        return b""


def test_a_pass_of_another_host_ends_the_wait(core: Core, cluster: Cluster, mta: FakeMta) -> None:
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, pregreet=3600, dnsbl=1800)
    core.serve(lambda: FROM_MTA in reads(client), "the greeting of the MTA")
    lines = log_of(core)
    assert f"PASS OLD [{CLIENT}]" in lines
    assert "PASS NEW" not in lines
    assert core.stored == {socket.inet_aton(CLIENT): stamps(pregreet=3600, dnsbl=1800)}
    assert core.screener.stats()["cluster_ended"] == 1
    # It is known here now: nobody is asked, and what another host has told is not told again.
    assert core.told(CLIENT) == FROM_MTA.strip()
    time.sleep(0.02)
    core.screener.run()
    assert cluster.packets() == []


def test_sessions_of_a_client_share_a_question(core: Core, cluster: Cluster, mta: FakeMta) -> None:
    clients = core.hold([CLIENT, CLIENT, "127.71.0.2", CLIENT])
    assert sorted(cluster.asked()) == [CLIENT, "127.71.0.2"]
    clients[0].close()
    core.serve(lambda: core.screener.sessions == 3, "the end of a session")
    cluster.answer(CLIENT, pregreet=3600, dnsbl=1800)
    for client in (clients[1], clients[3]):
        core.serve(lambda client=client: FROM_MTA in reads(client), "the greeting of the MTA")  # type: ignore[misc]
    assert FROM_MTA not in reads(clients[2])
    assert core.screener.stats()["cluster_ended"] == 2


def test_an_answer_after_the_budget_is_ignored(core: Core) -> None:
    cluster = Cluster(core, budget=0.02)
    core.hold([CLIENT])
    assert cluster.asked() == [CLIENT]
    time.sleep(0.03)
    cluster.answer(CLIENT, pregreet=3600, dnsbl=1800)
    core.serve(lambda: core.screener.stats()["cluster_late"] == 1, "the answer")
    assert core.stored == {}
    assert core.screener.stats()["stages"]["greet"] == 1
    core.hold([CLIENT])
    assert cluster.asked() == [CLIENT], "a later session asks again"
    cluster.close()


def test_a_client_that_failed_here_is_not_saved(core: Core, cluster: Cluster, mta: FakeMta) -> None:
    (client,) = core.hold([CLIENT])
    client.send(b"EHLO early.test\r\n")
    core.serve(lambda: "PREGREET" in log_of(core), "the finding")
    cluster.answer(CLIENT, pregreet=3600, dnsbl=1800)
    core.serve(lambda: core.screener.stats()["cluster_found"] == 1, "the answer")
    assert core.screener.stats()["cluster_ended"] == 0
    assert mta.taken == []


@pytest.mark.parametrize("until", [{"pregreet": 3600}, {"pregreet": 3600, "dnsbl": -1}])
def test_what_is_still_to_be_tested_is(core: Core, cluster: Cluster, until: dict[str, float]) -> None:
    """Only the lists are left: their answer decides."""
    core.hold([CLIENT])
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, **until)
    core.serve(lambda: core.screener.stats()["cluster_found"] == 1, "the answer")
    assert core.screener.stats()["stages"]["greet"] == 1
    assert core.screener.stats()["cluster_ended"] == 0


def test_a_listed_client_is_rejected_all_the_same(core: Core, dns: FakeDns, cluster: Cluster) -> None:
    dns.zones["bl.test"] = listed("127.0.0.2", delay=0.1)
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, pregreet=3600)
    core.serve(lambda: "DNSBL rank" in log_of(core), "the verdict of the lists")
    client.close()


def test_deep_tests_are_not_skipped(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    core = Core(tmp_path, dns, wait="60s", banner="mx.test", settings='[deep]\npipelining = "enforce"\n')
    cluster = Cluster(core)
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, pregreet=3600, dnsbl=3600)
    core.serve(lambda: core.screener.stats()["stages"]["dialogue"] == 1, "the dialogue")
    core.serve(lambda: b"220 mx.test" in reads(client), "the rest of the greeting")
    assert mta.taken == []
    cluster.close()
    core.close()


def test_passes_are_told_to_the_other_hosts(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    dns.zones["bl.test"] = not_listed()
    core = Core(tmp_path, dns, wait="1s")
    cluster = Cluster(core, accepts=False)
    assert core.told(CLIENT) == FROM_MTA.strip()
    assert cluster.kept() == [(0, CLIENT, core.stored[socket.inet_aton(CLIENT)])]
    assert core.told(CLIENT) == FROM_MTA.strip()
    time.sleep(0.02)
    core.screener.run()
    assert cluster.packets() == [], "a known client is told to nobody"
    cluster.close()
    core.close()


def test_the_last_passes_are_told_at_the_end(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    dns.zones["bl.test"] = not_listed()
    core = Core(tmp_path, dns, wait="1s")
    cluster = Cluster(core, accepts=False)
    assert core.told(CLIENT) == FROM_MTA.strip()
    before = cluster.packets()
    core.screener.use_cluster(-1)
    assert len(before + cluster.packets()) == 1
    cluster.close()
    core.close()


def test_a_cluster_process_that_has_ended_for_good(core: Core, cluster: Cluster) -> None:
    """After a restart, nobody holds the other end: the worker neither spins nor asks."""
    core.hold([CLIENT])
    assert cluster.asked() == [CLIENT]
    cluster.end.close()
    for _ in range(3):
        core.screener.run()
    assert not select.select([core.screener.fileno()], [], [], 0)[0]
    core.hold(["127.71.0.2"])
    assert core.screener.stats()["cluster_asked"] == 1
    assert core.screener.stats()["stages"]["greet"] == 2


def test_nothing_is_told_without_share(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    dns.zones["bl.test"] = not_listed()
    core = Core(tmp_path, dns, wait="1s")
    cluster = Cluster(core, shares=False)
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    assert core.told_to(client) == FROM_MTA.strip()
    time.sleep(0.02)
    core.screener.run()
    assert cluster.packets() == []
    cluster.close()
    core.close()


def test_a_full_socket_drops_the_oldest_and_holds_up_nobody(core: Core, cluster: Cluster) -> None:
    """Nobody reads: packets wait up to a bound, and clients are served meanwhile."""
    cluster.core.screener.use_cluster(cluster._worker.fileno(), budget=0.0)
    cluster._worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def dropped() -> int:
        return int(core.screener.stats()["cluster_dropped"])

    for number in range(400):
        held = core.hold([f"127.72.{number // 200}.{1 + number % 200}"])
        core.hang_up(held)
        time.sleep(0.005)
        core.screener.run()
        if dropped():
            break
    assert dropped() > 0
    # The first ones had gone into the socket; of the others the last are there.
    waiting: list[bytes] = []
    end = time.monotonic() + 2.0
    while time.monotonic() < end and (len(waiting) < 64 or cluster.packets()):
        core.screener.run()
        waiting += cluster.packets()
    assert len(waiting) >= 64


NO_ANSWERS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"F",
    "unknown-letter": lambda: b"x",
    "cut-key": lambda: b"F\x00\x04",
    "cut-record": lambda: b"F\x00\x04\x7f\x47\x00\x01\x05",
    "disabled": lambda: b"F" + found_item(socket.inet_aton(CLIENT), b"\x95\x01\x01\x01\x01"),
    "empty-record": lambda: b"F" + found_item(socket.inet_aton(CLIENT), b""),
    "no-record": lambda: b"F" + found_item(socket.inet_aton(CLIENT), b"\xc0" * 40),
    "empty-key": lambda: b"F" + found_item(b"", stamps(pregreet=9, dnsbl=9)),
    "other-prefix": lambda: b"F" + found_item(socket.inet_aton(CLIENT) + b"\x18", stamps(pregreet=9, dnsbl=9)),
    "other-kind": lambda: b"F" + found_item(socket.inet_aton(CLIENT), stamps(pregreet=9, dnsbl=9), kind=7),
    "other-client": lambda: b"F" + found_item(socket.inet_aton("127.71.0.9"), stamps(pregreet=9, dnsbl=9)),
    "expired": lambda: b"F" + found_item(socket.inet_aton(CLIENT), stamps(pregreet=-9, dnsbl=-9)),
    "own-letter": lambda: b"K" + found_item(socket.inet_aton(CLIENT), stamps(pregreet=9, dnsbl=9)),
}


@pytest.mark.parametrize("packet", NO_ANSWERS)
def test_what_is_no_answer_changes_nothing(core: Core, cluster: Cluster, packet: str) -> None:
    core.hold([CLIENT])
    assert cluster.asked() == [CLIENT]
    cluster.end.send(NO_ANSWERS[packet]())
    for _ in range(3):
        core.screener.run()
    assert core.stored == {}
    assert core.screener.stats()["stages"]["greet"] == 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=st.binary(min_size=1, max_size=200))
def test_any_packet_is_survived(core: Core, cluster: Cluster, packet: bytes) -> None:
    if not core.screener.sessions:
        core.hold([CLIENT])
    cluster.end.send(b"F" + packet)
    cluster.end.send(packet)
    core.screener.run()
    core.screener.run()


def test_an_answer_after_the_lists_frees_nobody_twice(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    """The lists have rejected the client, which only waits for the end of the pregreet test: the answer ends the wait,
    and with it the client's last session."""
    dns.zones["bl.test"] = listed("127.0.0.2")
    core = Core(tmp_path, dns, wait="60s", banner="mx.test")
    cluster = Cluster(core)
    clients = core.hold([CLIENT, CLIENT])
    assert cluster.asked() == [CLIENT]
    core.serve(lambda: core.screener.stats()["dns_answered"] >= 1, "the answer of the list")
    for _ in range(3):
        core.screener.run()
    cluster.answer(CLIENT, pregreet=3600)
    core.serve(lambda: core.screener.sessions == 0, "the end of the sessions")
    for client in clients:
        assert b"blocked using bl.test" in reads(client)
    cluster.close()
    core.close()


def test_the_lists_answers_count_more_than_a_pass_elsewhere(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    dns.zones["bl.test"] = listed("127.0.0.2")
    core = Core(tmp_path, dns, wait="60s", banner="mx.test")
    cluster = Cluster(core)
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    core.serve(lambda: core.screener.stats()["dns_answered"] == 1, "the answer of the list")
    for _ in range(3):
        core.screener.run()
    cluster.answer(CLIENT, pregreet=3600, dnsbl=3600)
    core.serve(lambda: core.screener.sessions == 0, "the end of the session")
    assert b"blocked using bl.test" in reads(client)
    assert mta.taken == []
    cluster.close()
    core.close()


def test_a_test_that_another_host_has_made_is_over(core: Core, cluster: Cluster, mta: FakeMta) -> None:
    """Only the lists are left, so the client may talk: as if the pass had been in the local cache."""
    (client,) = core.hold([CLIENT])
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, pregreet=3600)
    core.serve(lambda: core.screener.stats()["cluster_found"] == 1, "the answer")
    client.send(b"EHLO early.test\r\n")
    time.sleep(0.02)
    for _ in range(3):
        core.screener.run()
    assert "PREGREET" not in log_of(core)
    assert core.screener.sessions == 1


@pytest.mark.parametrize("until", [{"pregreet": 3600}, {"pregreet": 3600, "dnsbl": -60}])
def test_a_client_that_passed_elsewhere_is_not_new(
    core: Core, dns: FakeDns, cluster: Cluster, mta: FakeMta, until: dict[str, float]
) -> None:
    """Here only the lists are left to be asked: as for a client whose local record lacks this test."""
    dns.zones["bl.test"] = not_listed(delay=0.1)
    client = core.connect(CLIENT)
    assert cluster.asked() == [CLIENT]
    cluster.answer(CLIENT, **until)
    core.serve(lambda: FROM_MTA in reads(client), "the greeting of the MTA")
    lines = log_of(core)
    assert f"PASS OLD [{CLIENT}]" in lines
    assert "PASS NEW" not in lines
    kept = read_record(core.stored[socket.inet_aton(CLIENT)])
    assert kept is not None
    assert [stamp > time.time() for stamp in kept[:2]] == [True, True]
    assert set(kept[2:]) == {1}


def test_look_ups_are_dropped_before_records(tmp_path: Path, dns: FakeDns, mta: FakeMta) -> None:
    """A frozen cluster process and many new clients: passes that are to be stored are not lost."""
    dns.zones["bl.test"] = not_listed()
    core = Core(tmp_path, dns, wait="1s")
    cluster = Cluster(core, budget=0.0)
    cluster._worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    passed = core.hold([f"127.73.0.{number}" for number in range(1, 4)])
    core.serve(lambda: len(core.stored) == 3, "the passes")
    number = 0
    while core.screener.stats()["cluster_dropped"] < 10:
        number += 1
        core.hang_up(core.hold([f"127.74.{number // 200}.{1 + number % 200}"]))
        time.sleep(0.005)
        core.screener.run()
    letters = b""
    end = time.monotonic() + 5.0
    while time.monotonic() < end and b"K" not in letters:
        core.screener.run()
        letters += b"".join(packet[:1] for packet in cluster.packets())
    assert b"K" in letters
    for client in passed:
        client.close()
    cluster.close()
    core.close()
