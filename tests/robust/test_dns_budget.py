"""The limit of queries: each list has its own, networks share it, and clients do not pass because of it."""

import contextlib
import functools
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastscreen import core
from fastscreen.cache.stamps import pack_stamps
from fastscreen.screening import policy
from robust.conftest import Start
from robust.fakedns import Answer, FakeDns, Question, listed, not_listed, reply, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.inprocess import Core

REFUSED = b"521 5.7.1 Service unavailable"
LATER = b"421 4.3.2 Service currently unavailable"
FLOOD = 9000
"""Clients that leave at once: more than the questions that one list has on their way."""


def asked(dns: FakeDns, source: str, zone: str = "bl.test") -> int:
    return dns.asked[".".join([*reversed(source.split(".")), zone])]


Make = Callable[..., Core]


@pytest.fixture
def worker(folder: Path, dns: FakeDns, mta: FakeMta, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes cores whose lists have room for 4 questions, of one network for 1.

    The key of the networks' hashes is always the same, so that no two of a test's networks share a queue by chance.
    """
    monkeypatch.setattr(os, "urandom", bytes)
    monkeypatch.setattr(policy, "Lists", functools.partial(core.Lists, budget=4))
    made: list[Core] = []

    def make(**more: Any) -> Core:
        made.append(Core(folder, dns, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def one_network(question: Question) -> list[Answer]:
    """A list of 127.1.200.0/24."""
    return (listed("127.0.0.2") if ".200.1.127." in question.name else not_listed())(question)


def test_a_silent_list_and_a_flood(start: Start, dns: FakeDns) -> None:
    """`starve`: clients that leave at once exhaust the queries of a silent list, but not those of the other list."""
    dns.zones |= {"dead.test": silent, "good.test": one_network}
    sites = {"sites": ["dead.test", "good.test"], "action": "drop", "resolvers": [dns.endpoint], "probe_interval": 0}
    screener = start({"dnsbl": sites, "greet": {"banner": "", "wait": "3s"}, "limits": {"pre_queue": 5000}})
    for number in range(FLOOD):
        screener.connect(f"127.{100 + number // 50000}.{number // 250}.{1 + number % 250}").__exit__()
    clients = [screener.connect(f"127.1.200.{number}") for number in range(1, 41)]
    told = [client.read() for client in clients]
    assert all(reply.startswith(REFUSED) for reply in told), Counter(reply[:9] for reply in told)
    for client in clients:
        client.socket.close()


@pytest.mark.parametrize("attempt", range(3))
def test_a_client_that_comes_back_while_its_question_changes_resolvers(
    worker: Make, dns: FakeDns, attempt: int
) -> None:
    """The end of a try, a hang-up and a new session of the same client in one batch: the question is lined up once,
    and those behind it are sent."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    host, _, port = dns.endpoint.rpartition(":")
    packed = struct.pack("=HH", socket.AF_INET, socket.htons(int(port))) + socket.inet_aton(host) + bytes(8)
    made.screener.use_resolvers([packed, packed])
    client, _ = made.hold(["127.1.1.1", "127.2.1.1"])
    made.serve(lambda: asked(dns, "127.1.1.1") == asked(dns, "127.2.1.1") == 1, "their questions")
    tried = time.monotonic() + 1.0  # at the latest: a try lasts 1 s
    while time.monotonic() < tried - 0.02:  # the core must not seem to have stood still
        made.screener.run()
        time.sleep(0.002)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    made.connect("127.1.1.1")
    while time.monotonic() < tried:
        time.sleep(0.001)
    made.screener.run()
    made.serve(lambda: asked(dns, "127.2.1.1") >= 2, "the question behind it, a second time")
    made.serve(lambda: asked(dns, "127.1.1.1") >= 2, "its question, a second time")
    assert made.screener.stats()["dns_in_flight"] == 2


def test_questions_of_clients_that_left(worker: Make, dns: FakeDns) -> None:
    """They do not use up the limit, and are never sent again."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    left = [f"127.1.{network}.1" for network in range(4)]
    made.hang_up(made.hold(left))
    stay = [f"127.2.{network}.1" for network in range(4)]
    made.hold(stay)
    made.serve(lambda: all(asked(dns, source) == 2 for source in stay), "the same questions a second time")
    assert {source: asked(dns, source) for source in left} == dict.fromkeys(left, 1)


def test_a_client_that_comes_back_is_asked_about_again(worker: Make, dns: FakeDns) -> None:
    """And within the limit."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    made.hang_up(made.hold(["127.1.1.1"]))
    made.serve(lambda: asked(dns, "127.1.1.1") == 1, "the question")
    dns.zones["bl.test"] = listed("127.0.0.2")
    assert made.told("127.1.1.1").startswith(REFUSED)


def test_an_answer_that_comes_late_is_kept(worker: Make, dns: FakeDns) -> None:
    """The client left after its query was sent. The answer is kept for its next connection."""
    dns.zones["bl.test"] = listed("127.0.0.2", delay=0.3)
    made = worker(wait="30s")
    held = made.hold(["127.1.1.1"])
    made.serve(lambda: asked(dns, "127.1.1.1") == 1, "the question")
    made.hang_up(held)
    made.serve(lambda: [each[1] for each in made.screener.answers("127.1.1.1")] == ["listed"], "the answer")
    assert made.told("127.1.1.1").startswith(REFUSED)
    assert asked(dns, "127.1.1.1") == 1


def test_what_was_not_asked_is_not_kept(worker: Make, dns: FakeDns) -> None:
    """A flood of clients whose queries were not sent does not use memory."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    made.hold(f"127.1.{network}.1" for network in range(4))
    kept = made.screener.stats()["dns_kept"]
    made.hang_up(made.hold(f"127.2.{network}.1" for network in range(50)))
    assert made.screener.stats()["dns_kept"] == kept
    assert made.screener.answers("127.2.7.1") == []


def test_one_network_does_not_take_all(worker: Make, dns: FakeDns) -> None:
    """However many addresses it uses, queries for others are sent at once."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    many = [f"127.1.1.{host}" for host in range(1, 60)]
    made.hold(many)
    others = [f"127.2.{network}.1" for network in range(3)]
    made.hold(others)
    made.serve(lambda: all(asked(dns, source) for source in others), "their questions")
    assert sum(asked(dns, source) > 0 for source in many) == 1


def test_networks_have_their_turn(worker: Make, dns: FakeDns) -> None:
    """At the limit, the next free query goes to a waiting network instead of the oldest client."""
    dns.zones["bl.test"] = silent
    made = worker(wait="30s")
    networks = [[f"127.1.{network}.{host}" for host in range(1, 30)] for network in range(4)]
    held = {source: client for network in networks for source, client in zip(network, made.hold(network), strict=True)}
    first = [network[0] for network in networks]
    made.serve(lambda: all(asked(dns, source) for source in first), "a question about each network")
    made.hold(["127.2.1.1"])
    assert not asked(dns, "127.2.1.1")
    made.hang_up([held[first[2]]])
    made.serve(lambda: asked(dns, "127.2.1.1") > 0, "the question about the network that waits")
    assert {source for source in held if asked(dns, source)} == set(first)
    # And once more: now it is that network's turn that gave its room away.
    made.hang_up([held[first[0]]])
    made.serve(lambda: sum(asked(dns, source) > 0 for source in held) == 5, "the next question")
    assert asked(dns, networks[2][1])


@pytest.mark.parametrize("action", ["drop", "enforce"])
def test_who_could_not_be_asked_about_does_not_pass(worker: Make, dns: FakeDns, action: str) -> None:
    """`deferred-when-not-asked`: nothing is stored, known clients still pass, and the log has a warning."""
    dns.zones["bl.test"] = silent
    made = worker(action=action)
    made.stored[bytes([127, 3, 1, 1])] = pack_stamps((2**31, 2**31, 2**31, 2**31, 2**31))
    held = made.hold([f"127.1.{network}.1" for network in range(4)])
    other = made.connect("127.2.1.1")
    assert made.told("127.3.1.1") == FROM_MTA.strip()
    if action == "drop":
        assert made.told_to(other) == LATER
    else:
        said = [b"RCPT TO:<c@d.example>\r\n", b"MAIL FROM:<a@b.example>\r\n", b"EHLO c\r\n"]
        got = b""

        def refused() -> bool:
            nonlocal got
            with contextlib.suppress(BlockingIOError):
                got = other.recv(1000)
                if said:
                    other.send(said.pop())
            return got.startswith(b"4")

        made.serve(refused, "the refusal of its recipient")
        assert got == b"450 4.3.2 Service currently unavailable\r\n"
    assert bytes([127, 2, 1, 1]) not in made.stored
    assert [line for line in made.warnings if "bl.test was not asked about every client" in line]
    # Those that were asked about, in vain, pass as with postscreen.
    assert made.told_to(held[0]) == FROM_MTA.strip()


def test_the_rest_is_asked_when_there_is_room(worker: Make, dns: FakeDns) -> None:
    """More clients than the limit, and a list that answers: every client gets its answer."""
    dns.zones["bl.test"] = listed("127.0.0.2")
    made = worker(wait="30s")
    for client in made.hold(f"127.1.{host % 7}.{host}" for host in range(1, 150)):
        assert made.told_to(client).startswith(REFUSED)


def test_one_list_does_not_take_anothers_room(worker: Make, dns: FakeDns) -> None:
    dns.zones |= {"dead.test": silent, "bl.test": one_network}
    made = worker(sites=("dead.test", "bl.test"))
    held = made.hold(f"127.1.{network}.1" for network in range(190, 210))
    told = [made.told_to(client) for client in held]
    assert Counter(reply[:9] for reply in told) == {REFUSED[:9]: 1, LATER[:9]: 15, FROM_MTA[:9]: 4}
    assert told[10].startswith(REFUSED)


def test_too_many_truncated_answers(worker: Make, dns: FakeDns) -> None:
    """More than are repeated over TCP: the answer of the list is unknown."""
    dns.zones["bl.test"] = lambda question: [Answer(reply(question, flags=0x8380))]
    made = worker()
    assert made.told("127.1.1.1") == LATER
    assert not made.stored


@pytest.mark.parametrize(
    ("threshold", "told"), [(1, LATER), (3, FROM_MTA.strip())], ids=["it could decide", "it could not"]
)
def test_only_what_could_decide_matters(worker: Make, dns: FakeDns, threshold: int, told: bytes) -> None:
    """A list that was not queried only defers clients that it could have brought to the threshold."""
    dns.zones["bl.test"] = silent
    made = worker(sites=("bl.test*2",), dnsbl=f"threshold = {threshold}, ")
    made.hold([f"127.1.{network}.1" for network in range(4)])
    assert made.told("127.2.1.1") == told
