"""The connection to a server that may send anything: bounded, never stuck, and no reply goes to another command."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fastscreen.cluster import files, link
from fastscreen.cluster.files import Files
from fastscreen.cluster.link import StoreError
from fastscreen.cluster.records import VALUE_MAX
from fastscreen.cluster.servers import Servers
from fastscreen.cluster.store import Backoff, HostEntry, Store, Write
from fastscreen.config.model import ClusterConfig
from fastscreen.config.server_url import ServerUrl

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
FILES: Files = files.parse(ClusterConfig(secret_file="S"), b"0123456789abcdef")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TIMEOUT", 0.3)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.3)


def run(work: Callable[[str], Coroutine[Any, Any, None]], serve: Serve) -> None:
    """Run with a server that talks as `serve` does; the argument is its URL."""

    async def main() -> None:
        clients: set[asyncio.Task[Any]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            clients.add(task)
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                clients.discard(task)
                writer.close()

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s"
            server = await asyncio.start_unix_server(accept, str(path))
            try:
                await asyncio.wait_for(work(f"unix://{path}"), 10)
            finally:
                server.close()
                for task in list(clients):
                    task.cancel()
                await asyncio.gather(*clients, return_exceptions=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    head = await reader.readline()
    if not head:
        raise asyncio.IncompleteReadError(b"", 1)
    count = int(head[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


def talks(answer: Callable[[list[bytes]], bytes | None]) -> Serve:
    """A server that answers like Redis where `answer` gives None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            words = await read_command(reader)
            reply = answer(words)
            if reply is None:
                match words[0].upper():
                    case b"PING":
                        reply = b"+PONG\r\n"
                    case b"ROLE":
                        reply = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
                    case b"SUBSCRIBE":
                        reply = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
                    case _:
                        reply = b"+OK\r\n"
            writer.write(reply)

    return serve


class Listener:
    def __init__(self) -> None:
        self.ups = 0
        self.why: list[str] = []
        self.values: list[bytes] = []

    def connected(self) -> None:
        self.ups += 1

    def disconnected(self, why: str) -> None:
        self.why.append(why)

    def published(self, value: bytes) -> None:
        self.values.append(value)


class Fixture:
    def __init__(self, url: str) -> None:
        self.listener = Listener()
        cluster = ClusterConfig(server=url)
        self.servers = Servers(cluster, FILES)
        self.store = Store(self.servers, "p:", self.listener, backoff=Backoff(lambda: 0.0))
        self.task = asyncio.create_task(self.store.run())

    async def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 4
        while not condition():
            assert time.monotonic() < end, (self.listener.why, self.listener.ups)
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def of_mget(reply: bytes) -> Serve:
    return talks(lambda words: reply if words[0] == b"MGET" else None)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"nonsense\r\n", "Protocol error"),
        (b"+OK\r\n", "malformed reply"),
        (b":5\r\n", "malformed reply"),
        (b"$-1\r\n", "malformed reply"),
        (b"*1\r\n$1\r\nx\r\n", "malformed reply"),
        (b"*3\r\n$1\r\nx\r\n$-1\r\n$-1\r\n", "malformed reply"),
        (b"*-1\r\n", "malformed reply"),
        (b"*2\r\n$1\r\nx\r\n", "no answer within"),
        (b"$600000000\r\n" + b"x" * 100, "no answer within"),
        (b"$9999999999999999999\r\n", "Bad bulk string length"),
        (b"*1\r\n" * 50, "no answer within"),
        (b"$6000000\r\n" + b"x" * 6_000_000 + b"\r\n", "more than"),
        (b"-MOVED nonsense\r\n", "unpack"),
        (b"-MOVED 5 192.0.2.1:7\r\n", "192.0.2.1"),
        (b"-READONLY You can't write\r\n", "You can't write"),
        (b"-LOADING data\r\n", "is still loading its data"),
        (b"-NOAUTH \x1b[31mred\r\n", "refuses the user or the password: \\x1b[31mred"),
        (b"", "no answer within"),
    ],
)
def test_a_reply_that_is_not_one(reply: bytes, problem: str) -> None:
    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        with pytest.raises(StoreError) as caught:
            await fixture.store.get([b"a", b"b"])
        assert str(caught.value).isprintable()
        await fixture.wait(lambda: fixture.listener.why)
        assert problem in fixture.listener.why[0], fixture.listener.why
        await fixture.wait(lambda: fixture.listener.ups == 2)
        await fixture.close()

    run(work, of_mget(reply))


def test_values_that_cannot_be_records_are_ignored() -> None:
    long = b"x" * (VALUE_MAX + 1)
    reply = b"*5\r\n:5\r\n$513\r\n" + long + b"\r\n*0\r\n$2\r\nok\r\n$-1\r\n"

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        assert await fixture.store.get([b"a"] * 5) == [None, None, None, b"ok", None]
        assert fixture.store.oversized == 3
        await fixture.close()

    run(work, of_mget(reply))


def test_a_cancelled_look_up_leaves_its_reply_to_nobody() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        usual = talks(lambda words: None)
        first = await read_command(reader)
        await asyncio.sleep(0)
        if first[0] == b"CLIENT":
            writer.write(b"+OK\r\n")
        while True:
            words = await read_command(reader)
            if words[0] == b"MGET":
                await asyncio.sleep(0.1)
                writer.write(b"*1\r\n$%d\r\n%b\r\n" % (len(words[1]), words[1]))
            else:
                feed = asyncio.StreamReader()
                feed.feed_data(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
                feed.feed_eof()
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await usual(feed, writer)

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        for number in range(5):
            task = asyncio.create_task(fixture.store.get([b"cancelled%d" % number]))
            await asyncio.sleep(0.01 * number)
            task.cancel()
            after = asyncio.create_task(fixture.store.get([b"after%d" % number]))
            assert await after == [b"p:after%d" % number]
            assert task.cancelled()
        assert fixture.listener.ups == 1
        await fixture.close()

    run(work, serve)


def test_a_reply_that_nobody_asked_for() -> None:
    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        assert await fixture.store.get([b"a"]) == [b"x"]
        await fixture.wait(lambda: fixture.listener.why)
        assert "a reply to no command" in fixture.listener.why[0]
        await fixture.close()

    run(work, of_mget(b"*1\r\n$1\r\nx\r\n" * 2))


def test_messages_that_are_no_deletions() -> None:
    value = b"v" * 20
    messages = [
        b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$20\r\n" + value + b"\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n:7\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$600\r\n" + b"x" * 600 + b"\r\n",
        b"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"-ERR something\r\n",
    ]
    first = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: len(fixture.listener.values) == 500)
        assert set(fixture.listener.values) == {value}
        assert fixture.store.is_connected
        assert fixture.store.oversized == 1000
        await fixture.close()

    run(work, talks(lambda words: first + b"".join(messages) * 500 if words[0] == b"SUBSCRIBE" else None))


def test_a_server_that_accepts_and_is_silent() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work(url: str) -> None:
        started = time.monotonic()
        fixture = Fixture(url)
        await fixture.wait(lambda: len(fixture.listener.why) >= 2)
        assert time.monotonic() - started < 3
        assert "no answer" in fixture.listener.why[0]
        with pytest.raises(StoreError, match="no answer"):
            await fixture.store.get([b"a"])
        await fixture.close()

    run(work, serve)


def test_no_server() -> None:
    async def work(url: str) -> None:
        fixture = Fixture(url + "x")
        await fixture.wait(lambda: len(fixture.listener.why) >= 2)
        assert "No such file" in fixture.listener.why[0]
        assert fixture.store.status().problem == fixture.listener.why[0]
        await fixture.close()

    run(work, talks(lambda words: None))


@pytest.mark.parametrize("reply", [b":1\r\n", b"*1\r\n:1\r\n", b"*2\r\n$1\r\nx\r\n:1\r\n", b"*0\r\n", b"$-1\r\n"])
def test_malformed_replies_to_other_commands(reply: bytes) -> None:
    async def work(url: str) -> None:
        fixture = Fixture(url)
        for call in (
            lambda: fixture.store.put([Write(b"n", b"v" * 10, False)], 10, "mx1", HostEntry()),
            lambda: fixture.store.hosts(),
            lambda: fixture.store.add_deletion(b"v", [], 10, 10),
            lambda: fixture.store.deletions(10),
        ):
            await fixture.wait(lambda: fixture.store.is_connected)
            with contextlib.suppress(StoreError):
                await call()
        assert not fixture.task.done()
        await fixture.close()

    run(work, talks(lambda words: None if words[0] in (b"PING", b"ROLE", b"SUBSCRIBE", b"CLIENT") else reply))


def test_hosts_with_impossible_times_are_ignored() -> None:
    entries = {
        b"mx1": b'{"time": 1700000000.5, "version": "1.0"}',
        b"late": b'{"time": 1e308}',
        b"early": b'{"time": -1}',
        b"large": b'{"acknowledged": 4294967296}',
        b"wrong": b'{"deleted": 1e999}',
    }
    words = [word for entry in entries.items() for word in entry]

    def answer(words_of: list[bytes]) -> bytes | None:
        match words_of[0]:
            case b"HLEN":
                return b":%d\r\n" % len(entries)
            case b"HGETALL":
                return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        return None

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        assert set(await fixture.store.hosts()) == {"mx1"}
        await fixture.close()

    run(work, talks(answer))


def test_a_server_whose_time_is_no_number_of_ours() -> None:
    asked = 0

    def answer(words: list[bytes]) -> bytes | None:
        nonlocal asked
        if words[0] != b"TIME":
            return None
        asked += 1
        return None if asked == 1 else b"*2\r\n$400\r\n" + b"9" * 400 + b"\r\n$1\r\n0\r\n"

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        with pytest.raises(StoreError, match="malformed reply"):
            await fixture.store.server_time()
        await fixture.close()

    run(work, talks(answer))


def test_a_subscription_without_a_sign_of_life() -> None:
    """The other connections may work while that one is dead."""
    silent = False

    def answer(words: list[bytes]) -> bytes | None:
        return b"" if silent and words == [b"PING"] else None

    async def work(url: str) -> None:
        nonlocal silent
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)
        messages = fixture.store._messages
        assert messages is not None
        for _ in range(3):
            await fixture.store.keep_alive()
            await fixture.wait(lambda: not messages._awaits_sign)
        silent = True
        messages.ping_subscription()
        await asyncio.sleep(0.05)
        assert fixture.listener.why == []
        messages.ping_subscription()
        await fixture.wait(lambda: fixture.listener.why)
        assert "no sign of life" in fixture.listener.why[0]
        await fixture.close()

    run(work, talks(answer))


def test_another_server_has_taken_over() -> None:
    """The old one may still be there, and believe that it is the primary."""

    async def work(url: str) -> None:
        fixture = Fixture(url)
        await fixture.wait(lambda: fixture.store.is_connected)

        class Sentinels:
            has_sentinels = True
            link = fixture.servers.link

            def __init__(self) -> None:
                self.says: list[ServerUrl] = []

            async def find(self) -> list[ServerUrl]:
                if not self.says:
                    raise StoreError("no Sentinel knows the server")
                return self.says

        sentinels = Sentinels()
        fixture.store._servers = sentinels  # type: ignore[assignment]
        await fixture.store.keep_alive()
        assert fixture.store.is_connected, "without Sentinels the server is as good as before"
        sentinels.says = [ServerUrl(path="/another"), ServerUrl(path=url.removeprefix("unix://"))]
        await fixture.store.keep_alive()
        assert fixture.store.is_connected, "they do not agree"
        sentinels.says = [ServerUrl(path="/another")]
        await fixture.store.keep_alive()
        await fixture.wait(lambda: fixture.listener.why)
        assert "another server has taken over" in fixture.listener.why[0]
        await fixture.close()

    run(work, talks(lambda words: None))


def test_pauses_between_attempts_grow_and_differ() -> None:
    longest = Backoff(lambda: 1.0)
    assert [round(longest.pause(), 2) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    longest.reset()
    assert longest.pause() == 0.1
    shortest = Backoff(lambda: 0.0)
    assert [round(shortest.pause(), 2) for _ in range(8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]
