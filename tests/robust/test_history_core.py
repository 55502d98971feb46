"""What the core records of a session: one record for each way in which it can end."""

import array
import contextlib
import mmap
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fastscreen.core import HISTORY_OUTCOMES, EventReader, read_record, write_record
from fastscreen.dns.health import state
from robust.fakedns import Behaviour, FakeDns, failing, listed, not_listed, silent
from robust.fakemta import FakeMta, fill
from robust.historycore import Client, Core, Settings

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
        lambda client: (client.socket.sendall(b"QUIT\r\n"), seen(client), client.hang_up()),
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
        lambda client: (
            client.until(lambda got: b"220 mx.test" in got),
            client.ask(*MAIL),
            client.socket.sendall(b"NOOP\n"),
            client.rest(),
        ),
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
        lambda client: (client.core.connect("127.1.0.9").rest(), client.hang_up()),
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
        lambda client: (client.core.connect().rest(), client.hang_up()),
        row("busy", reply=421, verdict=421, marks={"client_limit", "turned_away"}),
    ),
}


def seen(client: Client, seconds: float = 0.1) -> None:
    """A few batches in which the core sees what the client has done."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.core.run()


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
    busy = {"needed": ("pregreet",), "marks": {"stress", "screening_ports", "spared" if shadow else "turned_away"}}
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
