"""Dying lists: each kind is recognised, from then on nobody is turned away because of it, and it comes back."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.control import Map
from robust.fakedns import Answer, Behaviour, FakeDns, Question, failing, listed, not_listed, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import Screener, wait_until
from robust.test_control import connected, eventually

INTERVAL = 2
CLIENTS = (f"127.1.{high}.{low}" for high, low in itertools.product(range(256), range(1, 250)))


def well(question: Question) -> list[Answer]:
    """Its test entry, and whoever has an even last octet."""
    client = question.name.split(".")[0]
    hit = question.name.startswith("2.0.0.127.") or (client.isdigit() and int(client) % 2 == 0)
    return (listed("127.0.0.2") if hit and "1.0.0.127." not in question.name[:10] else not_listed())(question)


DYING: dict[str, tuple[Behaviour, str]] = {
    "lists the world": (listed("127.0.0.2"), "lists 127.0.0.1, which no list does that works"),
    "refuses": (listed("127.255.255.254"), "refuses this resolver's questions"),
    "is parked": (listed("192.0.2.80"), r"gives answers outside 127\.0\.0\.0/8"),
    "is silent": (silent, "does not answer"),
    "has no server": (failing(), "has no working name server"),
    "refuses with a code": (failing(5), "has no working name server"),
    "is empty": (not_listed(), r"has lost its test entry 127\.0\.0\.2"),
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


@pytest.mark.parametrize("how", DYING)
def test_a_dying_list(start: Start, folder: Path, zones: FakeDns, mta: FakeMta, how: str) -> None:
    behaviour, words = DYING[how]
    screener = start(settings(folder, zones))
    wait_until(lambda: zones.count("bl.test") >= 4, "the first probe")
    listed_client = next(clients())
    assert not passes(screener, listed_client)
    zones.zones["bl.test"] = behaviour
    screener.line(rf"warning: list bl\.test {words}.*: it is not asked and counts nothing until it is well$")
    began = time.monotonic()
    assert passes(screener, listed_client), "what it said before counts no more"
    with connected(folder / "run" / "control") as control:
        (one, other) = control.ok("dnsbl")["lists"]
        assert (one["state"], other["state"]) == ("out", "ok" if other["asked"] else "unused")
        assert one["why"]
        explained = control.ok("explain", address=next(clients()))
        assert (explained["verdict"], explained["score"]) == ("passed", 0)
    before = zones.count("bl.test")
    for source in itertools.islice(clients(), 20):
        assert passes(screener, source)
    probes = 4 * 3 * (2 + int((time.monotonic() - began) / INTERVAL * 2))
    assert zones.count("bl.test") - before <= probes, "a list that is out is not asked for clients"
    zones.zones["bl.test"] = well
    screener.line(r"warning: list bl\.test is well again: it counts$")
    wait_until(lambda: not passes(screener, next(clients())), "a listed client to be refused again")


def test_a_leap_is_looked_into_at_once(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """A list that begins to list the world is suspected by its answers, long before its next probe."""
    screener = start(settings(folder, zones, probe_interval="1h"), {"limits": {"pre_queue": 1000}})
    few = [source for source in itertools.islice(CLIENTS, 700) if int(source.rpartition(".")[2]) % 2]
    crowd(screener, few[:250])
    assert not screener.lines("suddenly lists")
    zones.zones["bl.test"] = listed("127.0.0.2")
    crowd(screener, few[250:290])
    screener.line(r"warning: list bl\.test suddenly lists many more clients than the \d+% that it did")
    screener.line(r"warning: list bl\.test lists 127\.0\.0\.1, which no list does that works")
    for source in few[290:310]:
        assert passes(screener, source)


def test_a_leap_that_is_none(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """A wave of listed clients: the list counts nothing for a moment, is probed, and counts again."""
    screener = start(settings(folder, zones, probe_interval="1h"))
    every = list(itertools.islice(CLIENTS, 700))
    crowd(screener, [source for source in every if int(source.rpartition(".")[2]) % 2][:250])
    wave = [source for source in every if int(source.rpartition(".")[2]) % 2 == 0]
    crowd(screener, wave[:40])
    screener.line(r"warning: list bl\.test suddenly lists many more clients")
    screener.line(r"list bl\.test has been probed and is well: it counts again$")
    wait_until(lambda: not passes(screener, wave.pop()), "a listed client to be refused again")


def crowd(screener: Screener, sources: list[str]) -> None:
    """All of them come and are judged."""
    for at in range(0, len(sources), 50):
        with contextlib.ExitStack() as held:
            came = [held.enter_context(screener.connect(source)) for source in sources[at : at + 50]]
            for client in came:
                client.read()


def test_all_workers_go_by_it(start: Start, folder: Path, zones: FakeDns, mta: FakeMta) -> None:
    """The first worker probes; when it is killed, the list stays out, and is looked after by its successor."""
    screener = start(settings(folder, zones), {"listen": {"workers": 2}})
    wait_until(lambda: zones.count("bl.test") >= 4, "the first probe")
    zones.zones["bl.test"] = listed("127.0.0.2")
    screener.line(r"warning: list bl\.test lists 127\.0\.0\.1")
    for source in itertools.islice(clients(), 20):
        assert passes(screener, source)
    with connected(folder / "run" / "control") as control:
        pid = next(worker["pid"] for worker in control.ok("status")["workers"] if worker["number"] == 1)
        screener.may_lose_workers = True
        os.kill(pid, signal.SIGKILL)
        screener.line(r"worker 1 \(process \d+\) was killed")
        for source in itertools.islice(clients(), 20):
            assert passes(screener, source)
        zones.zones["bl.test"] = well
        eventually(control, "dnsbl", lambda answer: answer["lists"][0]["state"] != "out")


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
