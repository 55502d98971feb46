"""Clients that break off at any moment, at a daemon whose core is built with sanitizers: two workers that pass clients
to each other, relays, Continue, TLS, MTAs that break off as well. Nothing may be reported, and no worker may end."""

import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robust.conftest import Alter, Start
from robust.control import Control
from robust.fakemta import FakeMta
from robust.harness import Screener, merge, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.tlsclient import certificates

PORTS = {
    "listen": {
        "addresses": ["127.36.0.1:0"],
        "workers": 2,
        "proxy": [{"addresses": ["127.36.0.2:0"], "trusted": ["127.36.0.0/16"], "timeout": "5s"}],
    },
    "limits": {"pre_queue": 4000, "client_connection_count": 0},
}
DEEP = {
    "deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"},
    "greet": {"banner": ""},
}
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.37.0.0/16"]}}


def load(screener: Screener, seconds: float, *kinds: str) -> None:
    """Run a load of each kind at the PROXY port; each must have made some connections."""
    host, port = screener.lines(" daemon started ")[-1].rpartition(" listening on ")[2].split(", ")[1].rsplit(":", 1)
    program = Path(__file__).with_name("load.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(program), kind, str(seconds), f"{kind} {number}", host, port], stdout=subprocess.PIPE
        )
        for number, kind in enumerate(kinds)
    ]
    try:
        made = [int(each.communicate(timeout=seconds + 60)[0]) for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()
    assert all(made), dict(zip(kinds, made, strict=True))


def assert_nothing_stale(screener: Screener) -> None:
    with Control(screener.folder / "control") as control:
        workers = control.ok("status")["workers"]
        assert [worker["stale_events"] for worker in workers] == [0, 0]


def odd_mta(seed: int) -> Callable[[Connection, int], None]:
    """An MTA that accepts mail and breaks off at any moment: by closing, with a reset, or with an invalid reply."""
    counting = random.Random(seed)

    def serve(connection: Connection, number: int) -> None:
        dice = random.Random(f"{counting.random()} {number}")

        def may_leave() -> bool:
            if dice.random() < 0.08:
                if dice.random() < 0.5:
                    linger = struct.pack("ii", 1, 0)
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return True
            return False

        if may_leave():
            return
        connection.send(b"220 mta ESMTP\r\n" if dice.random() < 0.95 else b"what?\r\n")
        while not may_leave():
            word = connection.line()[:4].upper()
            if word == b"EHLO":
                connection.send(ProxyMta.OFFER)
            elif word == b"DATA":
                connection.send(b"354 go\r\n")
                while connection.line() != b".":
                    pass
                connection.send(b"250 2.0.0 Ok\r\n")
            elif word == b"QUIT":
                connection.send(b"221 bye\r\n")
                return
            else:
                connection.send(dice.choice((b"250 2.0.0 Ok\r\n",) * 9 + (b"451 4.3.0 later\r\n",)))

    return serve


def test_clients_that_leave_while_they_are_passed_on(start: Start, mta: FakeMta, seconds: float) -> None:
    """The worker that passed a client holds its connection for a moment longer than the one that has it now."""
    screener = start(PORTS, {"greet": {"wait": "6s"}, "control": {"path": str(mta.path.with_name("control"))}})
    load(screener, seconds, "leave", "leave", "leave")
    assert_nothing_stale(screener)


def test_relays_and_continue_and_tls(start: Start, folder: Path, seconds: float) -> None:
    settings: dict[str, Any] = {
        "tls": {"level": "may", "certificates": certificates(folder), "log_level": 1},
        "control": {"path": str(folder / "control")},
    }
    with ProxyMta(odd_mta(1)) as mta:
        to = {"handoff": {"to": [mta.target], "continue_to": [mta.target], "continue_time_limit": "5s"}}
        screener = start(PORTS, DEEP, KNOWN, to, settings)
        load(screener, seconds, "known", "mail", "tls", "leave")
        wait_until(lambda: bool(screener.lines("CONTINUE from .*: 250")), "a session that went on")
        wait_until(lambda: bool(screener.lines("TLS connection established")), "a session in TLS")
        assert_nothing_stale(screener)


def test_descriptors_for_an_mta_that_is_busy(start: Start, folder: Path, mta: FakeMta, seconds: float) -> None:
    """Hand-offs by descriptor, after TLS as well, while the MTA is away now and then."""
    settings: dict[str, Any] = {
        "tls": {"level": "may", "certificates": certificates(folder), "log_level": 1},
        "control": {"path": str(folder / "control")},
        "cache": {"path": str(folder / "cache")},
    }
    screener = start(merge(PORTS, DEEP, KNOWN, settings))
    over = threading.Event()

    def come_and_go() -> None:
        while not over.wait(0.3):
            mta.stop()
            over.wait(0.1)
            mta.start(5)

    going = threading.Thread(target=come_and_go)
    going.start()
    try:
        load(screener, seconds, "known", "mail", "tls", "leave")
    finally:
        over.set()
        going.join()
    assert mta.taken
    assert_nothing_stale(screener)


ROUNDS = 8  # of a load, at most: how soon networks are bad depends on the machine
QUICK = """
from fastscreen.screening import policy
_Policy = policy.Policy

def quick(*arguments, responses, **more):
    return _Policy(*arguments, responses={**responses, "slow_by": 0.05}, **more)

policy.Policy = quick
"""


def test_what_follows_from_a_score(start: Start, alter: Alter, folder: Path, seconds: float) -> None:
    """All have evidence: they get slow replies, are deferred, and go to another MTA; some are rejected for it. Their
    networks are bad soon."""
    settings: dict[str, Any] = {
        "tls": {"level": "may", "certificates": certificates(folder), "log_level": 1},
        "control": {"path": str(folder / "control")},
        "cache": {"path": str(folder / "cache")},
        "history": {"path": str(folder / "history")},
        "dnsbl": {"threshold": 6},
    }
    score = {
        "action": "enforce",
        "helo_reserved": 2,
        "no_tls": 1,
        "rcpt_many": 1,
        "rcpt_many_from": 2,
        "rcpt_rejected": 1,
    }
    memory = {"memory": str(folder / "offenses"), "seen_address": 1, "seen_network": 2, "seen_min": 1}
    responses = {"slow_from": 2, "defer_from": 3, "doubtful_from": 2}
    alter(QUICK)
    with ProxyMta(odd_mta(1)) as mta, ProxyMta(odd_mta(2)) as strict:
        to = {
            "to": [mta.target],
            "continue_to": [mta.target],
            "continue_time_limit": "5s",
            "doubtful_to": [strict.target],
        }
        screener = start(PORTS, DEEP, KNOWN, settings, {"handoff": to, "score": score | memory | responses})
        missing = [
            "SLOWED from",
            "DEFERRED from",
            "DOUBTFUL from",
            "CONTINUE from .*: 250",
            "SCORE rank",
            "seen_network",
        ]
        for _ in range(ROUNDS):
            load(screener, seconds, "hasty", "mail", "tls", "leave")
            if not (missing := [what for what in missing if not screener.lines(what)]):
                break
        assert missing == []
        assert strict.came
        assert_nothing_stale(screener)
