"""A server that answers anything: well-formed replies of the wrong kind, absurd numbers, errors, RESP3, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import time

import pytest

from fastscreen.cluster import store
from fastscreen.cluster.link import StoreError
from peers.test_cluster_store import KEY, FakeCache, Host, hosts, run, stamps, wait

SEEDS = range(8)
SECONDS = 1.0


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(*items: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def right(command: list[bytes]) -> bytes:
    """As an empty primary."""
    now = time.time()
    match command[0].upper():
        case b"ROLE":
            return array(bulk(b"master"), b":0\r\n", b"*0\r\n")
        case b"TIME":
            return array(bulk(b"%d" % now), bulk(b"%d" % (now % 1 * 1e6)))
        case b"SUBSCRIBE":
            return array(bulk(b"subscribe"), bulk(command[1]), b":1\r\n")
        case b"MGET":
            return array(*[b"$-1\r\n"] * (len(command) - 1))
        case b"EVALSHA" | b"EVAL":
            return array(b":1\r\n", b":0\r\n")
        case b"HGETALL" | b"ZREVRANGE":
            return b"*0\r\n"
        case b"SCAN":
            return array(bulk(b"0"), b"*0\r\n")
        case b"HLEN" | b"EXPIRE" | b"ZADD" | b"PUBLISH" | b"UNLINK" | b"ZREMRANGEBYSCORE" | b"ZREMRANGEBYRANK":
            return b":0\r\n"
        case b"PING":
            return b"+PONG\r\n"
        case b"GET":
            return b"$-1\r\n"
    return b"+OK\r\n"


ERRORS = (
    b"ERR x", b"READONLY x", b"MOVED 1 a:1", b"MOVED", b"MOVED 99 ::1", b"ASK 1 a", b"LOADING x", b"NOSCRIPT x",
    b"NOAUTH x", b"NOPERM x", b"WRONGTYPE x", b"OOM x", b"", b" ", b"\x1b[2J", b"CLUSTERDOWN", b"TRYAGAIN",
    b"ERR max number of clients reached", b"WRONGPASS x", b"MISCONF x", b"EXECABORT x", b"\xff\xfe",
)  # fmt: skip


SCALARS = (
    *(b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"*0\r\n", b"~0\r\n", b"%0\r\n", b"#t\r\n", b"+PONG\r\n", b"=5\r\ntxt:a\r\n"),
    *(b",inf\r\n", b",nan\r\n", b",-1e308\r\n", b":0\r\n", b":-1\r\n", b":9223372036854775807\r\n"),
    b"(%d\r\n" % 10**300,
    *map(bulk, (b"", b"0", b"-1", b"nan", b"inf", b"9" * 5000, b"master", b"message", bytes(60), b"x" * 5000)),
    bulk(b'{"time":1e300,"version":"\\u001b[2J","acknowledged":-1,"deleted":1e18}'),
    bulk(b"\1\0" + bytes(8) + b"\3mx9" + bytes(60)),
    *(b"-%b\r\n" % error for error in ERRORS),
)
GARBAGE = (b"\0\1\2\r\n", b"*1000000\r\n", b"$9999999999\r\n", b"\r\n", b":x\r\n", b"*1\r\n" * 50, b"")


def odd(dice: random.Random, command: list[bytes], depth: int = 0) -> bytes:
    draw = dice.random()
    if draw < 0.35 or depth > 3:
        return dice.choice(SCALARS)
    if draw < 0.45 and not depth:
        return b"-%b\r\n" % dice.choice(ERRORS)
    if draw < 0.5 and not depth:
        return dice.choice(GARBAGE)
    if draw < 0.55 and not depth:
        return b">2\r\n" + bulk(dice.choice((b"invalidate", b"MOVING", b"message"))) + bulk(b"x") + right(command)
    count = dice.choice((0, 1, 2, 2, 3, 4, len(command) - 1, len(command)))
    return array(*(odd(dice, command, depth + 1) for _ in range(count)))


class Hostile:
    """The server. Most replies are right, so that hosts get far."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.is_right = False
        self.always = b""
        """Its reply to every command with a key."""
        self.asked: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        chance = self._dice.choice((0.0, 0.03, 0.1, 0.3))
        with (
            contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
            contextlib.closing(writer),
        ):
            while True:
                command = await self._command(reader)
                self.asked.add(command[0].upper())
                if self.is_right or self.always:
                    has_key = any(b"fastscreen:" in word for word in command) and command[0].upper() != b"SUBSCRIBE"
                    writer.write(self.always if self.always and has_key else right(command))
                    continue
                if self._dice.random() < chance:
                    writer.write(odd(self._dice, command))
                else:
                    writer.write(right(command))
                if self._dice.random() < chance / 4:  # unasked
                    writer.write(array(bulk(b"message"), bulk(b"fastscreen:deleted"), self._dice.choice(SCALARS)))

    async def _command(self, reader: asyncio.StreamReader) -> list[bytes]:
        found = []
        for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
            size = int((await reader.readuntil(b"\r\n"))[1:])
            found.append((await reader.readexactly(size + 2))[:-2])
        return found

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@pytest.mark.parametrize("seed", SEEDS)
def test_any_reply_is_survived(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No task of the host ends, nobody gets a pass, no text has control characters, and a right server works again."""
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(store, "LONGEST_PAUSE", 0.01)
    for name in ("REFRESH_SECONDS", "SETTLED_SECONDS"):
        monkeypatch.setattr(f"fastscreen.cluster.sharing.{name}", 0.05)
    hostile = Hostile(seed)

    async def work() -> None:
        server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        cache = FakeCache({bytes((192, 0, 3, number)): stamps() for number in range(50)})
        async with hosts(Host(f"redis://127.0.0.1:{port}", cache=cache), ready=False) as (host,):
            end = time.monotonic() + SECONDS
            number = 0
            while time.monotonic() < end:
                number += 1
                host.sharing.look_up(0, [KEY, bytes((10, 0, number % 256, 1))])
                host.keep(bytes((10, 1, number % 256, 1)), stamps())
                with contextlib.suppress(StoreError):
                    await host.sharing.delete(ipaddress.ip_network(f"198.51.{number % 16}.0/24"))
                    await host.sharing.get(KEY)
                    await host.sharing.check()
                host.sharing.expire()
                assert host.sharing.failed() is None
                status = host.store.status()
                assert f"{status.problem}{status.effect}{status.role}{status.server}".isprintable()
                assert len(status.problem) < 500
                await asyncio.sleep(0.005)
            assert host.found == []
            assert host.deleted == []
            assert all(line.isprintable() for line in host.lines)
            hostile.is_right = True
            await wait(lambda: host.is_ready() and not len(host.sharing.queue), "the passes to be stored", 20)
            assert await host.look_up(KEY) is None
            assert len(cache.records) == 50
        hostile.close()
        server.close()
        await server.wait_closed()

    run(work())
    assert {b"MGET", b"EVALSHA", b"ZREVRANGE", b"HLEN", b"SUBSCRIBE"} <= hostile.asked


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_any_error_is_survived(error: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reply to everything."""
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(store, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("fastscreen.cluster.sharing.REFRESH_SECONDS", 0.01)
    hostile = Hostile(0)
    hostile.always = b"-%b\r\n" % error

    async def work() -> None:
        server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
        async with hosts(Host(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"), ready=False) as (host,):
            await wait(lambda: b"HLEN" in hostile.asked, "the connection")
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                host.sharing.look_up(0, [KEY])
                host.keep(KEY, stamps())
                with contextlib.suppress(StoreError):
                    await host.sharing.delete(ipaddress.ip_network("198.51.100.0/24"))
                assert host.sharing.failed() is None
                assert host.store.status().problem.isprintable()
                await asyncio.sleep(0.01)
            await wait(lambda: host.store.status().problem, "the problem to be shown")  # not while it connects again
            assert host.found == []
        hostile.close()
        server.close()
        await server.wait_closed()

    run(work())
