"""Clients and MTAs that break off, stop, or talk nonsense at any step, many at a time: nothing is left of them."""

import contextlib
import random
import socket
import struct
import threading

import pytest

from robust.conftest import Start
from robust.harness import TEASER, Screener, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_relay import pipes

SESSIONS = 200
AT_A_TIME = 40
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
DEEP = {"deep": {"pipelining": "ignore", "non_smtp_command": "enforce", "bare_newline": "ignore"}}
STEPS = [b"220 mta\r\n", b"250-mta\r\n250-SIZE 9\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-DSN\r\n250 SMTPUTF8\r\n"]
STEPS += [b"250 ok\r\n", b"250-one\r\n250 two\r\n", b"354 go\r\n", b"250 queued\r\n"]
SAID = [b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"x" * 30_000 + b"\r\n.", b"QUIT"]


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def mishap(dice: random.Random, end: socket.socket, usual: bytes) -> None:
    """Data other than the usual bytes."""
    match dice.randrange(7):
        case 0:
            reset(end)
        case 1:
            end.close()
        case 2:
            end.shutdown(socket.SHUT_WR)
        case 3:
            end.sendall(usual[: dice.randrange(len(usual) + 1)])
            reset(end)
        case 4:
            end.sendall(dice.randbytes(dice.randrange(1, 20_000)))
        case 5:
            for octet in usual[:200]:
                end.sendall(bytes([octet]))
        case 6:
            end.sendall(usual * dice.randrange(2, 50))


def serving(connection: Connection, number: int) -> None:
    with contextlib.suppress(OSError):  # what it broke off itself
        serve(connection, number)


def serve(connection: Connection, number: int) -> None:
    dice = random.Random(f"mta {number}")
    for answer in STEPS:
        if dice.random() < 0.15:
            mishap(dice, connection.socket, answer)
        else:
            connection.send(answer)
        connection.line()
    connection.rest()


def behave(screener: Screener, number: int) -> None:
    dice = random.Random(f"client {number}")
    source = dice.choice(["127.7.0.1", f"127.1.{number // 200}.{number % 200}"])
    with contextlib.suppress(OSError), screener.connect(source) as client:
        client.socket.settimeout(2.0)
        for line in SAID:
            if dice.random() < 0.9:
                client.read()
            if dice.random() < 0.15:
                mishap(dice, client.socket, line + b"\r\n")
            else:
                client.send(line + b"\r\n")
        client.read_all()


@pytest.mark.parametrize("limit", [1000, 3])
def test_nothing_is_left(start: Start, limit: int) -> None:
    """Relayed or continuing, with room for all of them or for three."""
    limits = {"client_connection_count": 0, "relay": limit}
    with ProxyMta(serving) as mta:
        handoff = {"to": mta.target, "continue_to": mta.target, "continue_time_limit": "1s", "relay_idle_limit": "1s"}
        screener = start(KNOWN, DEEP, {"handoff": handoff, "limits": limits, "greet": {"action": "ignore"}})
        wait_until(lambda: mta.locals == 1, "the MTA to be asked what it announces")
        descriptors = used(screener)
        numbers = iter(range(SESSIONS))

        def some() -> None:
            for number in numbers:
                behave(screener, number)

        threads = [threading.Thread(target=some) for _ in range(AT_A_TIME)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: used(screener) <= descriptors, "all sessions to be gone")
        with screener.connect("127.2.0.1") as client:
            assert client.socket.recv(len(TEASER)) == TEASER
        assert screener.lines("CONTINUE from .* to ") or limit < AT_A_TIME
        assert screener.lines("CONTINUE from .* failed: ")


def used(screener: Screener) -> int:
    """Descriptors, but for the pipes that are kept for the next who needs one."""
    return screener.descriptors() - 2 * pipes(screener)
