"""Masses: thousands of clients that say nothing, and a process with too few descriptors for all."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, TEASER, Client, Screener, wait_until

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.7.0/24"]}}
CLIENTS = min(15000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500)
LOAD_TIMEOUT = 120.0


@contextmanager
def silent_clients(screener: Screener, count: int) -> Iterator["subprocess.Popen[str]"]:
    """So many clients that were greeted and say nothing; they leave at the end."""
    host, port = screener.address
    command = [sys.executable, str(Path(__file__).with_name("load.py")), host, str(port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        try:
            yield load
        finally:
            load.kill()


def said(load: "subprocess.Popen[str]") -> int:
    """The number that the load process prints next."""
    assert load.stdout is not None
    return int(load.stdout.readline().split()[1])


def ended(screener: Screener, count: int) -> None:
    """Wait until every session that was not handed off has ended."""
    wait_until(
        lambda: screener.text().count(b": DISCONNECT ") == count, f"{count} sessions to end", seconds=LOAD_TIMEOUT
    )


@pytest.mark.skipif(CLIENTS < 1000, reason="the limit of open descriptors allows no thousand clients")
def test_15000_silent_clients(start: Start, mta: FakeMta, capsys: pytest.CaptureFixture[str]) -> None:
    """Held clients cost at most 0.6 kB each, known clients are still handed off, and all memory is freed."""
    screener = start(KNOWN, {"greet": {"wait": "100s"}, "limits": {"pre_queue": 20000}})
    descriptors = screener.descriptors()
    with screener.connect("127.7.7.7") as known:
        assert known.read() == FROM_MTA
    wait_until(lambda: screener.descriptors() == descriptors, "the end of the hand-off")
    before = screener.status("RssAnon")
    with silent_clients(screener, CLIENTS) as load:
        assert said(load) == CLIENTS
        held = screener.status("RssAnon") - before
        with capsys.disabled():
            print(f" {held / CLIENTS:.2f} kB for each of {CLIENTS} held clients ", end="")
        assert screener.descriptors() == descriptors + CLIENTS
        if "asan" not in Path(f"/proc/{screener.pid}/maps").read_text():
            assert held / CLIENTS <= 0.6
        for number in range(1, 101):
            with screener.connect(f"127.7.7.{number}") as known:
                assert known.read() == FROM_MTA
        assert screener.descriptors() <= descriptors + CLIENTS + 2
    ended(screener, CLIENTS)
    assert len(mta.taken) == 101
    wait_until(lambda: screener.descriptors() == descriptors, "the descriptors of the clients that left")
    after = screener.status("RssAnon") - before
    # The same once more may not cost more memory: what was freed is used again.
    with silent_clients(screener, CLIENTS // 3) as load:
        assert said(load) == CLIENTS // 3
        assert screener.status("RssAnon") - before <= max(held, after) + 512
    ended(screener, CLIENTS + CLIENTS // 3)
    with screener.connect("127.7.7.7") as known:
        assert known.read() == FROM_MTA


def test_greet_waits_that_end_together(start: Start, mta: FakeMta) -> None:
    """2,000 greet waits end within a moment: each client gets its banner, and known clients do not wait for them."""
    screener = start(KNOWN, {"deep": {"pipelining": "enforce"}, "limits": {"pre_queue": 20000}})
    with silent_clients(screener, 2000) as load:
        assert said(load) == 2000
        with screener.connect("127.7.7.7") as known:
            assert known.read() == FROM_MTA
        with screener.connect("127.1.0.1") as client:
            assert client.read() == TEASER + GREETING
    ended(screener, 2001)


def test_pre_queue_limit_is_what_it_says(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN, {"greet": {"wait": "100s", "stress_wait": "50s"}, "limits": {"pre_queue": 10}})
    clients = []
    for number in range(10):
        clients.append(screener.connect(f"127.1.0.{number + 1}"))
        assert clients[-1].socket.recv(len(TEASER)) == TEASER
    with screener.connect("127.1.1.1") as extra:
        assert extra.read() == b"421 4.3.2 All screening ports are busy\r\n"
        screener.line(rf" reject: connect from {extra.pattern}: all screening ports busy")
    with screener.connect("127.7.7.7") as known:
        assert known.read() == FROM_MTA
    for client in clients:
        client.socket.close()
    ended(screener, 11)


def exhausted(start: Start, mta: FakeMta, alone: dict[str, object]) -> tuple[Screener, list[Client]]:
    """A screener without a free descriptor: known clients are on their way to an MTA that does not take them yet."""
    mta.start(1000, accepting=False)
    screener = start(KNOWN, {"limits": {"post_queue": 1000}}, alone, descriptors=40)
    clients: list[Client] = []
    while not screener.lines("accept: Too many open files"):
        clients.append(screener.connect(f"127.7.7.{len(clients) + 1}"))
        assert len(clients) < 100
        time.sleep(0.01)
    return screener, clients


def test_too_few_descriptors_stop_accepting_until_one_is_free(
    start: Start, mta: FakeMta, alone: dict[str, object]
) -> None:
    screener, clients = exhausted(start, mta, alone)
    waiting = screener.connect("127.1.1.1")
    assert waiting.silent(0.1)
    used = screener.cpu()
    time.sleep(1.5)
    assert screener.cpu() - used < 0.5  # it does not spin
    assert waiting.silent()
    assert len(screener.lines("accept: ")) == 1
    mta.accept()
    assert waiting.socket.recv(len(TEASER)) == TEASER
    for client in clients:
        assert client.read() == FROM_MTA
    assert not screener.lines("cannot (connect|pass)")
    assert len(screener.lines("accept: ")) == 1


def test_hand_off_has_a_descriptor_in_reserve(start: Start, mta: FakeMta, alone: dict[str, object]) -> None:
    """An accepted client is handed off, even if it has the last descriptor."""
    screener, _ = exhausted(start, mta, alone)
    accepted = len(screener.lines("ALLOWLISTED"))
    mta.accept()
    wait_until(lambda: len(mta.taken) >= accepted, "the MTA to get all that were accepted")
    assert not screener.lines("cannot (connect|pass)")


def test_clients_that_passed_with_every_descriptor_in_use(start: Start, mta: FakeMta, alone: dict[str, object]) -> None:
    """Clients whose greet wait ends without a descriptor for the hand-off wait for one."""
    mta.start(1000, accepting=False)
    settings = {"limits": {"post_queue": 1000}, "greet": {"wait": "2s", "stress_wait": "2s"}}
    screener = start(KNOWN, settings, alone, descriptors=40)
    tested = [screener.connect(f"127.1.0.{number}") for number in range(1, 9)]
    for client in tested:
        assert client.socket.recv(len(TEASER)) == TEASER
    known: list[Client] = []
    while not screener.lines("accept: Too many open files"):
        known.append(screener.connect(f"127.7.7.{len(known) + 1}"))
        assert len(known) < 100
        time.sleep(0.01)
    screener.line("PASS NEW", len(tested))
    mta.accept()
    for client in [*tested, *known]:
        assert client.read() == FROM_MTA
    assert not screener.lines("cannot (connect|pass)")
