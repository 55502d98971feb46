"""A client in TLS between two pairs of sockets: the test is the client on one side and the screener on the other."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from peers import certificate

from fastscreen.config import default
from fastscreen.tls.context import chains, new_context
from fastscreen.tls.handshake_limiter import TURN_SECONDS, HandshakeLimiter
from fastscreen.tls.session import CHUNK, Session, TlsShared

TIMEOUT = 20.0  # s: a bound on hanging
NAME = "[192.0.2.1]:51234"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key, chain = certificate.make(tmp_path_factory.mktemp("pem"))
    return new_context(default().tls, chains([("key", key.read_bytes()), ("chain", chain.read_bytes())]))


class Lab:
    """One session. `client` and `screener` are sockets of the test, `said` is its log."""

    def __init__(self, server: ssl.SSLContext, places: int = 10, handshake_time: float = TIMEOUT) -> None:
        self.loop = asyncio.get_running_loop()
        self.said: list[str] = []
        self.over = asyncio.Event()
        self.sockets: list[socket.socket] = []
        self.later = 0.0  # s, put on top of the gate's clock
        limiter: HandshakeLimiter[Session] = HandshakeLimiter(
            places, lambda who: self.loop.call_soon(who.begin), lambda: self.later
        )
        buffer = memoryview(bytearray(CHUNK))
        self.failures: list[BaseException] = []
        self.shared = TlsShared(
            self.loop,
            server,
            limiter,
            handshake_time,
            1,
            self.said.append,
            lambda what, error: self.failures.append(error),
            lambda session: self.over.set(),
            buffer,
        )
        self.client, self.screener = self.another()

    def another(self) -> tuple[socket.socket, socket.socket]:
        client, theirs = socket.socketpair()
        screener, plain = socket.socketpair()
        for each in (client, theirs, screener, plain):
            each.setblocking(False)
        # a small window, so that nothing gets through without the other side's reading
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.sockets += [client, screener]
        Session(self.shared, theirs, plain, NAME).start()
        return client, screener

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def run(server: ssl.SSLContext, body: Callable[[Lab], Awaitable[None]], places: int = 10, time: float = 20.0) -> Lab:
    async def whole() -> Lab:
        lab = Lab(server, places, time)
        try:
            await asyncio.wait_for(body(lab), TIMEOUT)
        finally:
            lab.close()
        return lab

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # it works differently: see Session
        return runner.run(whole())


class Client:
    """TLS over one of the lab's sockets."""

    def __init__(self, lab: Lab, end: socket.socket, latest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = latest
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.loop, self.end = lab.loop, end
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    async def flush(self) -> None:
        await self.loop.sock_sendall(self.end, self.outgoing.read())

    async def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self.loop.sock_recv(self.end, 65536))
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), 16384):
            self.tls.write(data[at : at + 16384])
            await self.flush()

    async def read(self, size: int) -> bytes:
        """Read a number of bytes; fewer at the end."""
        data = b""
        while len(data) < size:
            try:
                got = self.tls.read(size - len(data))
                if not got:
                    return data
                data += got
            except ssl.SSLWantReadError:
                came = await self.loop.sock_recv(self.end, 65536)
                if not came:
                    raise ConnectionError("cut off without close_notify") from None
                self.incoming.write(came)
        return data


async def receive(lab: Lab, end: socket.socket, size: int) -> bytes:
    """Read a number of bytes; fewer at the end, which is a reset if sent data is not read."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < size and (got := await lab.loop.sock_recv(end, 65536)):
            data += got
    return data


async def begin(lab: Lab, client: Client, screener: socket.socket | None = None) -> None:
    """Shake hands; the screener is told the version."""
    await client.shake_hands()
    version = await lab.loop.sock_recv(screener or lab.screener, 1)
    assert version == {"TLSv1.2": b"\3", "TLSv1.3": b"\4"}[client.tls.version() or ""]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def readable(end: socket.socket) -> bool:
    return bool(select.select([end], [], [], 0)[0])


def test_older_version(server: ssl.SSLContext) -> None:
    async def body(lab: Lab) -> None:
        client = Client(lab, lab.client, ssl.TLSVersion.TLSv1_2)
        await begin(lab, client)
        await client.send(b"data")
        assert await receive(lab, lab.screener, 4) == b"data"

    assert "TLSv1.2 with cipher" in run(server, body).said[1]


def test_both_directions_at_once(server: ssl.SSLContext) -> None:
    """More than any buffer holds, from both sides at the same time; then the screener closes."""
    there, back = bytes(range(251)) * 4000, bytes(range(253)) * 4000

    async def body(lab: Lab) -> None:
        client = Client(lab, lab.client)
        await begin(lab, client)
        _, _, got, answered = await asyncio.gather(
            client.send(there),
            lab.loop.sock_sendall(lab.screener, back),
            receive(lab, lab.screener, len(there)),
            client.read(len(back)),
        )
        assert got == there
        assert answered == back
        lab.screener.close()
        assert await client.read(1) == b""
        await lab.over.wait()

    said = run(server, body).said
    assert said[0] == f"CONNECT from {NAME}"
    assert said[1].startswith(f"Anonymous TLS connection established from {NAME}: TLSv1.3 with cipher TLS_")
    assert said[2:] == [f"DISCONNECT {NAME}"]


def test_who_does_not_read_is_not_read_from(server: ssl.SSLContext) -> None:
    """What is on its way is bounded in both directions, and nothing of it is lost."""

    async def fill(end: socket.socket) -> int:
        """Send until nothing moves any more; how much it was."""
        sent = idle = 0
        while idle < 500:
            try:
                sent += end.send(bytes(16384))
                idle = 0
            except BlockingIOError:
                idle += 1
            assert sent < 4_000_000
            await asyncio.sleep(0)
        return sent

    async def body(lab: Lab) -> None:
        client = Client(lab, lab.client)
        await begin(lab, client)
        sent = await fill(lab.screener)
        assert len(await client.read(sent)) == sent
        encrypted = 0
        while encrypted < 4_000_000:
            client.tls.write(bytes(16384))
            data = client.outgoing.read()
            try:
                encrypted += lab.client.send(data)
            except BlockingIOError:
                break
            for _ in range(100):
                await asyncio.sleep(0)
        assert 0 < encrypted < 4_000_000
        assert len(await receive(lab, lab.screener, encrypted // 2)) >= encrypted // 2
        lab.screener.close()

    run(server, body)


def test_last_word_behind_what_the_client_still_sends(server: ssl.SSLContext) -> None:
    """The worker sends its last reply and closes, with unread bytes from the client."""

    async def body(lab: Lab) -> None:
        client = Client(lab, lab.client)
        await begin(lab, client)
        await client.send(b"x" * 3000)
        await until(lambda: readable(lab.screener))
        lab.screener.send(b"521 go\r\n")
        lab.screener.close()
        await client.send(b"y" * 3000)
        assert await client.read(8) == b"521 go\r\n"
        assert await client.read(1) == b""
        await lab.over.wait()

    run(server, body)


def test_half_close(server: ssl.SSLContext) -> None:
    """Either side may end its direction and go on reading."""

    async def client_first(lab: Lab) -> None:
        client = Client(lab, lab.client)
        await begin(lab, client)
        await client.send(b"all of it")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.flush()
        assert await receive(lab, lab.screener, 100) == b"all of it"
        await lab.loop.sock_sendall(lab.screener, b"answer")
        lab.screener.shutdown(socket.SHUT_WR)
        assert await client.read(6) == b"answer"
        await lab.over.wait()

    async def screener_first(lab: Lab) -> None:
        client = Client(lab, lab.client)
        await begin(lab, client)
        await lab.loop.sock_sendall(lab.screener, b"answer")
        lab.screener.shutdown(socket.SHUT_WR)
        assert await client.read(100) == b"answer"
        await client.send(b"more")
        assert await receive(lab, lab.screener, 4) == b"more"
        lab.client.close()
        assert await receive(lab, lab.screener, 1) == b""
        await lab.over.wait()

    run(server, client_first)
    run(server, screener_first)


@pytest.mark.parametrize("what", ["garbage", "hangup", "nothing", "half", "farewell"])
def test_handshake_that_fails(server: ssl.SSLContext, what: str) -> None:
    """The screener sees the end in any case."""

    async def body(lab: Lab) -> None:
        if what == "garbage":
            lab.client.send(b"EHLO me\r\n")
        elif what == "hangup":
            lab.client.close()
        elif what == "half":
            client = Client(lab, lab.client)
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.do_handshake()
            lab.client.send(client.outgoing.read()[:100])
        elif what == "farewell":
            lab.screener.send(b"421 too late\r\n")
        assert await receive(lab, lab.screener, 1) == b""
        await lab.over.wait()
        assert lab.shared.limiter.waiting == 0

    said = run(server, body, time=0.01 if what in ("nothing", "half") else TIMEOUT).said
    failed = f"TLS handshake failed for service=smtpd peer={NAME}"
    reasons = [line for line in said if line.startswith(f"SSL_accept error from {NAME}: ")]
    assert len(reasons) == (what in ("garbage", "hangup"))
    assert said == [f"CONNECT from {NAME}", *reasons, failed, f"DISCONNECT {NAME}"]


def test_turns(server: ssl.SSLContext) -> None:
    """With one place, a slow handshake delays others only briefly, and a silent client does not delay them."""

    async def body(lab: Lab) -> None:
        silent, _ = lab.another()
        half, half_screener = lab.another()
        halfway = Client(lab, half)
        with pytest.raises(ssl.SSLWantReadError):
            halfway.tls.do_handshake()
        hello = halfway.outgoing.read()
        half.send(hello[:50])
        await until(lambda: bool(lab.shared.limiter._inside))
        client = Client(lab, lab.client)
        shaking = lab.loop.create_task(client.shake_hands())
        await until(lambda: lab.shared.limiter.waiting == 1)
        lab.shared.limiter.admit()
        assert lab.shared.limiter.waiting == 1
        lab.later = TURN_SECONDS
        lab.shared.limiter.admit()
        await shaking
        half.send(hello[50:])
        halfway.incoming.write(await lab.loop.sock_recv(half, 65536))
        await begin(lab, halfway, half_screener)
        await halfway.send(b"me too")
        assert await receive(lab, half_screener, 6) == b"me too"
        assert silent.fileno() >= 0

    run(server, body, places=1)


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))  # the first one keeps two descriptors for all that follow
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
