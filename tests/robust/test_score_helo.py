"""The score of a session: HELO names together with the DNS lists, judged at the first recipient."""

import contextlib
import json
import re
from pathlib import Path

import pytest

from fastscreen.cli import main
from fastscreen.control import client as records
from fastscreen.control import messages
from fastscreen.tui.views import story as view
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import FakeDns, listed, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, GREETING, HOSTNAME, TEASER, Client, Screener
from robust.proxymta import Connection, ProxyMta
from robust.test_control import connected
from robust.test_metrics import scraped

GOOD = b"mail.provider-host.se"
WEIGHTS = {"helo_address": 2, "helo_not_qualified": 1, "helo_reserved": 3, "helo_ours": 4, "helo_client_address": 1}
SCORE: Map = {"score": {"action": "enforce", **WEIGHTS}, "dnsbl": {"threshold": 3, "action": "enforce"}}
LATER = b"450 4.3.2 Service currently unavailable\r\n"


def blocked(label: str, code: str = "550 5.7.1", source: str = "127.1.0.1") -> bytes:
    return f"{code} Service unavailable; client [{source}] blocked: {label}\r\n".encode()


def greeted(client: Client, *, listening: bytes = TEASER + GREETING) -> None:
    assert client.read() == listening


def recipient(client: Client, *names: bytes, verb: bytes = b"EHLO") -> bytes:
    """Send HELO with each of the names, then MAIL; return the reply to RCPT."""
    for name in names:
        assert client.ask(verb + b" " + name).startswith(b"250")
    assert client.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"
    return client.ask(b"RCPT TO:<c@d.test>")


def words(screener: Screener, client: Client) -> list[str]:
    """The lines about a client, without its address."""
    lines = [line.split("]: ", 1)[1] for line in screener.lines(client.pattern)]
    return [line.replace(client.name, "CLIENT") for line in lines if "NOQUEUE" not in line]


@pytest.mark.parametrize("verb", [b"EHLO", b"HELO"])
@pytest.mark.parametrize(
    ("name", "key", "label"),
    [
        (b"[192.0.2.1]", "helo_address", "HELO name is an address"),
        (b"user-pc", "helo_not_qualified", "HELO name is not fully qualified"),
        (b"localhost", "helo_reserved", "HELO name is reserved"),
        (HOSTNAME.encode(), "helo_ours", "HELO name is ours"),
        (b"1.0.1.127.provider-host.se", "helo_client_address", "HELO name contains the client's address"),
    ],
)
def test_each_finding_without_any_list(
    start: Start, folder: Path, verb: bytes, name: bytes, key: str, label: str
) -> None:
    """A score exists where dnsbl.sites is not set, and the rejection names what brought it to the threshold."""
    settings = {"score": {"action": "enforce", key: 5}, "dnsbl": {"threshold": 5}}
    screener = start(settings, {"cache": {"path": str(folder / "cache")}})
    for _ in range(2):  # it has not passed
        with screener.connect() as client:
            greeted(client)
            assert recipient(client, name, verb=verb) == blocked(label)
            assert client.ask(b"RCPT TO:<e@f.test>") == blocked(label)
            assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
            screener.line(f"DISCONNECT {client.pattern}")
            assert words(screener, client) == [
                f"CONNECT from CLIENT to [{ADDRESS}]:{screener.address[1]}",
                f"SCORE from CLIENT: {key} +5: {name.decode()}",
                f"SCORE rank 5 for CLIENT: {key} 5",
                "DISCONNECT CLIENT",
            ]


def test_a_good_name_passes_and_is_known_from_then_on(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(SCORE, {"cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, GOOD) == LATER
        client.ask(b"QUIT")
        screener.line(f"PASS NEW {client.pattern}")
        assert not screener.lines("SCORE")
    with screener.connect() as client:  # a known client is not judged again, whatever it would say
        assert client.read() == FROM_MTA
        screener.line(f"PASS OLD {client.pattern}")


def test_a_good_client_continues(start: Start) -> None:
    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        with contextlib.suppress(EOFError):
            while line := connection.line():
                connection.send(ProxyMta.OFFER if line.startswith(b"EHLO") else b"250 to " + line + b"\r\n")

    with ProxyMta(serve) as mta:
        screener = start(SCORE, {"handoff": {"continue_to": mta.target}})
        with screener.connect() as client:
            greeted(client)
            assert recipient(client, GOOD) == b"250 to RCPT TO:<c@d.test>\r\n"
        with screener.connect("127.1.0.2") as client:
            greeted(client)
            assert recipient(client, b"localhost") == blocked("HELO name is reserved", source="127.1.0.2")


def test_findings_add_up(start: Start) -> None:
    screener = start(SCORE, {"dnsbl": {"threshold": 6}})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, f"[{ADDRESS}]".encode()) == blocked("HELO name is ours")
        screener.line(f"SCORE rank 6 for {client.pattern}: helo_address 2, helo_ours 4$")
    with screener.connect("127.1.0.2") as client:
        greeted(client)
        assert recipient(client, b"[192.0.2.1]") == LATER


def test_the_last_helo_counts(start: Start) -> None:
    screener = start(SCORE)
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, b"localhost", b"LOCALHOST", GOOD) == LATER
        assert len(screener.lines(f"SCORE from {client.pattern}")) == 1
    with screener.connect("127.1.0.2") as client:
        greeted(client)
        assert recipient(client, GOOD, b"localhost") == blocked("HELO name is reserved", source="127.1.0.2")


def test_a_pass_is_taken_back(start: Start, folder: Path) -> None:
    """A client that passed with its first recipient, and then shows what it is, has passed nothing."""
    screener = start(SCORE, {"cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, GOOD) == LATER
        assert recipient(client, b"localhost") == blocked("HELO name is reserved")
        client.ask(b"QUIT")
        screener.line(f"DISCONNECT {client.pattern}")
        assert not screener.lines(f"PASS .*{client.pattern}")
    with screener.connect() as client:
        greeted(client)


@pytest.mark.parametrize("others", [0, 2])
def test_together_with_lists(start: Start, dns: FakeDns, others: int) -> None:
    dns.zones["1.0.1.127.bl.test"] = listed("127.0.0.2")
    sites = {"sites": [f"bl.test*{others}"] if others else [], "resolvers": [dns.endpoint]}
    screener = start(SCORE, {"dnsbl": sites})
    with screener.connect() as client:
        greeted(client)
        expected = blocked("HELO name is not fully qualified") if others else LATER
        assert recipient(client, b"user-pc") == expected
        screener.line(f"SCORE from {client.pattern}: helo_not_qualified .1: user-pc$")
        if others:
            screener.line(f"SCORE rank 3 for {client.pattern}: dnsbl 2, helo_not_qualified 1$")
        assert len(screener.lines("SCORE rank")) == bool(others)
        assert not screener.lines("DNSBL rank")


def test_lists_decide_alone(start: Start, dns: FakeDns) -> None:
    """A client that they fail is rejected as before; what it says is logged, and changes nothing."""
    dns.zones["1.0.1.127.bl.test"] = listed("127.0.0.2")
    screener = start(SCORE, {"dnsbl": {"sites": ["bl.test*3"], "resolvers": [dns.endpoint]}})
    with screener.connect() as client:
        greeted(client)
        reply = b"550 5.7.1 Service unavailable; client [127.1.0.1] blocked using bl.test\r\n"
        assert recipient(client, b"localhost") == reply
        screener.line(f"DNSBL rank 3 for {client.pattern}$")
        assert not screener.lines("SCORE rank")


def test_a_list_that_is_silent_makes_it_temporary(start: Start, dns: FakeDns) -> None:
    """An allow list that could have saved the client has not answered."""
    dns.zones["wl.test"] = silent
    sites = {"sites": ["wl.test*-5"], "resolvers": [dns.endpoint]}
    screener = start(SCORE, {"dnsbl": sites})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, b"localhost") == blocked("HELO name is reserved", "450 4.7.1")


def test_drop(start: Start) -> None:
    screener = start(SCORE, {"score": {"action": "drop"}})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, b"localhost") == blocked("HELO name is reserved", "521 5.7.1")
        assert client.read() == b""


@pytest.mark.parametrize("action", ["ignore", "shadow"])
def test_ignore(start: Start, folder: Path, mta: FakeMta, action: str) -> None:
    """It is logged, and counts as passed for a while."""
    screener = start(SCORE, {"score": {"action": action}, "cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        greeted(client)
        assert recipient(client, b"localhost") == LATER
        screener.line(f"SCORE rank 3 for {client.pattern}: helo_reserved 3$")
        screener.line(f"NOQUEUE: reject: RCPT from {client.pattern}")
        would = screener.lines(
            f"SHADOW from {client.pattern}: would have replied: 550 5.7.1 .* blocked: HELO name is res"
        )
        assert bool(would) == (action == "shadow")
        client.ask(b"QUIT")
        screener.line(f"PASS NEW {client.pattern}")
    with screener.connect() as client:
        assert client.read() == FROM_MTA


def test_known_and_allowed_clients_are_never_judged(start: Start, dns: FakeDns, mta: FakeMta) -> None:
    dns.zones["2.0.1.127.wl.test"] = listed("127.0.0.2")
    screener = start(
        SCORE,
        {"access": {"list": ["inline:{ { 127.1.0.1 = permit } }"]}},
        {"dnsbl": {"sites": ["wl.test*-5"], "allowlist_threshold": -3, "resolvers": [dns.endpoint]}},
    )
    with screener.connect("127.1.0.1") as client:
        assert client.read() == FROM_MTA
    with screener.connect("127.1.0.2") as client:
        assert client.read() == TEASER + FROM_MTA
        screener.line(f"PASS NEW {client.pattern}")


def test_without_weights_nothing_changes(start: Start, folder: Path, mta: FakeMta) -> None:
    """No dialogue, no line, and a record of five stamps."""
    screener = start({"dnsbl": {"threshold": 1, "action": "enforce"}, "cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
        assert [line.split()[0] for line in words(screener, client)] == ["CONNECT", "PASS"]


def test_weights_reach_failed_clients_without_a_word(start: Start) -> None:
    """A client that failed another test gets that test's reply."""
    screener = start(SCORE, {"greet": {"action": "enforce"}})
    with screener.connect() as client:
        client.send(b"EHLO localhost\r\n")
        got = b""
        while not got.endswith(b"CHUNKING\r\n"):
            got += client.read()
        assert got.startswith(TEASER + b"250-")
        assert recipient(client) == b"550 5.5.1 Protocol error\r\n"
        assert not screener.lines("SCORE rank")


@pytest.mark.parametrize(
    "name",
    [
        b"'; DROP",
        b"\x1b[31mred",
        b"%s%n%d",
        b"a" * 2000,
        b"\xff\xfe",
        b"\x85\xe2\x80\xa8line",
        b"a\rb",
        b"x: SCORE rank 9 for [192.0.2.1]:1",
    ],
)
def test_hostile_names(start: Start, name: bytes) -> None:
    """Quotes, control characters, and names without an end stay in their line."""
    screener = start(SCORE)
    with screener.connect() as client:
        greeted(client)
        assert client.ask(b"EHLO " + name).startswith(b"250")
        screener.line(f"SCORE from {client.pattern}: helo_not_qualified ")
        assert not re.search(rb"[^\n -~]", screener.text())
        assert all(client.name in line for line in screener.lines("SCORE"))
        assert max(map(len, screener.lines())) < 1000


def test_seen_everywhere(start: Start, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In events, filters, sessions, the view, explain, metrics and the report."""
    path = folder / "run" / "control"
    screener = start(SCORE, {"control": {"path": str(path)}, "metrics": {"listen": f"unix:{folder}/run/metrics"}})
    with screener.connect() as client, connected(path) as control:
        greeted(client)
        assert client.ask(b"EHLO localhost").startswith(b"250")
        (session,) = control.ok("sessions", filter="evidence:helo_reserved score>=3")["sessions"]
        assert (session["evidence"], session["score"], session["failed"]) == (["helo_reserved"], 3, [])
        assert control.ok("sessions", filter="evidence:helo_ours")["matched"] == 0
        assert recipient(client) == blocked("HELO name is reserved")
        (session,) = control.ok("sessions", filter="failed:score")["sessions"]
        assert session["failed"] == ["score"]
        story = control.ok("story", address="127.1.0.1")
        told = {event["kind"]: event for event in story["events"]}
        assert (told["evidence"]["number"], told["evidence"]["text"]) == (3, b"helo_reserved: localhost")
        assert (told["score"]["number"], told["score"]["text"]) == (3, "helo_reserved 3")
        screen = "\n".join(line.plain for line in view.told(records.record(messages.Story, story), 0.0, 120))
        assert "failed score   evidence helo_reserved" in screen
        assert "+3 helo_reserved: localhost" in screen and "score 3: helo_reserved 3" in screen
        metrics = scraped(f"{folder}/run/metrics")
        assert 'fastscreen_evidence_total{scorer="helo_reserved"} 1.0' in metrics
        assert 'fastscreen_tests_failed_total{test="score"} 1.0' in metrics
        explained = control.ok("explain", address="127.1.0.1")
        assert explained["evidence"] == [{"scorer": "helo_reserved", "weight": 3, "text": "localhost"}]
        steps = [step["text"] for step in explained["steps"] if step["step"] == "score"]
        assert steps[1] == "its last session showed helo_reserved +3 (localhost): a score of 3 reaches dnsbl.threshold"
        assert "score" in explained["tests"]
        counts = control.ok("status")["counts"]
        assert (counts["evidence"], counts["score"], counts["rejected"]) == (1, 1, 0)
    screener.line("DISCONNECT|HANGUP")
    assert main(["report", "--json", str(screener.log)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evidence"] == [{"name": "helo_reserved", "count": 1, "clients": 1, "failed": 1}]
    assert (report["totals"]["score"], report["totals"]["evidence"], report["rejected"]) == (1, 1, {"score": 1})
