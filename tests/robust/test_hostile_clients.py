"""Hostile clients must not crash, hang, grow or confuse fastscreen, and their text is escaped in the log."""

import contextlib
import re
import socket
import time

import pytest

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, TEASER, TIMEOUT, Client, Screener, wait_until

DEEP = {"deep": {"pipelining": "ignore", "non_smtp_command": "ignore", "bare_newline": "ignore"}}
NEIGHBOUR = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.7.7"]}}


def greeted(screener: Screener, source: str = "127.1.0.1") -> Client:
    """A client that was silent as it should be and has its 220."""
    return greeted_many(screener, [source])[0]


def greeted_many(screener: Screener, sources: list[str], receive_buffer: int = 0) -> list[Client]:
    clients = [screener.connect(source, receive_buffer=receive_buffer) for source in sources]
    for client in clients:
        assert client.read() == TEASER + GREETING
    return clients


def served(screener: Screener) -> None:
    """A known client is handed off without delay."""
    with screener.connect("127.7.7.7") as neighbour:
        assert neighbour.read() == FROM_MTA


def raw_controls(screener: Screener) -> list[bytes]:
    """Lines of the log with a byte in them that a terminal might obey."""
    bad = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|[\x80-\xbf](?<![\xc2-\xf4][\x80-\xbf])")
    return [line for line in screener.text().split(b"\n") if bad.search(line) or b"\x1b" in line]


@pytest.mark.parametrize("octet", [b"A", b"\r", b"\0", b" ", b"\xff", b"\x1b"])
def test_endless_line_ends_with_a_length_limit(start: Start, octet: bytes) -> None:
    screener = start(DEEP, NEIGHBOUR)
    with greeted(screener) as client:
        sent = 0
        try:
            while sent < 4_000_000:
                client.socket.send(octet * 4000)
                sent += 4000
        except OSError:
            pass
        screener.line(rf"COMMAND LENGTH LIMIT from {client.pattern} after CONNECT")
        screener.line(rf"DISCONNECT {client.pattern}")
        assert sent < 4_000_000
    served(screener)


def test_line_in_single_bytes_meets_the_same_limit(start: Start) -> None:
    screener = start(DEEP, {"engine": {"line_length_limit": 512}})
    with greeted(screener) as client:
        for _ in range(512):
            client.send(b"\r")
        time.sleep(0.05)
        assert client.silent()
        client.send(b"\r")
        assert client.read() == b"421 mx.example.test Service unavailable - try again later\r\n"
        assert client.read() == b""


ESCAPES = [
    b"\x1b]0;x\x07",
    b"\x1b[2J",
    b"\x9b2J",
    "\x9b2J\x85\x90q\x9c".encode(),
    b"\x7f\x08\x0b\x0c\x01",
    b"a\xc2",
    b"\xed\xa0\x80\xf5\x80\x80\x80",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_byte_of_an_escape_reaches_the_log(start: Start, escape: bytes) -> None:
    """Each place where the log quotes a client: helo, addresses, words, early bytes, the bytes behind a command."""
    screener = start(DEEP)
    with greeted(screener) as client:
        client.ask(b"EHLO " + escape)
        client.ask(b"MAIL FROM:<" + escape + b'"' + escape + b"@" + escape + b">")
        assert client.ask(b"RCPT TO:<" + escape + b">").startswith(b"450 ")
        client.send(b"NOOP " + escape + b"\n")
        client.read()
        client.ask(b"X" + escape + b": " + escape)
        client.ask(escape + b" " + escape)
        client.send(b"NOOP" + escape + b"\r\nNOOP " + escape + b"\r\n")
        client.read()
        client.read()
        client.ask(b"QUIT")
    with screener.connect("127.1.0.2") as early:
        early.send(escape)
        screener.line(rf"PREGREET \d+ after \S+ from {early.pattern}: ")
    screener.line(rf"HANGUP after \S+ from {early.pattern}")
    for said in ("NOQUEUE: reject: RCPT", "BARE NEWLINE", "NON-SMTP COMMAND", "COMMAND PIPELINING", "PREGREET"):
        screener.line(said)
    assert raw_controls(screener) == []
    assert all(len(line) < 2200 for line in screener.text().split(b"\n"))


def test_half_closed_at_every_stage(start: Start) -> None:
    screener = start(DEEP, NEIGHBOUR)
    with screener.connect() as at_once:
        at_once.half_close()
        screener.line(rf"HANGUP after \S+ from {at_once.pattern} in tests before SMTP handshake")
    with screener.connect() as waiting:
        assert waiting.socket.recv(1000) == TEASER
        waiting.half_close()
        screener.line(rf"HANGUP after \S+ from {waiting.pattern} in tests before SMTP handshake")
    with greeted(screener) as after_banner:
        after_banner.half_close()
        screener.line(rf"HANGUP after \S+ from {after_banner.pattern} in tests after SMTP handshake")
    with greeted(screener) as in_a_line:
        in_a_line.send(b"EHLO unfinish")
        in_a_line.half_close()
        screener.line(rf"HANGUP after \S+ from {in_a_line.pattern} in tests after SMTP handshake")
        assert in_a_line.read() == b""
    with greeted(screener) as commands:
        commands.send(b"EHLO me\r\nMAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\n")
        commands.half_close()
        assert b"\r\n250 2.1.0 Ok\r\n450 4.3.2 " in commands.read_all()
        screener.line(rf"DISCONNECT {commands.pattern}")
    served(screener)


@pytest.mark.parametrize("stage", ["at once", "greet wait", "early talk", "banner", "in a line", "after RCPT"])
def test_reset_at_every_stage(start: Start, stage: str) -> None:
    screener = start(DEEP, NEIGHBOUR)
    before = screener.descriptors()
    clients = [screener.connect(f"127.1.1.{number}") for number in range(1, 21)]
    for client in clients:
        if stage != "at once":
            assert client.socket.recv(len(TEASER)) == TEASER
        if stage == "early talk":
            client.send(b"EHLO early\r\n")
        if stage in ("banner", "in a line", "after RCPT"):
            assert client.read() == GREETING
        if stage == "in a line":
            client.send(b"EHLO unfini")
        if stage == "after RCPT":
            client.ask(b"EHLO me")
            client.ask(b"MAIL FROM:<a@example.test>")
            assert client.ask(b"RCPT TO:<b@example.test>").startswith(b"450 ")
    for client in clients:
        client.reset()
    for client in clients:
        screener.line(rf"DISCONNECT {client.pattern}")
    # Only behind RCPT has a client passed all that it needs.
    assert len(screener.lines("PASS NEW")) == (20 if stage == "after RCPT" else 0)
    served(screener)
    wait_until(lambda: screener.descriptors() == before, "the descriptors of the clients that left")


def test_client_that_never_reads(start: Start) -> None:
    """Its replies are kept up to a bound and then lost; it costs others nothing."""
    screener = start({"deep": {"non_smtp_command": "ignore"}}, NEIGHBOUR, {"engine": {"command_count_limit": 1000000}})
    clients = greeted_many(screener, [f"127.1.2.{number}" for number in range(1, 9)], receive_buffer=1)
    before = screener.status("RssAnon")
    command = b"EHLO " + b"x" * 200 + b"\r\n"
    for client in clients:
        client.socket.settimeout(0.2)
        try:
            for _ in range(200):
                client.socket.send(command * 100)
        except TimeoutError:
            pass
    served(screener)
    assert not screener.lines("HANGUP")
    # 64 KiB of replies a client, some for what is read at once, and air.
    assert screener.status("RssAnon") - before < 8 * 96 + 1024
    for client in clients:
        client.socket.close()
    for client in clients:
        screener.line(rf"DISCONNECT {client.pattern}")
    served(screener)


def test_connections_of_one_client_above_the_limit(start: Start) -> None:
    """A limit of N means N: 50 are served, the 51st is rejected; other clients are served meanwhile."""
    screener = start(DEEP, NEIGHBOUR, {"limits": {"client_connection_count": 50}})
    clients = [screener.connect("127.1.3.1") for _ in range(50)]
    screener.line(r"CONNECT from \[127\.1\.3\.1\]", 50)
    with screener.connect("127.1.3.1") as extra:
        assert extra.read() == b"421 4.7.0 Error: too many connections\r\n"
        screener.line(rf"NOQUEUE: reject: CONNECT from {extra.pattern}: too many connections")
        screener.line(rf"DISCONNECT {extra.pattern}")
    served(screener)
    assert clients[0].read() == TEASER + GREETING
    assert clients[0].ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    screener.line(rf"DISCONNECT {clients[0].pattern}")
    with screener.connect("127.1.3.1") as again:
        assert again.read() == GREETING  # the others' pregreet pass is this one's too
    for client in clients:
        client.socket.close()


def test_flood_of_pipelined_commands(start: Start, mta: FakeMta) -> None:
    """Many clients that send endlessly: every session ends at its command limit, and others are served meanwhile."""
    screener = start({"deep": {"pipelining": "ignore"}}, NEIGHBOUR)
    flood = b"RSET\r\n" * 5000
    clients = greeted_many(screener, [f"127.1.4.{number}" for number in range(1, 41)])
    for client in clients:
        client.socket.setblocking(False)
        with contextlib.suppress(OSError):
            client.socket.send(flood)
    served(screener)
    for client in clients:
        screener.line(rf"COMMAND COUNT LIMIT from {client.pattern} after RSET")
        screener.line(rf"DISCONNECT {client.pattern}")
        client.socket.close()
    assert len(screener.lines("COMMAND PIPELINING")) == 40
    served(screener)


@pytest.mark.parametrize("action", ["ignore", "enforce", "drop"])
def test_flood_in_the_greet_wait(start: Start, mta: FakeMta, action: str) -> None:
    """Megabytes before the banner: one line in the log, no more of it is read than the tests need."""
    screener = start(NEIGHBOUR, {"greet": {"wait": "2s", "action": action}})
    before = screener.status("RssAnon")
    with screener.connect() as client:
        client.socket.settimeout(0.3)
        try:
            for _ in range(500):
                client.socket.send(b"\0" * 65536)
        except OSError:
            pass
        line = screener.line(rf"PREGREET \d+ after \S+ from {client.pattern}: ")
        assert line.endswith(": " + "\\000" * 25)
        served(screener)
        if action == "ignore":
            wait_until(lambda: len(mta.early) == 1, "the hand-off")
    assert screener.status("RssAnon") - before < 1024
    if action != "ignore":
        screener.line(rf"DISCONNECT {client.pattern}")


def test_command_limit_beyond_16_bits_still_ends_the_session(start: Start) -> None:
    screener = start({"engine": {"command_count_limit": 70000}, "deep": {"pipelining": "ignore"}})
    with greeted(screener) as client:
        client.socket.settimeout(60)
        for _ in range(71):
            client.send(b"RSET\r\n" * 1000)
            for _ in range(1000):
                if not client.read():
                    break
        screener.line(rf"COMMAND COUNT LIMIT from {client.pattern} after RSET")


def test_last_word_arrives_before_the_reset(start: Start) -> None:
    """last-word-arrives: also when the teaser is not acknowledged yet, as over any distance."""
    screener = start({"greet": {"action": "drop"}})
    for number in range(1, 21):
        with socket.socket() as client:
            client.bind((f"127.1.3.{number}", 0))
            client.connect(screener.address)
            client.settimeout(TIMEOUT)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            client.sendall(b"EHLO early\r\n")
            screener.line(rf"DISCONNECT \[127\.1\.3\.{number}\]")
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(1000):
                    got += data
            assert got == TEASER + b"521 5.5.1 Protocol error\r\n"
