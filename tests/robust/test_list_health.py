"""Every kind of unhealthy list is recognized, is then excluded from the score, and is included again afterwards."""

import contextlib
import itertools
import mmap
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fastscreen.dns.health import state
from fastscreen.dns.health.state import HealthTable, State
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import Answer, Behaviour, FakeDns, Question, failing, listed, not_listed, reply, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import Screener, wait_until
from robust.inprocess import Core, batched
from robust.test_control import connected, eventually
from robust.test_metrics import samples, scraped

INTERVAL = 2
CLIENTS = (f"127.{100 + number // 256}.{number % 256}.{1 + number % 2}" for number in range(30000))
"""Each client is in a different network."""


def well(question: Question) -> list[Answer]:
    """Lists the test entry, and clients whose last octet is even."""
    client = question.name.split(".")[0]
    hit = question.name.startswith("2.0.0.127.") or (client.isdigit() and int(client) % 2 == 0)
    return (listed("127.0.0.2") if hit and "1.0.0.127." not in question.name[:10] else not_listed())(question)


def no_address(question: Question) -> list[Answer]:
    return [Answer(reply(question, soa=300))]


def gibberish(question: Question) -> list[Answer]:
    return [Answer(question.packet[:2] + b"\x81\x80\0\1\0\7" + question.packet[8:] + b"\xc0\x0c" * 9)]


class Dying(NamedTuple):
    """A list that dies."""

    behaviour: Behaviour
    words: str


DYING = {
    "world": Dying(listed("127.0.0.2"), "lists 127.0.0.1, which a working list does not"),
    "open-resolver": Dying(listed("127.255.255.254"), "refuses this resolver's queries"),
    "over-quota": Dying(listed("127.255.255.255"), "refuses this resolver's queries, or is over quota"),
    "list.dnswl.org": Dying(listed("127.0.0.255"), "refuses this resolver's queries, or is over quota"),
    "parked": Dying(listed("192.0.2.80"), r"gives answers outside 127\.0\.0\.0/8"),
    "silent": Dying(silent, "does not answer"),
    "gibberish": Dying(gibberish, "(does not answer|lacks a working name server)"),
    "servfail": Dying(failing(), "lacks a working name server"),
    "refused": Dying(failing(5), "lacks a working name server"),
    "nxdomain": Dying(not_listed(), r"has lost its test entry 127\.0\.0\.2"),
    "no-address": Dying(no_address, r"has lost its test entry 127\.0\.0\.2"),
}


def settings(folder: Path, dns: FakeDns, **more: object) -> Map:
    sites = {"sites": ["bl.test", "other.test"], "action": "drop", "resolvers": [dns.endpoint], "timeout": "1s"}
    return {
        "dnsbl": sites | {"probe_interval": INTERVAL} | more,
        "greet": {"banner": "", "wait": "1s"},
        "control": {"path": str(folder / "run" / "control")},
    }


@pytest.fixture
def zones(dns: FakeDns) -> FakeDns:
    dns.zones["bl.test"] = well
    dns.zones["other.test"] = lambda question: (
        listed("127.0.0.2") if question.name.startswith("2.0.0.127.") else not_listed()
    )(question)
    return dns


def passes(screener: Screener, source: str) -> bool:
    with screener.connect(source) as client:
        return client.read() == FROM_MTA


def clients() -> Iterator[str]:
    """Addresses that nobody knows, and that a well list lists."""
    return (source for source in CLIENTS if int(source.rpartition(".")[2]) % 2 == 0)


def test_dying_lists(start: Start, folder: Path, dns: FakeDns, mta: FakeMta) -> None:
    """`list-health`: one list of each kind, and a healthy one. Each list has separate clients, 127.NUMBER.0.0/16."""
    lists = {name: 10 + at for at, name in enumerate(DYING)}
    sound = {name: one_of(number) for name, number in lists.items()}
    dns.zones |= sound | {"other.test": one_of(9)}
    config = settings(folder, dns, sites=[*DYING, "other.test"])
    place = str(folder / "run" / "metrics")
    screener = start(config, {"metrics": {"listen": f"unix:{place}"}})
    wait_until(lambda: all(dns.count(name) >= 4 for name in lists), "the first probes")
    known = {name: f"127.{number}.0.2" for name, number in lists.items()}
    assert FROM_MTA not in connect_all(screener, known.values())
    ill = {name: rf"warning: list {re.escape(name)} {how.words}.*: it is disabled " for name, how in DYING.items()}
    probes: dict[str, set[bytes]] = {name: set() for name in lists}

    def dying(name: str) -> Behaviour:
        def behave(question: Question) -> list[Answer]:
            if question.name.startswith("2.0.0.127.") and not screener.lines(ill[name]):
                probes[name].add(question.packet[:2])  # asked again, it is the same question
            return DYING[name].behaviour(question)

        return behave

    dns.zones |= {name: dying(name) for name in lists}
    for line in ill.values():
        screener.line(line + "until a probe succeeds$", seconds=60)
    assert {name for name in lists if len(probes[name]) > 2} == set(), "within two intervals"
    unknown = [f"127.{number}.1.{host}" for number in lists.values() for host in range(1, 6)]
    # What a list said before counts no more, either.
    assert set(connect_all(screener, [*known.values(), *unknown])) == {FROM_MTA}
    asked = {f"{'.'.join(reversed(source.split('.')))}.{name}" for source in unknown for name in lists}
    assert not asked & dns.asked.keys(), "a list that is out is not asked for clients"
    with connected(folder / "run" / "control") as control:
        shown = control.ok("dnsbl")["lists"]
        assert [one["state"] for one in shown] == ["disabled"] * len(lists) + ["ok"]
        assert all(one["reason"] for one in shown[:-1])
        assert control.ok("status")["lists_unhealthy"] == list(lists)
        explained = control.ok("explain", address="127.10.2.1")
        assert (explained["verdict"], explained["score"]) == ("passed", 0)
        (greet,) = (step["text"] for step in explained["steps"] if step["step"] == "greet")
        assert greet.endswith(", 1 list is queried")
    up = {name: number for (what, name), number in samples(scraped(place)).items() if what == "fastscreen_dnsbl_up"}
    assert up == dict.fromkeys(lists, 0) | {"other.test": 1}
    dns.zones |= sound
    for name in lists:
        screener.line(rf"warning: list {re.escape(name)} is healthy again: it is enabled$", seconds=60)
    # Those, too, whose answers from before were kept: these do not count, so the lists are asked again.
    for source in [*known.values(), *(f"127.{number}.3.1" for number in lists.values())]:
        wait_until(lambda source=source: not passes(screener, source), f"{source} to be refused again")  # type: ignore[misc]


def one_of(number: int) -> Behaviour:
    """A list that is well, of the network 127.NUMBER.0.0/16."""

    def behave(question: Question) -> list[Answer]:
        hit = question.name.startswith("2.0.0.127.") or f".{number}.127." in question.name
        return (listed("127.0.0.2") if hit else not_listed())(question)

    return behave


def test_a_dying_allow_list(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """One that vouches for everybody: it vouches for nobody then, and whom it might have saved may come again."""
    screener = start(settings(folder, zones, sites=["bl.test*2", "other.test*-2"], allowlist_threshold=-1))
    wait_until(lambda: zones.count("other.test") >= 4, "the first probe")
    with screener.connect(next(clients())) as client:
        assert client.read().startswith(b"521 5.7.1 Service unavailable")
    zones.zones["other.test"] = listed("127.0.0.2")
    screener.line(r"warning: list other\.test lists 127\.0\.0\.1")
    with screener.connect(next(clients())) as client:
        assert client.read().startswith(b"421 4.7.1 Service unavailable")


def test_a_leap_is_looked_into_at_once(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """A list that begins to list the world is suspected by its answers, long before its next probe."""
    screener = start(settings(folder, zones, probe_interval="1h"), {"limits": {"pre_queue": 1000}})
    few = [source for source in itertools.islice(CLIENTS, 700) if int(source.rpartition(".")[2]) % 2]
    connect_all(screener, few[:250])
    assert not screener.lines("suddenly lists")
    zones.zones["bl.test"] = listed("127.0.0.2")
    connect_all(screener, few[250:290])
    screener.line(r"warning: list bl\.test suddenly lists many more clients than the \d+% that it did")
    screener.line(r"warning: list bl\.test lists 127\.0\.0\.1, which a working list does not")
    assert set(connect_all(screener, few[290:310])) == {FROM_MTA}


def test_a_leap_that_is_none(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """A wave of listed clients: those are deferred for a moment, the list is probed, and counts again."""
    screener = start(settings(folder, zones, probe_interval="1h"))
    every = list(itertools.islice(CLIENTS, 700))
    connect_all(screener, [source for source in every if int(source.rpartition(".")[2]) % 2][:250])
    wave = [source for source in every if int(source.rpartition(".")[2]) % 2 == 0]
    connect_all(screener, wave[:40])
    screener.line(r"warning: list bl\.test suddenly lists many more clients")
    screener.line(r"list bl\.test has passed its probe: it is enabled again$")
    wait_until(lambda: not passes(screener, wave.pop()), "a listed client to be refused again")


def connect_all(screener: Screener, sources: Iterable[str]) -> list[bytes]:
    """All clients connect and get a verdict; return their replies."""
    told: list[bytes] = []
    for some in batched(sources, 300):
        with contextlib.ExitStack() as held:
            came = [held.enter_context(screener.connect(source)) for source in some]
            told += [client.read() for client in came]
    return told


def test_all_workers_go_by_it(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """The first worker probes; when it is killed, the list stays excluded, and the new worker monitors it."""
    screener = start(settings(folder, zones), {"listen": {"workers": 2}})
    wait_until(lambda: zones.count("bl.test") >= 4, "the first probe")
    zones.zones["bl.test"] = listed("127.0.0.2")
    screener.line(r"warning: list bl\.test lists 127\.0\.0\.1")
    assert set(connect_all(screener, itertools.islice(clients(), 20))) == {FROM_MTA}
    with connected(folder / "run" / "control") as control:
        pid = next(worker["pid"] for worker in control.ok("status")["workers"] if worker["number"] == 1)
        screener.may_lose_workers = True
        os.kill(pid, signal.SIGKILL)
        screener.line(r"worker 1 \(process \d+\) was killed")
        assert set(connect_all(screener, itertools.islice(clients(), 20))) == {FROM_MTA}
        zones.zones["bl.test"] = well
        eventually(control, "dnsbl", lambda answer: answer["lists"][0]["state"] != "disabled")


def test_probing_can_be_switched_off_and_on(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    zones.zones["bl.test"] = listed("127.0.0.2")
    screener = start(settings(folder, zones, probe_interval=0))
    assert not passes(screener, next(clients()))
    assert not zones.asked["1.0.0.127.bl.test"]
    screener.reload({**screener.settings, "dnsbl": {**screener.settings["dnsbl"], "probe_interval": INTERVAL}})
    screener.line(r"warning: list bl\.test lists 127\.0\.0\.1")
    assert passes(screener, next(clients()))
    screener.reload({**screener.settings, "dnsbl": {**screener.settings["dnsbl"], "probe_interval": 0}})
    assert not passes(screener, next(clients()))


# ---- what a worker does on its own: its core in this process, without a prober


def next_second() -> None:
    """What is remembered is remembered in whole seconds."""
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now, "the next second")


@pytest.fixture
def health() -> HealthTable:
    return HealthTable(memoryview(mmap.mmap(-1, state.SIZE)))


def test_who_comes_during_a_suspicion_is_tested_again(
    folder: Path, dns: FakeDns, mta: FakeMta, health: HealthTable
) -> None:
    """What a suspect list does not say must not be good for a minute."""
    dns.zones["bl.test"] = well
    worker = Core(folder, dns, health)
    health.set("bl.test", State.SUSPECT)
    assert worker.told("127.1.0.1") == FROM_MTA.strip(), "a client that the list does not have"
    assert worker.stored
    dns.zones["bl.test"] = listed("127.0.0.2")
    health.set("bl.test", State.OUT)
    health.set("bl.test", State.WELL)
    next_second()
    next_second()
    assert worker.told("127.1.0.1").startswith(b"521 5.7.1 Service unavailable")
    health.set("bl.test", State.OUT)
    assert worker.told("127.1.0.1") == FROM_MTA.strip()
    health.set("bl.test", State.WELL)
    next_second()
    assert worker.told("127.1.0.1") == FROM_MTA.strip(), "while it was out it was not asked: dnsbl.min_ttl"


def test_workers_do_not_suspect_in_turn(folder: Path, dns: FakeDns, mta: FakeMta, health: HealthTable) -> None:
    """A wave of listed clients comes to all workers: one suspicion in a minute is enough."""
    few, many = [[f"127.{net}.{host}.1" for host in range(1, count)] for net, count in ((1, 252), (2, 60))]
    dns.zones["bl.test"] = one_of(2)
    workers = [Core(folder, dns, health) for _ in range(2)]
    for worker in workers:
        worker.asks(dns, few)
        assert health.get("bl.test").state is State.WELL
    workers[0].asks(dns, many)
    assert health.get("bl.test").state is State.SUSPECT
    health.set("bl.test", State.WELL)
    workers[1].asks(dns, many)
    assert health.get("bl.test").state is State.WELL
