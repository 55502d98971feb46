"""The MTA's socket is missing, refusing, full or slow: replies, log lines, and automatic recovery."""

import signal
import time

import pytest

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta, fill
from robust.harness import GREETING, TEASER, wait_until

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}


def refuse(mta: FakeMta, how: str) -> str:
    """Make the socket refuse or miss; return the system's words for it."""
    mta.stop()
    if how == "refusing":
        return "Connection refused"
    mta.path.unlink()
    return "No such file or directory"


@pytest.mark.parametrize("how", ["refusing", "missing"])
def test_known_client_is_told_at_once(start: Start, mta: FakeMta, how: str) -> None:
    """Without a teaser: one reply, and no DISCONNECT line (reference 8.5). It works again without a restart."""
    screener = start(KNOWN)
    why = refuse(mta, how)
    with screener.connect("127.7.0.1") as client:
        assert client.read_all() == b"421 4.3.2 All server ports are busy\r\n"
        screener.line(f"]: warning: cannot connect to service {mta.path}: {why}$")
        assert len(screener.lines(f"ALLOWLISTED {client.pattern}")) == 1
        assert screener.lines("DISCONNECT") == []
    mta.start()
    with screener.connect("127.7.0.1") as client:
        assert client.read() == FROM_MTA
    assert len(screener.lines("warning")) == 1


@pytest.mark.parametrize("how", ["refusing", "missing"])
def test_client_behind_a_teaser_gets_a_greeting_first(start: Start, mta: FakeMta, how: str) -> None:
    """One command is waited for, then 421; QUIT gets 221 (reference 8.5). One connection logs one PASS line."""
    screener = start(KNOWN)
    refuse(mta, how)
    with screener.connect("127.1.0.1") as client, screener.connect("127.1.0.2") as quitting:
        assert client.read() == TEASER + GREETING
        client.send(b"EHLO me\r\n")
        assert client.read_all() == b"421 4.3.2 No system resources\r\n"
        assert quitting.read() == TEASER + GREETING
        quitting.send(b"QUIT\r\n")
        assert quitting.read_all() == b"221 2.0.0 Bye\r\n"
        for each in (client, quitting):
            screener.line(rf"DISCONNECT {each.pattern}")
            assert len(screener.lines(rf"PASS NEW {each.pattern}")) == 1
            assert screener.lines(rf"PASS OLD {each.pattern}") == []
    assert len(screener.lines("warning: cannot connect to service ")) == 2
    mta.start()
    with screener.connect("127.1.0.3") as client:
        assert client.read() == TEASER + FROM_MTA


def test_full_socket_is_waited_for(start: Start, mta: FakeMta) -> None:
    """In their order, and served as soon as there is room."""
    screener = start(KNOWN)
    fill(mta)
    clients = [screener.connect(f"127.7.2.{number}") for number in range(1, 31)]
    new = screener.connect("127.1.0.1")
    screener.line(r"ALLOWLISTED \[127\.7\.2\.", 30)
    screener.line("PASS NEW")
    assert all(client.silent() for client in clients)
    assert new.socket.recv(1000) == TEASER
    assert new.silent(0.1)
    with screener.connect("127.7.2.200") as leaving:
        screener.line(rf"ALLOWLISTED {leaving.pattern}")
    screener.line(rf"HANGUP after \S+ from {leaving.pattern}")
    mta.accept()
    for client in clients:
        assert client.read() == FROM_MTA
    assert new.read() == FROM_MTA
    waited = [taken["client_address"] for taken in mta.taken if taken["client_address"].startswith("127.7.2.")]
    assert waited == [f"127.7.2.{number}" for number in range(1, 31)]
    assert screener.lines("warning") == []


def test_full_socket_is_given_up_after_ten_seconds(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN)
    fill(mta)
    began = time.monotonic()
    with screener.connect("127.7.2.1") as known, screener.connect("127.1.0.1") as new:
        assert new.socket.recv(1000) == TEASER
        assert known.read_all() == b"421 4.3.2 All server ports are busy\r\n"
        assert time.monotonic() - began > 9.5
        screener.line(f"warning: cannot connect to service {mta.path}: Resource temporarily unavailable$")
        assert screener.lines(rf"DISCONNECT {known.pattern}") == []
        assert new.read() == GREETING
        new.send(b"EHLO me\r\n")
        assert new.read_all() == b"421 4.3.2 No system resources\r\n"
        screener.line(rf"DISCONNECT {new.pattern}")
    mta.accept()
    with screener.connect("127.7.3.1") as client:
        assert client.read() == FROM_MTA


def test_post_queue_limit_ends_the_waiting(start: Start, mta: FakeMta) -> None:
    """At most N clients are in hand-off, including those that wait for a full socket; the rest are rejected at once."""
    screener = start(KNOWN, {"limits": {"post_queue": 20}})
    fill(mta)
    clients = [screener.connect(f"127.7.2.{number}") for number in range(1, 21)]
    screener.line(r"ALLOWLISTED \[127\.7\.2\.", 20)
    with screener.connect("127.7.3.1") as extra:
        assert extra.read_all() == b"421 4.3.2 All server ports are busy\r\n"
        screener.line(rf"NOQUEUE: reject: CONNECT from {extra.pattern}: all server ports busy")
        screener.line(rf"DISCONNECT {extra.pattern}")
    assert all(client.silent() for client in clients)
    mta.accept()
    for client in clients:
        assert client.read() == FROM_MTA
    assert screener.lines("warning") == []


def test_slow_mta_counts_in_the_post_queue(start: Start, mta: FakeMta) -> None:
    """It takes clients and does not confirm: each holds a place until the MTA hangs up."""
    screener = start(KNOWN, {"limits": {"post_queue": 5}})
    descriptors = screener.descriptors()
    mta.keep = True
    for number in range(1, 6):
        with screener.connect(f"127.7.0.{number}") as client:
            assert client.read() == FROM_MTA
    with screener.connect("127.7.0.6") as extra:
        assert extra.read_all() == b"421 4.3.2 All server ports are busy\r\n"
    assert screener.descriptors() == descriptors + 5
    mta.keep = False
    mta.start()
    wait_until(lambda: screener.descriptors() == descriptors, "the end of the hand-offs")
    with screener.connect("127.7.0.7") as client:
        assert client.read() == FROM_MTA


def test_mta_that_goes_away_while_clients_wait(start: Start, mta: FakeMta) -> None:
    """A full socket begins to refuse connections: the waiting clients get a reply, and none is forgotten."""
    screener = start(KNOWN)
    fill(mta)
    clients = [screener.connect(f"127.7.2.{number}") for number in range(1, 31)]
    screener.line(r"ALLOWLISTED \[127\.7\.2\.", 30)
    mta.stop()
    for client in clients:
        assert client.read_all() == b"421 4.3.2 All server ports are busy\r\n"
    mta.start()
    with screener.connect("127.7.3.1") as client:
        assert client.read() == FROM_MTA


def test_greet_waits_that_end_together_before_a_small_backlog(start: Start, mta: FakeMta) -> None:
    screener = start({"limits": {"post_queue": 1000}})
    mta.stop()
    mta.start(5)
    clients = [screener.connect(f"127.1.{number // 200}.{number % 200 + 1}") for number in range(400)]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
        client.socket.close()
    assert len(screener.lines("PASS NEW")) == 400
    assert screener.lines("warning") == []


def test_a_burst_of_known_clients_is_not_told_busy(start: Start, mta: FakeMta) -> None:
    """burst-waits: more than limits.post_queue arrive in one batch of events, and the MTA takes each at once."""
    screener = start(KNOWN, {"limits": {"post_queue": 20}})
    screener.signal(signal.SIGSTOP)
    clients = [screener.connect(f"127.7.3.{number}") for number in range(1, 201)]
    screener.signal(signal.SIGCONT)
    for client in clients:
        assert client.read() == FROM_MTA
        client.socket.close()
    assert screener.lines("all server ports busy") == []
