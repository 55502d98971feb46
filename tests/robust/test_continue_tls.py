"""Continue after STARTTLS: the MTA gets the commands sent inside TLS, and the client the replies of the MTA."""

import contextlib
import os
import re
import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from robust.conftest import Start
from robust.harness import GREETING, Client, Screener, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_continue_refused import Refusing, goes_on
from robust.tlsclient import begin, certificates, secure

REFUSED = b"452 4.3.1 Insufficient system storage"
OFFER = ProxyMta.OFFER.removesuffix(b"\r\n")


@pytest.fixture
def settings(folder: Path) -> dict[str, Any]:
    """STARTTLS without a greet wait, all deep tests."""
    return {
        "deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"},
        "greet": {"banner": ""},
        "tls": {"level": "may", "certificates": certificates(folder)},
    }


def to(mta: ProxyMta) -> dict[str, Any]:
    return {"handoff": {"continue_to": [mta.target]}}


def secured(screener: Screener) -> Client:
    client = screener.connect()
    assert client.read() == GREETING
    begin(client)
    secure(client)
    return client


def going_on(screener: Screener) -> Client:
    """A client in TLS whose RCPT the MTA has answered."""
    client = secured(screener)
    assert b"STARTTLS" not in client.ask(b"EHLO inside.test")
    assert client.ask(b"MAIL FROM:<a@client.test>") == b"250 2.1.0 Ok\r\n"
    assert client.ask(b"RCPT TO:<b@here.test>") == b"250 2.1.5 Ok\r\n"
    return client


def asked(connection: Connection) -> None:
    """The MTA's side up to RCPT."""
    connection.send(b"220 mta ESMTP\r\n")
    connection.expect(b"EHLO inside.test", OFFER)
    connection.expect(b"MAIL FROM:<a@client.test>", b"250 2.1.0 Ok")
    connection.expect(b"RCPT TO:<b@here.test>", b"250 2.1.5 Ok")


def tls_pid(screener: Screener) -> int:
    (pid,) = (pid for pid in screener.workers() if Path(f"/proc/{pid}/comm").read_text().strip() == "fastscreen-tls")
    return pid


@pytest.mark.parametrize("level", ["may", "encrypt"])
def test_decrypted_session_is_relayed(start: Start, settings: dict[str, Any], level: str) -> None:
    """A message larger than any buffer arrives unchanged; TLS is closed properly at the end."""
    message = b"Subject: x\r\n\r\n" + bytes(range(256)) * 20_000 + b"\r\n.\r\n"
    got: list[bytes] = []
    clients: list[tuple[str, int] | None] = []

    def serve(connection: Connection, _: int) -> None:
        clients.append(connection.client)
        asked(connection)
        connection.expect(b"DATA", b"354 go")
        data = b""
        while len(data) < len(message):
            data += connection.socket.recv(1 << 20)
        got.append(data)
        connection.send(b"250 " + b"q" * 200_000 + b"\r\n")
        connection.expect(b"QUIT", b"221 bye from the MTA")

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta), {"tls": {"level": level}})
        with going_on(screener) as client:
            own = client.socket.getsockname()
            assert client.ask(b"DATA") == b"354 go\r\n"
            client.send(message)
            assert client.read() == b"250 " + b"q" * 200_000 + b"\r\n"
            assert client.ask(b"QUIT") == b"221 bye from the MTA\r\n"
            assert client.read() == b""  # with close_notify: read_all and read raise without
            target = re.escape(mta.target.removeprefix("proxy:"))
            screener.line(rf"]: CONTINUE from {client.pattern} to {target}: 250 2\.1\.5 Ok$")
            screener.line(rf"]: PASS NEW {client.pattern}$")
        screener.line(rf"tlsproxy\[\d+\]: DISCONNECT {client.pattern}$")
        assert got == [message]
        assert clients == [own]


def test_what_was_said_before_tls_is_not_played(start: Start, settings: dict[str, Any]) -> None:
    """An attacker could have sent the commands before TLS (RFC 3207 4.2), so EHLO and MAIL are discarded."""
    heard: list[bytes] = []

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta ESMTP\r\n")
        with contextlib.suppress(EOFError):
            while True:
                heard.append(connection.line())
                connection.send(b"250 ok\r\n")

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with screener.connect() as client:
            assert client.read() == GREETING
            client.ask(b"EHLO forged.test")
            assert client.ask(b"MAIL FROM:<forged@client.test>") == b"250 2.1.0 Ok\r\n"
            assert client.ask(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
            secure(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"503 5.5.1 Error: need MAIL command\r\n"
            assert client.ask(b"MAIL FROM:<a@client.test>") == b"250 2.1.0 Ok\r\n"
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 ok\r\n"
        wait_until(lambda: len(heard) == 2, lambda: repr(heard))
        assert heard == [b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@here.test>"]


@pytest.mark.parametrize("how", ["reset", "cut", "told"])
def test_a_client_that_leaves_in_the_middle_of_a_message(start: Start, settings: dict[str, Any], how: str) -> None:
    """The MTA sees the end after the received data, without a final dot."""
    rest: list[bytes] = []

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.expect(b"DATA", b"354 go")
        connection.socket.settimeout(20)
        rest.append(connection.rest())

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with going_on(screener) as client:
            assert client.ask(b"DATA") == b"354 go\r\n"
            client.send(b"half a mess")
            if how == "reset":
                client.reset()
            elif how == "cut":
                client.socket.shutdown(socket.SHUT_RDWR)  # no close_notify
            else:
                assert isinstance(client.socket, ssl.SSLSocket)
                with contextlib.suppress(OSError):
                    client.socket.unwrap()
            wait_until(lambda: bool(rest), "the MTA's end")
            screener.line(rf"tlsproxy\[\d+\]: DISCONNECT {client.pattern}$")
        assert rest[0] in ([b"half a mess"] if how != "reset" else [b"half a mess", b""])


def test_an_mta_that_hangs_up(start: Start, settings: dict[str, Any]) -> None:
    """The last data arrives, and TLS is closed properly."""

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.expect(b"DATA", b"421 4.3.0 " + b"x" * 100_000)

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with going_on(screener) as client:
            client.send(b"DATA\r\n")
            assert client.read_all() == b"421 4.3.0 " + b"x" * 100_000 + b"\r\n"
        screener.line(rf"tlsproxy\[\d+\]: DISCONNECT {client.pattern}$")


def test_an_mta_that_stops_reading_stops_the_client(start: Start, settings: dict[str, Any]) -> None:
    """Through both processes. When it continues to read, no data is missing."""
    go_on = threading.Event()
    total = [0]

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.expect(b"DATA", b"354 go")
        assert go_on.wait(60)
        total[0] = len(connection.rest())

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        before = screener.status("VmRSS")
        with going_on(screener) as client:
            assert client.ask(b"DATA") == b"354 go\r\n"
            client.socket.settimeout(1.0)
            sent, most = 0, 100_000_000
            with contextlib.suppress(TimeoutError):
                while sent < most:
                    sent += client.socket.send(bytes(16384))
            assert sent < most
            assert screener.status("VmRSS") < before + 20_000
            go_on.set()
            client.socket.settimeout(20)
            client.socket.shutdown(socket.SHUT_WR)
            wait_until(lambda: total[0] > 0, "the rest")
        # The record that was under way when time was up may or may not have been sent whole.
        assert sent <= total[0] <= sent + 16384


def test_a_client_that_stops_reading_stops_the_mta(start: Start, settings: dict[str, Any]) -> None:
    sent = [0]
    stuck = threading.Event()

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.expect(b"NOOP", b"250 ok")
        connection.socket.settimeout(1.0)
        try:
            while sent[0] < 100_000_000:
                sent[0] += connection.socket.send(bytes(16384))
        except TimeoutError:
            stuck.set()

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with going_on(screener) as client:
            client.send(b"NOOP\r\n")
            assert stuck.wait(60)
            got = 0
            while data := client.socket.recv(1 << 16):
                got += len(data)
            assert got == sent[0] + len(b"250 ok\r\n")


def test_a_tls_process_that_dies(start: Start, settings: dict[str, Any]) -> None:
    """In the middle of a message: the client is disconnected, the MTA sees no final dot, and others continue."""
    rest: list[bytes] = []

    def serve(connection: Connection, number: int) -> None:
        asked(connection)
        connection.expect(b"DATA", b"354 go")
        if number == 0:
            rest.append(connection.rest())

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with going_on(screener) as client:
            assert client.ask(b"DATA") == b"354 go\r\n"
            client.send(b"half a mess")
            pid = tls_pid(screener)
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                assert client.socket.recv(100) == b""
            wait_until(lambda: bool(rest), "the MTA's end")
            assert rest[0] in (b"half a mess", b"")
            screener.line(r": tls is process \d+ now$")
        with going_on(screener) as client:
            assert client.ask(b"DATA") == b"354 go\r\n"


def test_relayed_mail_in_tls_may_finish_at_sigterm(start: Start, settings: dict[str, Any]) -> None:
    """The TLS process outlives the worker, and the client gets the last reply of the MTA."""
    got: list[bytes] = []

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.expect(b"DATA", b"354 go")
        got.append(connection.line())
        connection.expect(b".", b"250 queued")
        connection.expect(b"QUIT", b"221 bye from the MTA")

    with ProxyMta(serve) as mta:
        screener = start(settings, to(mta))
        with going_on(screener) as client:
            assert client.ask(b"DATA") == b"354 go\r\n"
            screener.signal(signal.SIGTERM)
            screener.line(": stopping: clients in hand may finish$")
            client.send(b"mail\r\n.\r\n")
            assert client.read() == b"250 queued\r\n"
            client.send(b"QUIT\r\n")
            assert client.read_all() == b"221 bye from the MTA\r\n"
        assert screener.wait() == 0
        assert got == [b"mail"]
        assert [line for line in screener.lines(f"DISCONNECT {client.pattern}") if "tlsproxy" in line]


def test_no_mta_in_tls(start: Start, settings: dict[str, Any]) -> None:
    """A 450 reply instead, and the session continues."""
    with ProxyMta(lambda connection, _: None) as mta:
        screener = start(settings, to(mta))
        with secured(screener) as client:
            client.ask(b"EHLO inside.test")
            client.ask(b"MAIL FROM:<a@client.test>")
            assert client.ask(b"RCPT TO:<b@here.test>") == b"450 4.3.2 Service currently unavailable\r\n"
            client.send(b"QUIT\r\n")
            assert client.read_all() == b"221 2.0.0 Bye\r\n"
            screener.line(rf"CONTINUE from {client.pattern} failed: ")


def test_a_refused_mail(start: Start, settings: dict[str, Any]) -> None:
    with ProxyMta(Refusing(REFUSED)) as mta:
        screener = start(settings, to(mta))
        with secured(screener) as client:
            client.ask(b"EHLO client.test")
            client.ask(b"MAIL FROM:<a@client.test>")
            for _ in range(3):
                assert client.ask(b"RCPT TO:<b@here.test>") == REFUSED + b"\r\n"
            goes_on(client)


def test_starttls_after_a_refused_mail(start: Start, settings: dict[str, Any]) -> None:
    """It forgets the transaction on both sides (RFC 3207 4.2)."""
    with ProxyMta(Refusing(REFUSED)) as mta:
        screener = start(settings, to(mta))
        with screener.connect() as client:
            client.read()
            client.ask(b"EHLO client.test")
            client.ask(b"MAIL FROM:<a@client.test>")
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSED + b"\r\n"
            assert client.ask(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
            secure(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"503 5.5.1 Error: need MAIL command\r\n"
            client.ask(b"EHLO client.test")
            goes_on(client)
