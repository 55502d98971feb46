"""A list that suddenly lists many more clients: until it is probed, listed clients are deferred."""

import itertools
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastscreen.cache.stamps import pack_stamps
from fastscreen.core import read_record
from fastscreen.dns.health import state
from fastscreen.dns.health.state import HealthTable, State
from robust.conftest import Start
from robust.fakedns import Answer, FakeDns, Question, listed, not_listed, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.inprocess import Core
from robust.test_control import connected, eventually
from robust.test_list_health import settings

LISTED = "127.2.7.1"
UNSURE = b"421 4.7.1 Service unavailable; client [127.2.7.1] blocked using bl.test"
PASSED = FROM_MTA.strip()

Make = Callable[..., Core]


def of_127_2(question: Question) -> list[Answer]:
    """A list of 127.2.0.0/16."""
    hit = question.name.startswith("2.0.0.127.") or ".2.127." in question.name
    return (listed("127.0.0.2") if hit else not_listed())(question)


@pytest.fixture
def health() -> HealthTable:
    return HealthTable(memoryview(mmap.mmap(-1, state.SIZE)))


@pytest.fixture
def worker(folder: Path, dns: FakeDns, mta: FakeMta, health: HealthTable) -> Iterator[Make]:
    made: list[Core] = []

    def make(**more: Any) -> Core:
        made.append(Core(folder, dns, health, **more))
        return made[-1]

    dns.zones["bl.test"] = of_127_2
    yield make
    for each in made:
        each.close()


def key(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def test_whom_a_suspect_list_lists(worker: Make, health: HealthTable) -> None:
    """It is deferred, whether the answer came before the suspicion or after, and nothing is stored of it."""
    made = worker()
    assert made.told(LISTED).startswith(b"521 5.7.1 Service unavailable")
    health.set("bl.test", State.SUSPECT)
    assert made.told(LISTED) == UNSURE
    assert made.told("127.2.8.1") == UNSURE.replace(b"127.2.7.1", b"127.2.8.1")
    assert not made.stored
    health.set("bl.test", State.WELL)
    assert made.told(LISTED).startswith(b"521 5.7.1 Service unavailable")


def test_nothing_is_stored_of_other_tests_either(worker: Make, health: HealthTable) -> None:
    """Other passed tests are not stored, as for any client that failed."""
    made = worker(settings='[deep]\nbare_newline = "enforce"\n')
    health.set("bl.test", State.SUSPECT)
    assert made.told(LISTED) == UNSURE
    assert not made.stored


def test_whom_it_does_not_list_passes(worker: Make, health: HealthTable) -> None:
    """A suspicion is that the list lists too many. For this time only: it is tested again when it comes again."""
    made = worker()
    health.set("bl.test", State.SUSPECT)
    assert made.told("127.1.1.1") == PASSED
    until = read_record(made.stored[key("127.1.1.1")])
    assert until is not None
    assert made.told("127.1.1.1") == PASSED
    assert len(made.stored) == 1


def test_a_known_client_notices_nothing(worker: Make, health: HealthTable) -> None:
    made = worker()
    health.set("bl.test", State.SUSPECT)
    made.stored[key(LISTED)] = pack_stamps((2**31,) * 5)
    assert made.told(LISTED) == PASSED


@pytest.mark.parametrize("threshold", [2, 3])
def test_it_matters_only_if_it_could_decide(worker: Make, health: HealthTable, threshold: int) -> None:
    made = worker(sites=("bl.test*2",), dnsbl=f"threshold = {threshold}, ")
    health.set("bl.test", State.SUSPECT)
    assert made.told(LISTED) == (UNSURE if threshold == 2 else PASSED)


def test_another_list_has_it_for_certain(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """Then a suspect list changes nothing."""
    dns.zones["sure.test"] = listed("127.0.0.2")
    made = worker(sites=("bl.test", "sure.test"))
    health.set("bl.test", State.SUSPECT)
    assert made.told(LISTED) == UNSURE.replace(b"421 4.7.1", b"521 5.7.1").replace(b"bl.test", b"sure.test")


def test_a_suspect_allow_list(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """It vouches for nobody for now, and condemns nobody: whom it might have saved is deferred."""
    dns.zones["allow.test"] = listed("127.0.5.1")
    made = worker(sites=("bl.test*2", "allow.test*-3"), dnsbl="threshold = 2, allowlist_threshold = -1, ")
    assert made.told(LISTED) == PASSED
    made.stored.clear()
    health.set("allow.test", State.SUSPECT)
    assert made.told(LISTED) == UNSURE
    assert made.told("127.1.1.1") == PASSED


def test_an_allow_list_does_not_outvote_what_is_unsure(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """Its word ends all tests only if that would be so with the suspect list's, too."""
    dns.zones["allow.test"] = listed("127.0.5.1")
    made = worker(sites=("bl.test*3", "allow.test*-3"), dnsbl="threshold = 1, allowlist_threshold = -1, ")
    health.set("bl.test", State.SUSPECT)
    made.told(LISTED)
    stamps = read_record(made.stored[key(LISTED)])
    assert stamps is not None
    assert stamps[2] <= 1, "the deep tests do not count as passed"


def test_a_suspect_list_that_is_silent(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """A genuine time-out is what it always was."""
    dns.zones["bl.test"] = silent
    made = worker(dnsbl='timeout = "1s", ')
    health.set("bl.test", State.SUSPECT)
    assert made.told(LISTED) == PASSED


def test_one_network_makes_no_suspicion(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """`suspect`: a host in a listed network opens as many sessions as it likes; it takes many listed networks."""
    made = worker()
    made.asks(dns, [f"127.1.{network}.1" for network in range(250)])
    made.asks(dns, [f"127.2.7.{host}" for host in range(1, 200)])
    assert health.get("bl.test").state is State.WELL
    assert made.told(LISTED).startswith(b"521 5.7.1")
    made.asks(dns, [f"127.2.{network}.1" for network in range(50, 110)])
    assert health.get("bl.test").state is State.SUSPECT
    assert any("clients that it lists are deferred until it has been probed" in line for line in made.warnings)


def test_networks_of_clean_clients_count_once_too(worker: Make, dns: FakeDns, health: HealthTable) -> None:
    """Else one clean network, coming between, would hide that the list lists the world."""
    made = worker()
    made.asks(dns, [f"127.1.{network}.1" for network in range(250)])
    groups = [(f"127.2.{each}.1", *(f"127.3.3.{6 * each + host}" for host in range(1, 7))) for each in range(40)]
    made.asks(dns, list(itertools.chain.from_iterable(groups)))
    assert health.get("bl.test").state is State.SUSPECT


def test_explain_says_so(start: Start, folder: Path, dns: FakeDns) -> None:
    """`status`, `dnsbl` and `explain`, while the probe is on its way."""
    dns.zones["bl.test"] = of_127_2
    screener = start(settings(folder, dns, sites=["bl.test"], probe_interval="1h"), {"limits": {"pre_queue": 1000}})
    with connected(folder / "run" / "control") as control:
        eventually(control, "dnsbl", lambda answer: answer["lists"][0]["state"] == "unused")
        for some in ([f"127.1.{network}.1" for network in range(250)], [f"127.2.{each}.1" for each in range(60)]):
            if some[0].startswith("127.2."):
                dns.zones["bl.test"] = lambda question: silent(question) if probe(question) else of_127_2(question)
            clients = [screener.connect(source) for source in some]
            for client in clients:
                client.read()
                client.socket.close()
        screener.line("warning: list bl.test suddenly lists many more clients")
        explained = control.ok("explain", address=LISTED)
        assert (explained["verdict"], explained["reply"]) == ("deferred", UNSURE.decode())
        assert [(one["counted"], one["suspect"]) for one in explained["lists"]] == [(False, True)]
        assert "score 0 is below dnsbl.threshold 1; 1 with lists that are suspect" in str(explained["steps"])
        assert control.ok("explain", address="127.1.1.200")["verdict"] == "passed"
        assert control.ok("dnsbl")["lists"][0]["state"] == "suspect"
        assert control.ok("status")["lists_unhealthy"] == ["bl.test"]
        with screener.connect(LISTED) as client:
            assert client.read() == UNSURE + b"\r\n"
        screener.line(r"DNSBL UNSURE rank 1 for \[127\.2\.7\.1\]:\d+$")


def probe(question: Question) -> bool:
    return (
        ".127.bl.test" in question.name
        and question.name.split(".")[3] == "127"
        and question.name[:6] in ("2.0.0.", "1.0.0.")
    )
