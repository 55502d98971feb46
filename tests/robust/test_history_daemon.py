"""The workers of a real daemon, the ring and the recorder together: what is in the history's files in the end."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from fastscreen.core import HISTORY_MARKS
from fastscreen.history import day
from fastscreen.history.session import Session, read
from fastscreen.history.settings import HistorySettings, decode
from robust.conftest import Start
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import GREETING, TEASER, Client, Screener, wait_until
from robust.tlsclient import begin, certificates, secure

DEEP = {"deep": {"pipelining": "enforce"}}


@pytest.fixture
def history(folder: Path) -> dict[str, Any]:
    return {"history": {"path": str(folder / "history")}, "cache": {"path": str(folder / "cache" / "cache")}}


def recorded(folder: Path, count: int) -> list[tuple[Session, HistorySettings | None]]:
    """So many sessions, in the order of their ends, with their settings."""
    found: list[tuple[Session, HistorySettings | None]] = []

    def came() -> bool:
        found.clear()
        for file in day.files(folder / "history") if (folder / "history").exists() else ():
            connection = day.connect(file)
            known = {number: decode(text) for number, text in connection.execute("SELECT * FROM settings")}
            for number, client, packed in connection.execute("SELECT id, client, record FROM sessions ORDER BY id"):
                session = read(number >> day.COUNT_BITS, client, packed, None)
                assert session is not None
                settings = known.get(session.settings)
                found.append((read(number >> day.COUNT_BITS, client, packed, settings) or session, settings))
            connection.close()
        return len(found) >= count

    wait_until(came, lambda: f"{count} sessions, have {found}")
    assert len(found) == count
    return found


def deferred(screener: Screener, source: str, greeting: bytes = TEASER + GREETING) -> None:
    with screener.connect(source) as client:
        assert client.read() == greeting
        client.ask(b"EHLO mail.a.test")
        client.ask(b"MAIL FROM:<a@a.test>")
        assert client.ask(b"RCPT TO:<b@b.test>").startswith(b"450")
        client.ask(b"QUIT")


def known(screener: Screener, source: str) -> None:
    client: Client
    with screener.connect(source) as client:
        assert client.read() == FROM_MTA


def test_settings_of_a_reload(start: Start, folder: Path, history: dict[str, Any], dns: FakeDns) -> None:
    """Sessions have the settings with which they began, with the lists' names and the score's parts."""
    dns.zones = {"a.test": listed("127.0.0.2"), "b.test": listed("127.0.0.3")}
    lists = {"resolvers": [dns.endpoint], "sites": ["a.test*2"], "threshold": 3, "action": "enforce"}
    score = {"score": {"helo_not_qualified": 1, "action": "enforce"}}
    screener = start(history, score, {"dnsbl": lists, "greet": {"wait": "2s"}})
    deferred(screener, "127.1.0.9")
    recorded(folder, 1)  # with a.test: a description that is replaced within half a second is never read
    with screener.connect("127.1.0.1") as early:
        screener.line("CONNECT from .127.1.0.1")
        screener.reload({**screener.settings, "dnsbl": {**screener.settings["dnsbl"], "sites": ["b.test*2"]}})
        assert early.read() == TEASER + GREETING
        early.ask(b"HELO pc")
        early.ask(b"MAIL FROM:<>")
        assert early.ask(b"RCPT TO:<b@b.test>").startswith(b"550 5.7.1")
        early.ask(b"QUIT")
    deferred(screener, "127.1.0.2")
    _, (first, before), (second, after) = recorded(folder, 3)
    assert before is not None
    assert after is not None
    assert (before.lists, after.lists) == (("a.test",), ("b.test",))
    assert [(answer.name, answer.state, answer.addresses) for answer in first.lists + second.lists] == [
        ("a.test", "listed", ("127.0.0.2",)),
        ("b.test", "listed", ("127.0.0.3",)),
    ]
    assert (first.outcome, first.score, first.parts) == ("rejected", 3, {"dnsbl": 2, "helo_not_qualified": 1})
    assert (second.outcome, second.score, second.parts) == ("deferred", 2, {"dnsbl": 2})
    assert 0 < second.began < second.ended
    assert first.worker == 1


def test_known_clients_of_a_reload(start: Start, folder: Path, history: dict[str, Any]) -> None:
    screener = start(history, {"greet": {"banner": ""}}, DEEP)
    deferred(screener, "127.1.0.1", GREETING)
    known(screener, "127.1.0.1")
    recorded(folder, 2)
    for sample, expected in (("none", 2), ("sample 1/4", 3)):
        screener.reload({**screener.settings, "history": {**history["history"], "known": sample}})
        for _ in range(5):
            known(screener, "127.1.0.1")
        found = recorded(folder, expected)
    assert [session.weight for session, _ in found] == [1, 1, 4]
    assert set(found[-1][0].marks) == {"cached", "passed"} <= set(HISTORY_MARKS)


def test_tls(start: Start, folder: Path, history: dict[str, Any]) -> None:
    tls = {"tls": {"level": "may", "certificates": certificates(folder)}}
    screener = start(history, {"greet": {"banner": ""}}, DEEP, tls)
    for source, version in (("127.1.0.2", ssl.TLSVersion.TLSv1_2), ("127.1.0.3", ssl.TLSVersion.TLSv1_3)):
        with screener.connect(source) as client:
            assert client.read() == GREETING
            begin(client)
            secure(client, minimum_version=version, maximum_version=version)
            client.ask(b"EHLO in.tls")
            client.ask(b"QUIT")
        screener.line(f"postfix/postscreen.*DISCONNECT {client.pattern}")
    with screener.connect("127.1.0.4") as client:
        assert client.read() == GREETING
        begin(client)
        client.send(b"no handshake\r\n")
        client.read_all()
    found = {session.address: (session.tls, session.helo, session.commands) for session, _ in recorded(folder, 3)}
    assert found == {
        "127.1.0.2": ("1.2", b"in.tls", 4),
        "127.1.0.3": ("1.3", b"in.tls", 4),
        "127.1.0.4": ("failed", b"me.example", 2),
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_loses_nothing(start: Start, folder: Path, history: dict[str, Any], workers: int) -> None:
    """The daemon ends while clients wait: they are told so, and are recorded."""
    screener = start(history, {"greet": {"wait": "60s"}, "listen": {"workers": workers}})
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 21)]
    wait_until(lambda: len(screener.lines("CONNECT from")) == 20, "the clients")
    screener.stop()
    for client in clients:
        client.socket.close()
    found = recorded(folder, 20)
    assert {session.outcome for session, _ in found} == {"left"}
    assert {session.worker for session, _ in found} == set(range(1, workers + 1))
