"""Clients that use STARTTLS, each with a full handshake: threads of this process, whose CPU is not counted."""

import ipaddress
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

from bench.programs import BenchError
from bench.server import Server

_TIMEOUT = 60  # s
_LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"
_BODY = memoryview(_LINE * 4096)
_END = b"\r\n.\r\n"


class _UnexpectedReply(Exception):
    """The conversation took an unexpected course."""


def load(server: Server, first: str, count: int, concurrent: int, size: int, *, secure: bool) -> float:
    """Run the conversations of `count` clients, whose addresses begin with `first`; return how many seconds they took.

    With a size, each client sends one message of that many bytes. BenchError: a client did not finish.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    base = ipaddress.IPv4Address(first)
    began = time.monotonic()
    with ThreadPoolExecutor(concurrent) as pool:
        sessions = [
            pool.submit(_session, server, str(base + at), size, context if secure else None) for at in range(count)
        ]
        for session in sessions:
            try:
                session.result()
            except (OSError, _UnexpectedReply) as error:
                pool.shutdown(cancel_futures=True)
                raise BenchError(f"{server.name}: a client with STARTTLS: {error}") from None
    return time.monotonic() - began


def _session(server: Server, source: str, size: int, context: ssl.SSLContext | None) -> None:
    with socket.socket() as plain:
        plain.settimeout(_TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.bind((source, 0))
        plain.connect((server.address, server.port))
        _expect(plain, b"220")
        _say(plain, b"EHLO bench.example.test", b"250")
        if context is None:
            _mail(plain, size)
            return
        _say(plain, b"STARTTLS", b"220")
        with context.wrap_socket(plain, do_handshake_on_connect=True) as secured:
            _say(secured, b"EHLO bench.example.test", b"250")
            _mail(secured, size)


def _mail(session: socket.socket, size: int) -> None:
    if size:
        _say(session, b"MAIL FROM:<sender@example.test>", b"250")
        _say(session, b"RCPT TO:<recipient@example.test>", b"250")
        _say(session, b"DATA", b"354")
        left = size - len(_END)
        while left > 0:
            session.sendall(_BODY[:left])
            left -= len(_BODY)
        session.sendall(_END)
        _expect(session, b"250")
    _say(session, b"QUIT", b"221")


def _say(session: socket.socket, line: bytes, code: bytes) -> None:
    session.sendall(line + b"\r\n")
    _expect(session, code)


def _expect(session: socket.socket, code: bytes) -> None:
    """Read one reply; the servers never send more than one at a time."""
    said = b""
    while not said.endswith(b"\n") or said[said.rfind(b"\n", 0, -1) + 1 :][3:4] == b"-":
        got = session.recv(4096)
        if not got:
            raise _UnexpectedReply(f"connection closed after {said!r}")
        said += got
    if not said.startswith(code):
        raise _UnexpectedReply(f"{said!r} instead of {code.decode()}")
