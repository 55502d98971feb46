"""Shadow mode: every client reaches the MTA, and the log has the would-be rejections."""

import contextlib
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fastscreen.cli import main
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, TEASER, Client, Screener
from robust.proxymta import Connection, ProxyMta
from robust.test_control import connected

SHADOW: Map = {"mode": "shadow"}
DENIED: Map = {"access": {"list": ["inline:{ { 127.1.0.1 = reject } }"]}}


def told(screener: Screener, client: Client) -> list[str]:
    """The replies that the client would have received, from the log."""
    lines = screener.lines(f"SHADOW from {client.pattern}")
    return [line.partition(": would have replied: ")[2] for line in lines]


def kinds(screener: Screener, client: Client) -> list[str]:
    """The first words of the lines about a client, in their order."""
    return [line.split("]: ", 1)[1].split(" ")[0] for line in screener.lines(client.pattern)]


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        ("drop", "521 5.3.2 Service currently unavailable"),
        ("enforce", "550 5.3.2 Service currently unavailable"),
    ],
)
def test_deny_list(start: Start, mta: FakeMta, action: str, reply: str) -> None:
    screener = start(SHADOW, DENIED, {"access": {"denylist_action": action}})
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
        assert told(screener, client) == [reply]
        assert kinds(screener, client) == ["CONNECT", "DENYLISTED", "SHADOW", "PASS"]


@pytest.mark.parametrize(
    ("settings", "reply"),
    [
        ({"greet": {"action": "drop"}}, "521 5.5.1 Protocol error"),
        ({"greet": {"action": "enforce"}}, "550 5.5.1 Protocol error"),
        ({"greet": {"action": "drop"}, "engine": {"soft_bounce": True}}, "421 4.5.1 Protocol error"),
    ],
)
def test_pregreet(start: Start, folder: Path, mta: FakeMta, settings: Map, reply: str) -> None:
    """It has not passed: the next time it is tested again."""
    screener = start(SHADOW, settings, {"cache": {"path": str(folder / "cache")}})
    for _ in range(2):
        with screener.connect() as client:
            client.send(b"EHLO early\r\n")
            assert client.read() == TEASER + FROM_MTA
            assert told(screener, client) == [reply]
            assert kinds(screener, client) == ["CONNECT", "PREGREET", "SHADOW"]
    assert mta.early == [b"EHLO early\r\n"] * 2


@pytest.mark.parametrize(("action", "code"), [("drop", "521"), ("enforce", "550")])
def test_listed(start: Start, folder: Path, mta: FakeMta, dns: FakeDns, action: str, code: str) -> None:
    dns.zones["1.0.1.127.bl.test"] = listed("127.0.0.2")
    sites = {"sites": ["bl.test"], "action": action, "resolvers": [dns.endpoint]}
    screener = start(SHADOW, {"dnsbl": sites, "control": {"path": str(folder / "run" / "control")}})
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
        reply = f"{code} 5.7.1 Service unavailable; client [127.1.0.1] blocked using bl.test"
        assert told(screener, client) == [reply]
        assert [kind for kind in kinds(screener, client) if kind != "addr"] == ["CONNECT", "DNSBL", "SHADOW"]
    with connected(folder / "run" / "control") as control:
        status = control.ok("status")
        assert (status["mode"], status["counts"]["shadow_rejected"], status["counts"]["rejected"]) == ("shadow", 1, 0)
        explained = control.ok("explain", address="127.1.0.1")
        assert (explained["verdict"], explained["reply"]) == ("ignored", None)
        assert f"shadow mode: without it, the reply would be {reply}" in [step["text"] for step in explained["steps"]]


DEEP_FAILURES = {
    "pipelining": (b"NOOP\r\nNOOP\r\n", ["521 5.5.1 Protocol error", "550 5.5.1 Protocol error"]),
    "non_smtp_command": (
        b"GET / HTTP/1.1\r\n",
        ["521 5.7.0 Error: I can break rules, too. Goodbye.", "550 5.5.1 Protocol error"],
    ),
    "bare_newline": (b"NOOP\n", ["521 5.5.1 Protocol error", "550 5.5.1 Protocol error"]),
}


@pytest.mark.parametrize("action", ["drop", "enforce"])
@pytest.mark.parametrize("test", DEEP_FAILURES)
def test_deep_tests_with_continue(start: Start, test: str, action: str) -> None:
    """The session goes on with the MTA, whatever it failed."""

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        with contextlib.suppress(EOFError):
            while line := connection.line():
                connection.send(ProxyMta.OFFER if line.startswith(b"EHLO") else b"250 to " + line + b"\r\n")

    said, replies = DEEP_FAILURES[test]
    with ProxyMta(serve) as mta:
        screener = start(SHADOW, {"deep": {test: action}, "handoff": {"continue_to": mta.target}})
        with screener.connect() as client:
            assert client.read() == TEASER + GREETING
            assert client.ask(b"EHLO client.test").startswith(b"250-mx")
            client.send(said)
            for _ in range(said.count(b"\n")):
                assert client.read()[:3] in (b"250", b"502")
            assert client.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"
            assert client.ask(b"RCPT TO:<c@d.test>") == b"250 to RCPT TO:<c@d.test>\r\n"
            assert told(screener, client) == [replies[action == "enforce"]]
            screener.line(f"CONTINUE from {client.pattern} to ")


def test_deep_tests_without_continue_are_not_made(start: Start, mta: FakeMta) -> None:
    screener = start(SHADOW, {"deep": {"pipelining": "enforce", "bare_newline": "ignore"}})
    screener.line(
        r"warning: mode is shadow: no client is rejected; these tests are not made, because in shadow mode they need "
        r"handoff\.continue_to: deep\.pipelining, deep\.bare_newline$"
    )
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
        assert kinds(screener, client) == ["CONNECT", "PASS"]


def test_mx_policy(start: Start, folder: Path, mta: FakeMta) -> None:
    """A client of the backup address is handed off, but has not passed."""
    settings = {"access": {"allowlist_interfaces": ["!127.9.0.1", "0.0.0.0/0"]}, "cache": {"path": str(folder / "c")}}
    screener = start(SHADOW, settings)
    for _ in range(2):
        with screener.connect() as client:
            assert client.read() == TEASER + FROM_MTA
            assert told(screener, client) == ["450 4.3.2 Service currently unavailable"]
            assert kinds(screener, client) == ["CONNECT", "ALLOWLIST", "SHADOW"]


def test_limits(start: Start, folder: Path, mta: FakeMta) -> None:
    """Connections above the limit per client are tested; connections above the limit for all clients are handed off
    untested. None of them is counted as rejected."""
    screener = start(
        SHADOW,
        {"limits": {"client_connection_count": 1, "pre_queue": 10}, "greet": {"wait": "60s"}},
        {"control": {"path": str(folder / "run" / "control")}},
    )
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(screener.connect()) for _ in range(2)]
        for client in clients:
            assert client.socket.recv(len(TEASER)) == TEASER
        screener.line(f"SHADOW from {clients[1].pattern}: would have replied: 421 4.7.0 Error: too many connections$")
        assert told(screener, clients[0]) == []
        for host in range(8):
            client = held.enter_context(screener.connect(f"127.1.1.{host}"))
            assert client.socket.recv(len(TEASER)) == TEASER
        with screener.connect("127.1.2.1") as client:
            assert client.read() == FROM_MTA
            assert told(screener, client) == ["421 4.3.2 All screening ports are busy"]
        with connected(folder / "run" / "control") as control:
            counts = control.ok("status")["counts"]
            assert (counts["busy"], counts["rejected"], counts["shadow_rejected"]) == (0, 0, 2)


def test_a_reload_ends_it(start: Start, mta: FakeMta) -> None:
    screener = start(SHADOW, DENIED, {"access": {"denylist_action": "drop"}})
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
    screener.reload({**screener.settings, "mode": "screen"})
    with screener.connect() as client:
        assert client.read() == b"521 5.3.2 Service currently unavailable\r\n"
        assert told(screener, client) == []


def test_one_test_alone(start: Start, mta: FakeMta) -> None:
    """The others are in force."""
    screener = start(DENIED, {"access": {"denylist_action": "drop"}, "greet": {"action": "shadow"}})
    assert not screener.lines("mode is shadow")
    with screener.connect() as client:
        assert client.read() == b"521 5.3.2 Service currently unavailable\r\n"
    with screener.connect("127.1.0.2") as client:
        client.send(b"EHLO early\r\n")
        assert client.read() == TEASER + FROM_MTA
        assert told(screener, client) == ["550 5.5.1 Protocol error"]


def test_the_report_tells_what_would_have_happened(
    start: Start, mta: FakeMta, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a denied client, an early talker, and a good one."""
    screener = start(SHADOW, DENIED, {"access": {"denylist_action": "drop"}, "greet": {"action": "drop"}})
    for source, said in (("127.1.0.1", b""), ("127.1.0.2", b"EHLO early\r\n"), ("127.1.0.3", b"")):
        with screener.connect(source) as client:
            client.send(said)
            assert client.read() == TEASER + FROM_MTA
            screener.line(f"CONNECT from {client.pattern}")
    screener.stop()
    hour_later = (datetime.now() + timedelta(hours=1)).strftime(
        "%b %e %H:%M:%S"
    )  # sessions without an end were handed off by then
    with screener.log.open("a") as log:
        log.write(f"{hour_later} mx postfix/postscreen[1]: CONNECT from [127.1.9.9]:9 to [127.9.0.1]:25\n")
    assert main(["report", "--json", str(screener.log)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["test"]: (each["sessions"], each["handed_off"]) for each in found["shadow"]} == {
        "denylist": (1, 1),
        "pregreet": (1, 1),
    }
    assert {each["name"]: each["count"] for each in found["shadow_replies"]} == {
        "521 5.3.2 Service currently unavailable": 1,
        "521 5.5.1 Protocol error": 1,
    }
