"""Names of clients in the view: confirmed by a forward lookup, escaped, and looked up only for a reader."""

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import pytest

from fastscreen.control.ptr import Reverse
from fastscreen.dns.resolver import Nameserver
from robust.conftest import Start
from robust.control import Control, Map
from robust.fakedns import AAAA, Answer, Behaviour, FakeDns, failing, listed, not_listed, pointing, record, reply
from robust.test_control import connected, eventually

GOOD, LIAR = "127.1.0.1", "127.1.0.2"
SIX = "2001:db8::25"
POINTERS: dict[str, Behaviour] = {
    "1.0.1.127.in-addr.arpa": pointing(b"MX", b"good", b"test"),
    "2.0.1.127.in-addr.arpa": pointing(b"mx", b"liar", b"test"),
    "good.test": listed("127.9.9.9", GOOD),
    "liar.test": listed("192.0.2.1"),
}


def name_of(dns: FakeDns, address: str) -> str:
    async def ask() -> str:
        host, _, port = dns.endpoint.rpartition(":")
        reverse = Reverse([Nameserver(host, int(port))])
        try:
            return await reverse.name(address)
        finally:
            await reverse.close()

    return asyncio.run(ask())


def test_a_name_must_have_the_address(dns: FakeDns) -> None:
    dns.zones = dict(POINTERS)
    assert name_of(dns, GOOD) == "mx.good.test"
    assert name_of(dns, LIAR) == ""
    assert dns.asked["mx.liar.test"] == 1
    assert name_of(dns, "127.1.0.3") == ""


def test_a_name_of_an_ipv6_address(dns: FakeDns) -> None:
    address = ipaddress.ip_address(SIX)
    dns.zones = {
        address.reverse_pointer: pointing(b"six", b"test"),
        "six.test": lambda question: [Answer(record(question, question.kind, address.packed))],
    }
    assert name_of(dns, SIX) == "six.test"
    dns.zones["six.test"] = lambda question: [Answer(record(question, AAAA, (address + 1).packed))]
    assert name_of(dns, SIX) == ""


@pytest.mark.parametrize(
    "labels",
    [
        (b"\x1b]0;x\x07", b"test"),
        (b"a b", b"test"),
        (b"a.b", b"test"),
        (b"[@click=app.quit]x[/]",),
        (b"m\xc3\xa4x", b"test"),
        (b"\xff\xfe", b"test"),
        (b"a\0b", b"test"),
        (b"192", b"0", b"2", b"1"),
        (b"-x", b"test"),
        (),
    ],
)
def test_a_hostile_name_is_none_and_not_even_asked_for(dns: FakeDns, labels: tuple[bytes, ...]) -> None:
    """Its owner could confirm it."""
    dns.zones = {"in-addr.arpa": pointing(*labels), "test": listed(GOOD)}
    assert name_of(dns, GOOD) == ""
    assert list(dns.asked) == ["1.0.1.127.in-addr.arpa"]


@pytest.mark.parametrize(
    "behaviour",
    [
        failing(),
        not_listed(),
        listed("127.0.0.2"),
        lambda question: [Answer(reply(question)[:20])],
        lambda question: [Answer(record(question, 12, b"\xc0\x0c"))],
        lambda question: [Answer(record(question, 12, b"\x3fx"))],
        lambda question: [Answer(record(question, 12, b""))],
    ],
    ids=["SERVFAIL", "NXDOMAIN", "A", "cut", "itself", "beyond the end", "empty"],
)
def test_an_answer_that_is_none(dns: FakeDns, behaviour: Behaviour) -> None:
    dns.zones = {"in-addr.arpa": behaviour}
    assert name_of(dns, GOOD) == ""
    assert dns.asked["1.0.1.127.in-addr.arpa"] >= 1


# ---- in a daemon


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path, dns: FakeDns) -> dict[str, Any]:
    dns.zones = dict(POINTERS)
    return {"control": {"path": str(path)}, "dnsbl": {"resolvers": [dns.endpoint]}, "greet": {"wait": "60s"}}


def named(control: Control) -> dict[str, str]:
    return {session["address"]: session["name"] for session in control.ok("sessions")["sessions"]}


def has_name(answer: Map) -> bool:
    return any(session["name"] for session in answer["sessions"])


def pointers_asked(dns: FakeDns) -> int:
    return dns.count("in-addr.arpa")


def test_a_name_comes_to_those_who_look(start: Start, path: Path, settings: Map, dns: FakeDns) -> None:
    """Nothing is looked up before."""
    screener = start(settings)
    with connected(path) as control, screener.connect(GOOD), screener.connect(LIAR):
        eventually(control, "status", lambda answer: answer["counts"]["greet"] == 2)
        control.ok("clients")
        assert pointers_asked(dns) == 0
        answer = eventually(control, "sessions", has_name)
        assert {session["address"]: session["name"] for session in answer["sessions"]}[GOOD] == "mx.good.test"
        assert control.ok("explain", address=LIAR)["name"] == ""
        assert dns.asked["mx.liar.test"] == 1
        assert named(control) == {GOOD: "mx.good.test", LIAR: ""}
        story = control.ok("story", address=GOOD)
        assert (story["name"], story["sessions"][0]["name"]) == ("mx.good.test", "mx.good.test")
        assert control.ok("explain", address=GOOD)["name"] == "mx.good.test"
        assert pointers_asked(dns) == 2


def test_it_can_be_switched_off_and_on(start: Start, path: Path, settings: Map, dns: FakeDns) -> None:
    off = {**settings, "control": {"path": str(path), "names": False}}
    screener = start(off)
    with connected(path) as control, screener.connect(GOOD):
        eventually(control, "status", lambda answer: answer["counts"]["greet"] == 1)
        assert named(control) == {GOOD: ""}
        assert control.ok("story", address=GOOD)["name"] == ""
        assert control.ok("explain", address=GOOD)["name"] == ""
        assert pointers_asked(dns) == 0
        screener.reload(settings)
        eventually(control, "sessions", has_name)
