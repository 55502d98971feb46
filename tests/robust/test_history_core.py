"""What the core records of a session: one record for each way in which it can end."""

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fastscreen.core import (
    HISTORY_OUTCOMES,
    TESTS,
    EventReader,
    proxy_header_for,
    read_record,
    worker_of,
    write_record,
)
from fastscreen.dns.health import state
from fastscreen.dns.health.state import HealthTable, State
from fastscreen.history.settings import decode
from robust.fakedns import Behaviour, FakeDns, failing, listed, not_listed, silent
from robust.fakemta import FakeMta, fill
from robust.historycore import Client, Core, Settings
from robust.proxymta import Connection, ProxyMta
from robust.tlsclient import certificates

CLIENT = "127.1.0.1"
DEEP = {"deep": {"pipelining": "enforce", "non_smtp_command": "drop", "bare_newline": "drop"}}
THREE = ("pipelining", "non_smtp_command", "bare_newline")
NO_TEASER = {"greet": {"banner": ""}}
PASSED = {"passed", "new"}
LATER = b"450 4.3.2 Service currently unavailable\r\n"

Make = Callable[..., Core]
Row = dict[str, Any]


@pytest.fixture
def mta(folder: Path) -> Iterator[FakeMta]:
    made = FakeMta(folder / "mta")
    made.start()
    yield made
    made.close()


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    with ExitStack() as opened:
        yield lambda settings=None, **more: Core(folder, opened, settings, **more)


def row(outcome: str, *, stage: str = "greet", client: str = CLIENT, **more: Any) -> Row:
    return {"client": client, "outcome": outcome, "stage": stage, **more}


# ---- a client alone, one way to end after the other


def says(*lines: bytes) -> Callable[[Client], object]:
    """Wait for the greeting, then say this, line by line; and leave after the last reply."""

    def talk(client: Client) -> None:
        client.until(lambda got: b"220 mx.test" in got)
        client.ask(*lines)
        client.hang_up()

    return talk


def says_at_last(data: bytes) -> Callable[[Client], object]:
    """After a recipient."""

    def talk(client: Client) -> None:
        client.until(lambda got: b"220 mx.test" in got)
        client.ask(*MAIL)
        client.socket.sendall(data)
        client.rest()

    return talk


def leaves_after(seconds: float, data: bytes = b"") -> Callable[[Client], object]:
    def talk(client: Client) -> None:
        client.socket.sendall(data)
        seen(client, seconds)
        client.hang_up()

    return talk


def another(source: str) -> Callable[[Client], object]:
    """A second client, which is refused; then the first one leaves."""

    def talk(client: Client) -> None:
        client.core.connect(source).rest()
        client.hang_up()

    return talk


def seen(client: Client, seconds: float = 0.1) -> None:
    """A few batches in which the core sees what the client has done."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.core.run()


def leaves(client: Client) -> None:
    client.core.run_until(lambda: client.core.screener.sessions == 1, "the client to be accepted")
    client.hang_up()


def stays(client: Client) -> None:
    client.rest()


def begins(first: bytes) -> Callable[[Client], None]:
    """Talk at once."""

    def talk(client: Client) -> None:
        client.socket.sendall(first)
        client.rest()

    return talk


def sends(data: bytes) -> Callable[[Client], None]:
    """Wait for the greeting, then send this, and read to the end."""

    def talk(client: Client) -> None:
        client.until(lambda got: b"220 mx.test" in got)
        client.socket.sendall(data)
        client.rest()

    return talk


MAIL = (b"EHLO a.test", b"MAIL FROM:<a@a.test>", b"RCPT TO:<b@b.test>")
AFTER_GREET: Row = {"needed": ("pregreet",), "made": ("pregreet",)}
ALL_DEEP: Row = {"needed": ("pregreet", *THREE), "made": ("pregreet", *THREE)}
ONLY_DEEP: Row = {"needed": THREE, "made": THREE}

ALONE: dict[str, tuple[Settings, Callable[[Client], object], Row]] = {
    "hang-up in the greet wait": (
        {"greet": {"wait": "30s"}},
        leaves,
        row("left", **AFTER_GREET, marks={"hung_up"}),
    ),
    "pass": ({}, stays, row("handed_off", stage="handoff", **AFTER_GREET, marks=PASSED)),
    "allowlisted": (
        {"access": {"mynetworks": ["127.1.0.0/16"]}},
        stays,
        row("handed_off", stage="handoff", marks={"allowlisted"}),
    ),
    "no test at all": (NO_TEASER, stays, row("handed_off", stage="handoff")),
    "denylisted, drop": (
        {"access": {"list": ["reject"], "denylist_action": "drop"}},
        stays,
        row("rejected", reply=521, verdict=521, marks={"denylisted", "turned_away"}),
    ),
    "denylisted, enforce": (
        {"access": {"list": ["reject"], "denylist_action": "enforce"}, **NO_TEASER},
        says(*MAIL),
        row(
            "rejected",
            stage="dialogue",
            made=THREE,
            reply=550,
            verdict=550,
            commands=3,
            recipients=1,
            name=b"a.test",
            marks={"denylisted", "turned_away", "hung_up", "esmtp"},
        ),
    ),
    "denylisted, ignore": (
        {"access": {"list": ["reject"], "denylist_action": "ignore"}},
        stays,
        row("handed_off", stage="handoff", **AFTER_GREET, marks={"denylisted", *PASSED}),
    ),
    "pregreet, drop": (
        {"greet": {"action": "drop"}},
        begins(b"EHLO a\r\n"),
        row(
            "rejected",
            **AFTER_GREET,
            found=("pregreet",),
            failed=("pregreet",),
            reply=521,
            verdict=521,
            marks={"turned_away"},
        ),
    ),
    "pregreet, drop, soft_bounce": (
        {"greet": {"action": "drop"}, "engine": {"soft_bounce": True}},
        begins(b"EHLO a\r\n"),
        row(
            "deferred",
            **AFTER_GREET,
            found=("pregreet",),
            failed=("pregreet",),
            reply=421,
            verdict=421,
            marks={"turned_away"},
        ),
    ),
    "pregreet, enforce": (
        {},
        begins(b"HELO  b.test x\r\nMAIL FROM:<>\r\nRCPT TO:<c@c.test>\r\nQUIT\r\n"),
        row(
            "rejected",
            stage="dialogue",
            needed=("pregreet",),
            made=("pregreet", *THREE),
            found=("pregreet", "pipelining"),
            failed=("pregreet", "pipelining"),
            reply=221,
            verdict=550,
            commands=4,
            recipients=1,
            name=b"b.test",
            marks={"turned_away"},
        ),
    ),
    "pregreet, ignore": (
        {"greet": {"action": "ignore"}},
        begins(b"QUIT\r\n"),
        row("handed_off", stage="handoff", **AFTER_GREET, found=("pregreet",)),
    ),
    "pregreet, ignore, leaves before the end": (
        {"greet": {"action": "ignore", "wait": "30s"}, "dnsbl": {"sites": ["silent.test"]}},
        leaves_after(0.1, b"QUIT\r\n"),
        row(
            "left",
            needed=("pregreet", "dnsbl"),
            made=("pregreet", "dnsbl"),
            found=("pregreet",),
            unasked=(0,),
            marks={"hung_up"},
        ),
    ),
    "deferred by the deep tests": (
        DEEP,
        says(*MAIL, b"QUIT"),
        row(
            "deferred",
            stage="dialogue",
            **ALL_DEEP,
            reply=221,
            verdict=450,
            commands=4,
            recipients=1,
            name=b"a.test",
            marks={*PASSED, "esmtp"},
        ),
    ),
    "two names, two recipients, HELO": (
        DEEP | NO_TEASER,
        says(b"HELO one.test", b"HELO " + b"x" * 80, b"MAIL FROM:<>", b"RCPT TO:<b@b.test>", b"RCPT TO:<c@c.test>"),
        row(
            "deferred",
            stage="dialogue",
            **ONLY_DEEP,
            reply=450,
            verdict=450,
            commands=5,
            recipients=2,
            name=b"x" * 63,
            marks={*PASSED, "hung_up"},
        ),
    ),
    "no recipient": (
        DEEP | NO_TEASER,
        says(b"EHLO a.test", b"NOOP", b"QUIT"),
        row("left", stage="dialogue", **ONLY_DEEP, reply=221, commands=3, name=b"a.test", marks={"esmtp"}),
    ),
    "RCPT without MAIL": (
        DEEP | NO_TEASER,
        says(b"EHLO a.test", b"RCPT TO:<b@b.test>", b"QUIT"),
        row(
            "left",
            stage="dialogue",
            **ONLY_DEEP,
            reply=221,
            commands=3,
            recipients=1,
            name=b"a.test",
            marks={*PASSED, "esmtp"},
        ),
    ),
    "DATA after 450": (
        DEEP | NO_TEASER,
        says(*MAIL, b"DATA"),
        row(
            "deferred",
            stage="dialogue",
            **ONLY_DEEP,
            reply=554,
            verdict=450,
            commands=4,
            recipients=1,
            name=b"a.test",
            marks={*PASSED, "esmtp", "turned_away"},
        ),
    ),
    "DATA at once": (
        DEEP | NO_TEASER,
        says(b"DATA"),
        row("left", stage="dialogue", **ONLY_DEEP, reply=503, verdict=503, commands=1, marks={"turned_away"}),
    ),
    "non-SMTP command, drop": (
        DEEP | NO_TEASER,
        says(b"HELO a", b"GET / HTTP/1.1"),
        row(
            "rejected",
            stage="dialogue",
            **ONLY_DEEP,
            found=("non_smtp_command",),
            failed=("non_smtp_command",),
            reply=521,
            verdict=521,
            commands=2,
            name=b"a",
            marks={"turned_away"},
        ),
    ),
    "bare newline after 450": (
        DEEP | NO_TEASER,
        says_at_last(b"NOOP\n"),
        row(
            "rejected",
            stage="dialogue",
            **ONLY_DEEP,
            found=("bare_newline",),
            failed=("bare_newline",),
            reply=521,
            verdict=521,
            commands=4,
            recipients=1,
            name=b"a.test",
            marks={"esmtp", "turned_away"},
        ),
    ),
    "pipelining, ignored": (
        {"deep": {"pipelining": "ignore"}} | NO_TEASER,
        sends(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@c.test>\r\nQUIT\r\n"),
        row(
            "deferred",
            stage="dialogue",
            needed=("pipelining",),
            made=("pipelining",),
            found=("pipelining",),
            reply=221,
            verdict=450,
            commands=4,
            recipients=1,
            name=b"a",
            marks=PASSED,
        ),
    ),
    "soft_bounce at RCPT": (
        {"deep": {"pipelining": "enforce"}, "engine": {"soft_bounce": True}} | NO_TEASER,
        sends(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@c.test>\r\nQUIT\r\n"),
        row(
            "deferred",
            stage="dialogue",
            needed=("pipelining",),
            made=("pipelining",),
            found=("pipelining",),
            failed=("pipelining",),
            reply=221,
            verdict=450,
            commands=4,
            recipients=1,
            name=b"a",
            marks={"turned_away"},
        ),
    ),
    "too long a command": (
        DEEP | NO_TEASER | {"engine": {"line_length_limit": 512}},
        says(b"NOOP " + b"x" * 600),
        row(
            "left",
            stage="dialogue",
            **ONLY_DEEP,
            reply=421,
            verdict=421,
            commands=1,
            marks={"length_limit", "turned_away"},
        ),
    ),
    "too many commands": (
        DEEP | NO_TEASER | {"engine": {"command_count_limit": 2}},
        says(b"NOOP", b"NOOP", b"NOOP"),
        row(
            "left",
            stage="dialogue",
            **ONLY_DEEP,
            reply=421,
            verdict=421,
            commands=3,
            marks={"count_limit", "turned_away"},
        ),
    ),
    "too slow": (
        DEEP | NO_TEASER | {"engine": {"command_time_limit": "1s", "stress_command_time_limit": "1s"}},
        stays,
        row("left", stage="dialogue", **ONLY_DEEP, reply=421, verdict=421, marks={"time_limit", "turned_away"}),
    ),
    "veto": (
        {"access": {"allowlist_interfaces": ["!127.9.0.0/16", "0.0.0.0/0"]}} | NO_TEASER,
        says(*MAIL, b"QUIT"),
        row(
            "deferred",
            stage="dialogue",
            made=THREE,
            reply=221,
            verdict=450,
            commands=4,
            recipients=1,
            name=b"a.test",
            marks={"vetoed", "esmtp"},
        ),
    ),
    "shadow, pregreet": (
        {"mode": "shadow", "greet": {"action": "drop"}},
        begins(b"QUIT\r\n"),
        row("handed_off", stage="handoff", **AFTER_GREET, found=("pregreet",), spared=521, marks={"spared"}),
    ),
    "shadow, denylisted and pregreet": (
        {"mode": "shadow", "access": {"list": ["reject"], "denylist_action": "drop"}},
        begins(b"QUIT\r\n"),
        row(
            "handed_off",
            stage="handoff",
            **AFTER_GREET,
            found=("pregreet",),
            spared=521,
            marks={"denylisted", "spared"},
        ),
    ),
    "shadow, veto, then pregreet": (
        {"mode": "shadow", "access": {"allowlist_interfaces": ["!127.9.0.0/16", "0.0.0.0/0"]}},
        begins(b"QUIT\r\n"),
        row(
            "handed_off",
            stage="handoff",
            **AFTER_GREET,
            found=("pregreet",),
            spared=550,
            marks={"vetoed", "spared"},
        ),
    ),
    "rate": (
        {"limits": {"client_network_rate": 1}, "greet": {"wait": "30s"}},
        another("127.1.0.9"),
        row(
            "busy",
            client="127.1.0.9",
            needed=("pregreet",),
            reply=421,
            verdict=421,
            marks={"rate_limit", "turned_away"},
        ),
    ),
    "too many connections": (
        {"limits": {"client_connection_count": 1}, "greet": {"wait": "30s"}},
        another(CLIENT),
        row("busy", reply=421, verdict=421, marks={"client_limit", "turned_away"}),
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_ends(make: Make, mta: FakeMta, dns: FakeDns, name: str) -> None:
    settings, talk, expected = ALONE[name]
    dns.zones["silent.test"] = silent
    core = make(settings, dns=dns)
    talk(core.connect())
    core.end()
    found = core.rows(core.screener.accepted)
    assert found[0] == expected
    assert core.reader.sessions == core.screener.accepted


# ---- the limits, and the MTA


@pytest.mark.parametrize("shadow", [False, True])
def test_connection_limit(make: Make, mta: FakeMta, shadow: bool) -> None:
    core = make({"mode": "shadow" if shadow else "screen", "limits": {"client_connection_count": 1}})
    first = core.connect()
    seen(first)
    core.connect().rest()
    first.rest()
    passed = row("handed_off", stage="handoff", **AFTER_GREET, marks=PASSED)
    if shadow:  # PASS NEW is logged once per client
        over = passed | {"spared": 421, "marks": {"passed", "client_limit", "spared"}}
        assert core.rows(2) in ([passed, over], [over | {"marks": over["marks"] | {"new"}}, passed])
    else:
        assert core.rows(2) == [row("busy", reply=421, verdict=421, marks={"client_limit", "turned_away"}), passed]


@pytest.mark.parametrize("shadow", [False, True])
def test_screening_limit_and_stress(make: Make, mta: FakeMta, shadow: bool) -> None:
    core = make({"mode": "shadow" if shadow else "screen", "limits": {"pre_queue": 10}, "greet": {"wait": "30s"}})
    held = [core.connect(f"127.1.1.{number}") for number in range(10)]
    seen(held[0])
    core.connect().rest()
    for client in held:
        client.hang_up()
    first, *others = core.rows(11)
    busy: Row = {"needed": ("pregreet",), "marks": {"stress", "screening_ports", "spared" if shadow else "turned_away"}}
    if shadow:
        assert first == row("handed_off", stage="handoff", spared=421, **busy)
    else:
        assert first == row("busy", reply=421, verdict=421, **busy)
    assert sum("stress" in other["marks"] for other in others) == 2, "from nine tenths of the limit on"


def test_server_limit(make: Make, mta: FakeMta) -> None:
    mta.keep = True
    core = make({"access": {"mynetworks": ["127.1.0.0/16"]}, "limits": {"post_queue": 10}})
    held = [core.connect(f"127.1.1.{number}") for number in range(10)]
    core.run_until(lambda: core.screener.handoffs == 10, "the hand-offs")
    seen(held[0], 0.5)  # a burst waits in the kernel before
    core.connect().rest()
    mta.stop()
    rows = core.rows(11)
    assert rows[0] == row("busy", reply=421, verdict=421, marks={"server_ports", "turned_away"})
    assert {each["outcome"] for each in rows[1:]} == {"handed_off"}


def test_the_mta_does_not_confirm(make: Make, mta: FakeMta) -> None:
    """It has the client all the same, when the worker ends."""
    mta.keep = True
    core = make({"access": {"mynetworks": ["127.1.0.0/16"]}})
    client = core.connect()
    client.reply()
    core.screener.end_history()
    mta.stop()
    assert core.row() == row("handed_off", stage="handoff", marks={"allowlisted"}), "and nothing after its end"


@pytest.mark.parametrize("banner", ["", "mx.test"])
@pytest.mark.parametrize("quits", [False, True])
def test_no_mta(make: Make, banner: str, quits: bool) -> None:
    core = make({"greet": {"banner": banner}})
    client = core.connect()
    marks = {*PASSED, "turned_away"}
    if not banner:
        client.rest()
        expected = row("failed", stage="queued", reply=421, verdict=421, marks={"turned_away"})
    elif quits:
        says(b"QUIT")(client)
        expected = row("failed", stage="dialogue", **AFTER_GREET, reply=221, commands=1, marks=PASSED)
    else:
        says(b"HELO a")(client)
        expected = row("failed", stage="dialogue", **AFTER_GREET, reply=421, verdict=421, commands=1, marks=marks)
    assert core.row() == expected


def test_leaves_while_the_mta_is_full(make: Make, folder: Path) -> None:
    mta = FakeMta(folder / "mta")
    fill(mta)
    core = make({"access": {"mynetworks": ["127.1.0.0/16"]}})
    client = core.connect()
    core.run_until(lambda: core.screener.stats()["stages"]["queued"] == 1, "the client to be queued")
    seen(client)
    client.hang_up()
    assert core.row() == row("left", stage="queued", marks={"allowlisted", "hung_up"})
    mta.close()


def test_known_then_failed_and_bypassed(make: Make, mta: FakeMta) -> None:
    events = memoryview(mmap.mmap(-1, 4096 + 128 * 64))
    core = make(events=events)
    for _ in range(2):
        core.connect().rest()
    mta.stop()
    core.connect().rest()
    mta.start()
    EventReader(events).bypass_until = time.time() + 60
    core.connect("127.1.0.2").rest()
    assert core.rows(4) == [
        row("handed_off", stage="handoff", **AFTER_GREET, marks=PASSED),
        row("handed_off", stage="handoff", marks={"passed", "cached"}),
        row("failed", stage="queued", reply=421, verdict=421, marks={"passed", "cached", "turned_away"}),
        row("handed_off", stage="handoff", client="127.1.0.2", marks={"bypassed"}),
    ]
    assert EventReader(events).counts()["rejected"] == 1


def test_tested_again(make: Make, mta: FakeMta) -> None:
    """A pass that has expired: PASS OLD by a test."""
    core = make(DEEP | NO_TEASER)
    says(*MAIL, b"QUIT")(core.connect())
    core.end()
    key, record = core.stored.popitem()
    stamps = read_record(record)
    assert stamps is not None
    core.stored[key] = write_record(
        [int(time.time()) - 5 if stamp > 1 and at == 4 else stamp for at, stamp in enumerate(stamps)]
    )
    says(*MAIL, b"QUIT")(core.connect())
    expected = row(
        "deferred",
        stage="dialogue",
        **ONLY_DEEP,
        reply=221,
        verdict=450,
        commands=4,
        recipients=1,
        name=b"a.test",
        marks={*PASSED, "esmtp"},
    )
    only = ("bare_newline",)
    assert core.rows(2) == [expected, expected | {"needed": only, "made": only, "marks": {"passed", "esmtp"}}]


@pytest.mark.parametrize("hurry", [False, True])
def test_drain(make: Make, mta: FakeMta, hurry: bool) -> None:
    core = make({"greet": {"wait": "30s"}})
    seen(core.connect())
    core.screener.drain(hurry=hurry)
    if hurry:
        assert core.row() == row("left", **AFTER_GREET, reply=421, verdict=421, marks={"turned_away"})
    else:  # the process ends before its session
        core.screener.end_history()
        rows, _ = core.reader.read(10)
        assert len(rows) == 1
        assert rows[0][3] == HISTORY_OUTCOMES.index("left")


# ---- lists and scores


LISTS = ("a.test", "b.test", "c.test", "d.test")


def with_lists(*sites: str, **more: Any) -> Settings:
    return {"dnsbl": {"sites": list(sites), "action": "enforce", **more}} | NO_TEASER


LISTED: dict[str, tuple[Settings, dict[str, Behaviour], Callable[[Client], object], Row]] = {
    "not listed": (
        with_lists("a.test", max_ttl="2h"),
        {"a.test": not_listed(ttl=600)},
        stays,
        row("handed_off", stage="handoff", score=0, pass_seconds=600, marks={*PASSED, "lists_judged"}),
    ),
    "drop": (
        with_lists("a.test*2", "b.test", action="drop", threshold=2),
        {"a.test": listed("127.0.0.2", "127.9.8.7"), "b.test": not_listed()},
        stays,
        row(
            "rejected", score=2, lists_total=2, lists_lowest=2, lists_highest=2, listed=(0,),
            answers=[(0, "127.0.0.2"), (0, "127.9.8.7")], found=("dnsbl",), failed=("dnsbl",), pass_seconds=300,
            reply=521, verdict=521, marks={"lists_judged", "turned_away"},
        ),
    ),
    "enforce": (
        with_lists("a.test=127.0.0.[2..3]*3", "a.test=127.0.0.4*4", threshold=3),
        {"a.test": listed("127.0.0.3")},
        says(*MAIL),
        row(
            "rejected", stage="dialogue", made=("dnsbl", *THREE), score=3, lists_total=3, lists_lowest=3,
            lists_highest=3, listed=(0,), answers=[(0, "127.0.0.3")], found=("dnsbl",), failed=("dnsbl",),
            pass_seconds=300, reply=550, verdict=550, commands=3, recipients=1, name=b"a.test",
            marks={"lists_judged", "turned_away", "hung_up", "esmtp"},
        ),
    ),
    "ignore": (
        with_lists("a.test", action="ignore"),
        {"a.test": listed("127.0.0.2")},
        stays,
        row(
            "handed_off", stage="handoff", score=1, lists_total=1, lists_lowest=1, lists_highest=1, listed=(0,),
            answers=[(0, "127.0.0.2")], found=("dnsbl",), pass_seconds=300, marks={"lists_judged"},
        ),
    ),
    "shadow": (
        {"mode": "shadow"} | with_lists("a.test", "d.test*-1", action="drop"),
        {"a.test": listed("127.0.0.2"), "d.test": not_listed()},
        stays,
        row(
            "handed_off", stage="handoff", score=1, lists_total=1, lists_lowest=1, lists_highest=1, listed=(0,),
            answers=[(0, "127.0.0.2")], found=("dnsbl",), pass_seconds=300, spared=521,
            marks={"lists_judged", "spared"},
        ),
    ),
    "one list fails, one is silent, one is late": (
        with_lists(*LISTS[:3], "d.test*-2", threshold=9, timeout="1s") | {"greet": {"banner": "", "wait": "2s"}},
        {"a.test": failing(), "b.test": silent, "c.test": listed("127.255.255.254"), "d.test": silent},
        stays,
        row(
            "handed_off", stage="handoff", score=0, lists_lowest=-2, silent=(0, 1, 2, 3), pass_seconds=60,
            marks={*PASSED, "lists_judged"},
        ),
    ),
    "no answer within the greet wait": (
        with_lists("a.test", "b.test", threshold=9),
        {"a.test": listed("127.0.0.2"), "b.test": silent},
        stays,
        row(
            "handed_off", stage="handoff", score=1, lists_total=1, lists_lowest=1, lists_highest=1, listed=(0,),
            answers=[(0, "127.0.0.2")], silent=(1,), pass_seconds=300, marks={*PASSED, "lists_judged"},
        ),
    ),
    "leaves before the answer": (
        with_lists("a.test", "b.test") | {"greet": {"banner": "", "wait": "30s"}},
        {"a.test": listed("127.0.0.2"), "b.test": silent},
        leaves_after(0.3),
        row("left", listed=(0,), unasked=(1,), answers=[(0, "127.0.0.2")], marks={"hung_up"}),
    ),
    "allowlisted by the lists": (
        with_lists("a.test*-3", allowlist_threshold=-3) | DEEP | {"greet": {"banner": "mx.test", "wait": "30s"}},
        {"a.test": listed("127.0.0.2")},
        stays,
        row(
            "handed_off", stage="handoff", needed=("pregreet", "dnsbl", *THREE), made=("pregreet", "dnsbl"),
            score=-3, lists_total=-3, lists_lowest=-3, lists_highest=-3, listed=(0,), answers=[(0, "127.0.0.2")],
            pass_seconds=300, marks={*PASSED, "lists_judged", "lists_allow"},
        ),
    ),
    "too many answers": (
        with_lists("a.test", "b.test", threshold=9),
        {
            "a.test": listed(*(f"127.0.0.{number}" for number in range(2, 14))),
            "b.test": listed(*(f"127.0.1.{number}" for number in range(2, 14))),
        },
        stays,
        row(
            "handed_off", stage="handoff", score=2, lists_total=2, lists_lowest=2, lists_highest=2, listed=(0, 1),
            answers=[
                *((0, f"127.0.0.{number}") for number in range(2, 14)),
                *((1, f"127.0.1.{number}") for number in range(2, 6)),
            ],
            pass_seconds=300, marks={*PASSED, "lists_judged", "answers_cut"},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_lists(make: Make, mta: FakeMta, dns: FakeDns, name: str) -> None:
    settings, zones, talk, expected = LISTED[name]
    dns.zones |= zones
    core = make(settings, dns=dns)
    talk(core.connect())
    assert core.row() == {"needed": ("dnsbl",), "made": ("dnsbl",)} | expected


def test_more_lists_than_there_is_room_for(make: Make, mta: FakeMta, dns: FakeDns) -> None:
    sites = [f"list{number}.test" for number in range(70)]
    dns.zones = {site: listed("127.0.0.2") for site in (sites[63], sites[64])}
    core = make(with_lists(*sites, threshold=9), dns=dns)
    core.connect().rest()
    found = core.row()
    assert (found["listed"], found["answers"], found["score"]) == ((63,), [(63, "127.0.0.2")], 2)
    assert "lists_cut" in found["marks"]
    assert decode(core.built.description).lists[63] == sites[63]


def test_unhealthy_lists(make: Make, mta: FakeMta, dns: FakeDns, folder: Path) -> None:
    """A suspect list's answer is doubtful; a list that is out is silent."""
    health = HealthTable(memoryview(mmap.mmap(-1, state.SIZE)))
    dns.zones = {"a.test": listed("127.0.0.2"), "b.test": listed("127.0.0.3")}
    settings = with_lists("a.test", "b.test", threshold=2)
    settings["dnsbl"]["probe_interval"] = "60s"
    core = make(settings, dns=dns, health=health)
    health.set("a.test", State.SUSPECT)
    health.set("b.test", State.OUT)
    core.connect().rest()
    assert core.row() == row(
        "handed_off", stage="handoff", needed=("dnsbl",), made=("dnsbl",), score=0, lists_highest=1, doubtful=(0,),
        silent=(1,), answers=[(0, "127.0.0.2")], marks={*PASSED, "lists_judged", "unsettled"},
    )  # fmt: skip


def test_unsure(make: Make, mta: FakeMta, dns: FakeDns) -> None:
    """A list that could still bring the score below the threshold was silent."""
    dns.zones = {"a.test": listed("127.0.0.2"), "b.test": silent}
    core = make(with_lists("a.test", "b.test*-1", action="drop"), dns=dns)
    core.connect().rest()
    assert core.row() == row(
        "deferred", needed=("dnsbl",), made=("dnsbl",), score=1, lists_total=1, lists_highest=1, listed=(0,),
        silent=(1,), answers=[(0, "127.0.0.2")], found=("dnsbl",), failed=("dnsbl",), pass_seconds=300, reply=421,
        verdict=421, marks={"lists_judged", "unsure", "turned_away"},
    )  # fmt: skip


def test_score(make: Make, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones = {"a.test": listed("127.0.0.2")}
    core = make(with_lists("a.test", threshold=3) | {"score": {"action": "enforce", "helo_not_qualified": 2}}, dns=dns)
    says(b"EHLO pc", *MAIL[1:], b"QUIT")(core.connect())
    says(b"EHLO pc", *MAIL, b"QUIT")(core.connect("127.1.0.2"))
    first, second = core.rows(2)
    assert first == row(
        "rejected", stage="dialogue", needed=("dnsbl", "score"), made=("dnsbl", "score"), found=("score",),
        failed=("score",), score=3, lists_total=1, lists_lowest=1, lists_highest=1, listed=(0,), pass_seconds=300,
        answers=[(0, "127.0.0.2")], evidence=("helo_not_qualified",), reply=221, verdict=550, commands=4,
        recipients=1, name=b"pc", marks={"lists_judged", "esmtp", "turned_away"},
    )  # fmt: skip
    assert (second["outcome"], second["score"], second["name"]) == ("deferred", 1, b"a.test")
    assert "evidence" not in second


# ---- TLS, PROXY, the cluster


def test_tls(make: Make, mta: FakeMta, folder: Path) -> None:
    core = make(DEEP | NO_TEASER | {"tls": {"level": "may", "certificates": certificates(folder)}})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    core.screener.use_tls(ours.fileno(), memoryview(b"\1"))
    says(b"EHLO a.test", b"QUIT")(core.connect())
    says(b"HELO a.test", b"QUIT")(core.connect())
    # the TLS process tells the version first: alone, or together with what the client says
    said = ((b"", ()), (b"\x03", ()), (b"\x04EHLO in.tls\r\n", ()), (b"\x02", (b"EHLO in.tls", b"QUIT")))
    for first, last in said:
        client = core.connect()
        client.until(lambda got: b"220 mx.test" in got)
        assert client.ask(b"EHLO before.tls", b"STARTTLS").startswith(b"220 2.0.0")
        _, (passed, plaintext), _, _ = socket.recv_fds(theirs, 100, 2)
        inside = Client(core, socket.socket(fileno=plaintext))
        inside.socket.setblocking(False)
        if first:
            inside.socket.sendall(first)
        if first.endswith(b"\n"):
            inside.until(lambda got: b"250 " in got)
        if last:
            inside.ask(*last)
        inside.hang_up()
        os.close(passed)
    ours.close()
    theirs.close()
    common = row("left", stage="dialogue", **ONLY_DEEP, commands=2, reply=221)
    announced = common | {"name": b"a.test", "tls": "unused", "marks": {"esmtp"}}
    used = common | {"marks": {"esmtp"}}
    cut = used | {"name": b"before.tls", "reply": 220, "marks": {"esmtp", "hung_up"}}
    assert core.rows(6) == [
        announced,
        common | {"name": b"a.test"},
        cut | {"tls": "failed"},
        cut | {"tls": "1.2"},
        used | {"name": b"in.tls", "tls": "1.3", "commands": 3, "reply": 250, "marks": {"esmtp", "hung_up"}},
        used | {"name": b"in.tls", "tls": "used", "commands": 4},
    ]


def test_starttls_is_not_announced(make: Make, mta: FakeMta, folder: Path) -> None:
    tls = {"tls": {"level": "may", "certificates": certificates(folder)}}
    core = make(DEEP | NO_TEASER | tls | {"engine": {"discard_ehlo_keywords": ["starttls"]}})
    says(b"EHLO a.test", b"STARTTLS", b"QUIT")(core.connect())
    assert "tls" not in core.row()


def test_proxy(make: Make, mta: FakeMta) -> None:
    """A client by its header; a load balancer's own health check, which is not logged; and one that does more."""
    core = make(DEEP | NO_TEASER)
    balancer = b"PROXY TCP4 127.1.2.3 127.9.0.3 1234 25\r\n"
    client = core.connect(port=core.proxy_port, first=balancer)
    says(b"EHLO a.test", b"QUIT")(client)
    local = proxy_header_for(2, ("127.1.2.3", 1), ("127.9.0.3", 25))[:12] + b"\x20\x00\x00\x00"
    says(b"QUIT")(core.connect(port=core.proxy_port, first=local))
    says(*MAIL)(core.connect(port=core.proxy_port, first=local))
    common = row("left", stage="dialogue", **ONLY_DEEP, name=b"a.test", marks={"esmtp"})
    found = core.rows(2)
    assert found == [
        common | {"client": "127.1.2.3", "proxied": 1, "reply": 221, "commands": 2},
        common | {
            "outcome": "deferred", "reply": 450, "verdict": 450, "commands": 3, "recipients": 1,
            "marks": {*PASSED, "esmtp", "hung_up"},
        },
    ]  # fmt: skip
    assert core.screener.accepted == 3
    assert core.reader.sessions == 2


def test_another_worker_got_the_header(make: Make, mta: FakeMta) -> None:
    """The client is passed to the worker that it belongs to, which records that a header has named it."""
    core, other = make(NO_TEASER | DEEP), make(NO_TEASER | DEEP)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    for number, worker in enumerate((core, other)):
        worker.opened.callback(pairs[number][0].close)
        worker.opened.callback(pairs[number][1].close)
        pairs[number][1].setblocking(False)
        sending = [sending.fileno() for sending, _ in pairs]
        worker.screener.join_crew(number, 5, (32, 128), sending, pairs[number][1].fileno())
    address = next(f"127.1.2.{at}" for at in range(1, 99) if worker_of(f"127.1.2.{at}", 2, 5, (32, 128)) == 1)
    client = core.connect(port=core.proxy_port, first=f"PROXY TCP4 {address} 127.9.0.3 1234 25\r\n".encode())
    core.run_until(lambda: core.screener.stats()["passed_on"] == 1, "the client to be passed on")
    client.core = other
    says(b"QUIT")(client)
    assert other.row() == row("left", stage="dialogue", client=address, proxied=1, **ONLY_DEEP, reply=221, commands=1)
    assert core.reader.sessions == 0


@pytest.mark.parametrize("whole", [True, False])
def test_the_cluster_knows_the_client(make: Make, mta: FakeMta, dns: FakeDns, whole: bool) -> None:
    dns.zones["a.test"] = silent
    core = make(with_lists("a.test") | {"greet": {"banner": "mx.test", "wait": "30s"}} | DEEP, dns=dns)
    end, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.setblocking(False)
    core.screener.use_cluster(worker.fileno(), budget=30)
    client = core.connect()
    core.run_until(lambda: bool(select.select([end], [], [], 0)[0]), "the question")
    stamp = int(time.time()) + 1000
    record = write_record([stamp if whole or test.key != "pipelining" else 1 for test in TESTS])
    end.send(b"F" + struct.pack("BB", 0, 4) + socket.inet_aton(CLIENT) + bytes([len(record)]) + record)
    needed: Row = {"needed": ("pregreet", "dnsbl", *THREE)}
    if whole:
        client.rest()
        expected = row("handed_off", stage="handoff", **needed, unasked=(0,), marks={"cached", "shared", "passed"})
    else:
        says(*MAIL, b"QUIT")(client)
        expected = row(
            "deferred", stage="dialogue", **needed, made=("pipelining",), unasked=(0,), reply=221, verdict=450,
            commands=4, recipients=1, name=b"a.test", marks={"shared", "passed", "esmtp"},
        )  # fmt: skip
    core.screener.use_cluster(-1)
    end.close()
    worker.close()
    assert core.row() == expected


# ---- relayed


EHLO = b"250-mta\r\n250-8BITMIME\r\n250-SIZE\r\n250-DSN\r\n250 SMTPUTF8\r\n"
REPLIES = {b"EHLO": EHLO, b"QUIT": b"221 bye\r\n", b"DATA": b"354 go on\r\n", b"STAR": b"220 go\r\n"}


def smtp(**more: bytes) -> Callable[[Connection, int], None]:
    """An MTA that rejects recipients with `bad` in their name."""

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        with contextlib.suppress(EOFError, OSError):
            while line := connection.line():
                word = line[:4].upper()
                answer = REPLIES.get(word, b"550 5.1.1 unknown\r\n" if b"bad" in line else b"250 ok\r\n")
                connection.send(more.get(word.decode(), answer))
                if word == b"DATA" and "DATA" not in more:
                    while connection.line() != b".":
                        pass
                    connection.send(more.get("TEXT", b"250 queued\r\n"))

    return serve


def mails(client: Client, *recipients: bytes, size: int = 100, quits: bool = True) -> None:
    client.ask(b"EHLO a.test", b"MAIL FROM:<a@a.test>", *(b"RCPT TO:<%b@b.test>" % each for each in recipients))
    if client.ask(b"DATA").startswith(b"354"):
        pushed(client, (b"x" * 98 + b"\r\n") * (size // 100))
        client.ask(b".")
    if quits:
        client.ask(b"QUIT")
    client.hang_up()


@pytest.fixture
def relaying(make: Make) -> Callable[..., Core]:
    def made(target: str, settings: Settings, **more: Any) -> Core:
        return make({"handoff": {"to": target}, "access": {"mynetworks": ["127.1.0.0/16"]}} | settings, **more)

    return made


def relayed(**more: Any) -> Row:
    return row("relayed", stage="relay", marks={"allowlisted"}, **more)


@pytest.mark.parametrize(
    ("recipients", "more", "expected"),
    [
        ((b"b",), {}, relayed(mta_reply=250, mta_accepted=1, recipients=1)),
        ((b"b", b"bad", b"bad2", b"c"), {}, relayed(mta_reply=250, mta_accepted=1, mta_rejected=2, recipients=4)),
        ((b"bad",), {"DATA": b"554 none\r\n"}, relayed(mta_reply=554, mta_rejected=1, recipients=1)),
        ((b"b",), {"TEXT": b"550-spam\r\n550 really\r\n"}, relayed(mta_reply=550, mta_rejected=1, recipients=1)),
        ((b"b",), {"TEXT": b"451 later\r\n"}, relayed(mta_reply=451, recipients=1)),
    ],
)
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_relayed(
    relaying: Callable[..., Core], recipients: tuple[bytes, ...], more: dict[str, bytes], expected: Row, size: int
) -> None:
    """Large messages are moved by splice(2), which leaves nothing to read, but replies are still read."""
    with ProxyMta(smtp(**more)) as mta:
        core = relaying(mta.target, {})
        client = core.connect()
        client.reply()
        mails(client, *recipients, size=size)
        assert core.row() == expected


def pushed(client: Client, data: bytes) -> None:
    """Send this while the core runs."""
    pending = memoryview(data)
    while pending:
        with contextlib.suppress(BlockingIOError):
            pending = pending[client.socket.send(pending) :]
        client.core.run()


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_relayed_in_chunks(relaying: Callable[..., Core], size: int) -> None:
    """Message text is no command, whatever it looks like."""

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        for line in (b"EHLO a.test", b"MAIL FROM:<>", b"RCPT TO:<b@b.test>"):
            connection.expect(line, b"250 ok")
        for line in (b"BDAT %d" % size, b"BDAT %d LAST" % size):
            assert connection.line() == line
            while len(connection.held) < size:
                connection.held += connection.socket.recv(65536)
            connection.held = connection.held[size:]
            connection.send(b"250 ok\r\n")
        connection.expect(b"QUIT", b"221 bye")

    with ProxyMta(serve) as mta:
        core = relaying(mta.target, {})
        client = core.connect()
        client.reply()
        client.ask(b"EHLO a.test", b"MAIL FROM:<>", b"RCPT TO:<b@b.test>")
        for last in (b"", b" LAST"):
            pushed(client, b"BDAT %d%s\r\n" % (size, last) + (b"RCPT x\r\nQUIT\r\n" * size)[:size])
            client.reply()
        client.ask(b"QUIT")
        client.hang_up()
        assert core.row() == relayed(mta_reply=250, mta_accepted=1, recipients=1)


def test_relayed_without_a_word(relaying: Callable[..., Core]) -> None:
    with ProxyMta(smtp()) as mta:
        core = relaying(mta.target, {})
        client = core.connect()
        client.reply()
        client.ask(b"QUIT")
        client.hang_up()
        assert core.row() == relayed(mta_reply=220)


def test_relayed_in_tls(relaying: Callable[..., Core]) -> None:
    """Encrypted from one end to the other: nothing is known."""

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        connection.expect(b"EHLO a.test", EHLO)
        connection.expect(b"STARTTLS", b"220 go\r\n")
        connection.expect(b"550 5.7.1 this is no reply", b"550 neither is this\r\n")

    with ProxyMta(serve) as mta:
        core = relaying(mta.target, {})
        client = core.connect()
        client.reply()
        client.ask(b"EHLO a.test", b"STARTTLS", b"550 5.7.1 this is no reply")
        client.hang_up()
        assert core.row() == relayed()


def test_no_mta_to_relay_to(relaying: Callable[..., Core]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    core = relaying(f"proxy:127.0.0.1:{port}", {})
    core.connect().rest()
    assert core.row() == row("failed", stage="queued", reply=421, verdict=421, marks={"allowlisted", "turned_away"})


def continuing(make: Make, mta: ProxyMta, **more: Any) -> Core:
    return make({"handoff": {"continue_to": mta.target}} | DEEP | NO_TEASER, **more)


CONTINUED = ONLY_DEEP | {"name": b"a.test", "marks": {*PASSED, "esmtp"}}


def test_continued(make: Make, mta: FakeMta) -> None:
    with ProxyMta(smtp()) as proxy_mta:
        core = continuing(make, proxy_mta)
        client = core.connect()
        client.until(lambda got: b"220 mx.test" in got)
        mails(client, b"b", b"bad", b"c")
        assert core.row() == row(
            "continued", stage="relay", **CONTINUED, reply=250, commands=3, recipients=3, mta_reply=250,
            mta_accepted=1, mta_rejected=1,
        )  # fmt: skip


def test_continued_with_a_pipelined_transaction(make: Make, mta: FakeMta) -> None:
    """What the client sent together with its first RCPT is part of it, once pipelining is not a test."""
    with ProxyMta(smtp()) as proxy_mta:
        core = make({"handoff": {"continue_to": proxy_mta.target}, "deep": {"bare_newline": "drop"}} | NO_TEASER)
        client = core.connect()
        client.until(lambda got: b"220 mx.test" in got)
        client.ask(b"EHLO a.test")
        client.socket.sendall(b"MAIL FROM:<>\r\nRCPT TO:<bad@b>\r\nRCPT TO:<bad@c>\r\nRCPT TO:<d@d>\r\nDATA\r\n")
        client.reply(5)
        client.ask(b".", b"QUIT")
        client.hang_up()
        assert core.row() == row(
            "continued", stage="relay", needed=("bare_newline",), made=("bare_newline",), name=b"a.test", reply=250,
            commands=3, recipients=3, mta_reply=250, mta_accepted=1, mta_rejected=2, marks={*PASSED, "esmtp"},
        )  # fmt: skip


@pytest.mark.parametrize("code", [450, 550])
def test_the_mta_refuses_mail(make: Make, mta: FakeMta, code: int) -> None:
    """Its reply is the verdict; the transaction after it is relayed."""
    refusal = b"%d 4.7.1 not you\r\n" % code
    with ProxyMta(smtp(MAIL=refusal)) as proxy_mta:
        core = continuing(make, proxy_mta)
        says(*MAIL, b"RCPT TO:<c@c.test>", b"QUIT")(core.connect())
        rejected: Row = {"mta_rejected": 1} if code == 550 else {}
        assert core.row() == row(
            "continued", stage="dialogue", **CONTINUED, reply=221, commands=5, recipients=2, mta_reply=code, **rejected
        )


def test_the_mta_refuses_mail_for_good(make: Make, mta: FakeMta) -> None:
    with ProxyMta(smtp(MAIL=b"421 4.3.2 go\r\n")) as proxy_mta:
        core = continuing(make, proxy_mta)
        client = core.connect()
        client.until(lambda got: b"220 mx.test" in got)
        client.ask(*MAIL[:2])
        client.socket.sendall(MAIL[2] + b"\r\n")
        assert client.rest() == b"421 4.3.2 go\r\n"
        assert core.row() == row(
            "continued", stage="continue", **CONTINUED, reply=421, commands=3, recipients=1, mta_reply=421
        )


def test_no_mta_to_continue_with(make: Make, mta: FakeMta) -> None:
    with ProxyMta(lambda connection, _: connection.send(b"554 no\r\n")) as proxy_mta:
        core = continuing(make, proxy_mta)
        says(*MAIL, b"QUIT")(core.connect())
        assert core.row() == row(
            "deferred", stage="dialogue", **CONTINUED, reply=221, verdict=450, commands=4, recipients=1
        )


def is_silent(connection: Connection, _: int) -> None:
    connection.line()


def test_leaves_while_an_mta_is_asked(make: Make, mta: FakeMta) -> None:
    with ProxyMta(is_silent) as proxy_mta:
        core = continuing(make, proxy_mta)
        client = core.connect()
        client.until(lambda got: b"220 mx.test" in got)
        client.ask(*MAIL[:2])
        client.socket.sendall(MAIL[2] + b"\r\n")
        seen(client)
        client.hang_up()
        expected = CONTINUED | {"marks": CONTINUED["marks"] | {"hung_up"}}
        assert core.row() == row("left", stage="continue", **expected, reply=250, commands=3, recipients=1)
