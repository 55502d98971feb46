"""The protocol's client against a hub that behaves, and against peers that do not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.control import client
from fastscreen.control.client import Client, ControlError, Forbidden, Malformed, Refused, Unreachable, ask
from tui.hub import Hub
from tui.pilot import driven
from tui.world import World

HELLO = {"fastscreen": "0.1.0", "protocol": 1, "rights": ["read"]}


def frame(message: object) -> bytes:
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(4, "big") + body


@asynccontextmanager
async def peer(path: Path, says: bytes, then: Callable[[bytes], bytes] = lambda request: b"") -> AsyncIterator[None]:
    """A socket that says something, and answers the first request with something."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        with suppress(asyncio.CancelledError):  # the test is over
            if await reader.read(1000):
                writer.write(then(b""))
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield


@driven
async def test_request(tmp_path: Path) -> None:
    async with Hub(tmp_path / "control", World()) as hub:
        control = await Client.connect(str(hub.path))
        assert control.hello["hostname"] == "mx1.example.com"
        sessions = control.request("sessions", filter="", sort="age", limit=5)
        both = await asyncio.gather(control.request("dnsbl"), sessions)
        assert both[0]["threshold"] == 3
        assert both[1]["total"] == 0
        assert [request["do"] for request in hub.asked] == ["dnsbl", "sessions"]
        await control.close()
        with pytest.raises(Unreachable, match="closed"):
            await control.request("dnsbl")


@driven
async def test_error_is_refused(tmp_path: Path) -> None:
    async with Hub(tmp_path / "control", World()) as hub:
        control = await Client.connect(str(hub.path))
        with pytest.raises(Refused, match=r"^filter: score>: a number is missing"):
            await control.request("sessions", filter="score>", sort="age", limit=5)
        with pytest.raises(Refused, match="a number is missing"):
            await control.subscribe("score>")
        assert (await control.request("dnsbl"))["threshold"] == 3  # it goes on
        await control.close()


@driven
async def test_events(tmp_path: Path) -> None:
    world = World()
    async with Hub(tmp_path / "control", world) as hub:
        control = await Client.connect(str(hub.path))
        world.visit("known", "192.0.2.1")
        world.advance(1)
        events = await control.subscribe(filter="192.0.2.1", recent=2)
        assert [event["kind"] for event in (await anext(events))[0]] == ["cached", "handed"]
        world.visit("denied", "192.0.2.1")
        world.advance(1)
        hub.lost = 7
        hub.push()
        new, lost = await anext(events)
        assert [event["kind"] for event in new] == ["connect", "denylisted", "reply", "disconnect"]
        assert lost == 7
        await events.cancel()
        assert hub.asked[-1] == {"id": 2, "do": "cancel", "of": 1}
        with pytest.raises(Unreachable, match="cancelled"):
            await anext(events)
        await control.close()


@driven
async def test_slow_reader_is_told_what_it_lost(tmp_path: Path) -> None:
    batch = frame({"id": 1, "events": [1, 2, 3], "lost": 1})
    answers = frame({"id": 1, "ok": {}}) + (client.MAX_BATCHES + 2) * batch + frame({"id": 1, "events": [], "lost": 0})
    async with peer(tmp_path / "control", frame(HELLO), lambda _: answers):
        control = await Client.connect(str(tmp_path / "control"))
        events = await control.subscribe()
        with pytest.raises(Unreachable):
            await control.request("status")  # by now all has been read, and the peer has gone
        assert await anext(events) == ([1, 2, 3], 1 + 3 * 4)  # three batches did not fit any more
        rest = []
        with pytest.raises(Unreachable, match="has closed the connection"):
            async for _, lost in events:
                rest.append(lost)
        assert rest == [1] * (client.MAX_BATCHES - 2) + [0]


@driven
async def test_lost_connection_ends_what_waits(tmp_path: Path) -> None:
    async with Hub(tmp_path / "control", World()) as hub:
        hub.silent.add("status")
        control = await Client.connect(str(hub.path))
        events = await control.subscribe()
        await anext(events)
        waiting = asyncio.create_task(control.request("status"))
        await control.request("dnsbl")
        await hub.stop()
        for lost in (waiting, anext(events)):
            with pytest.raises(Unreachable, match="fastscreen has closed the connection"):
                await lost


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"220 mx.example.com ESMTP\r\n", "a frame of 842149920 octets"),
        (b"\0\0\0\0", "a frame of 0 octets"),
        (b"\0\x10\0\x01" + b"x" * 100, "a frame of 1048577 octets"),
        (b"\0\0\0\x02\xc1\xc1", "in a frame"),
        (b"\0\0\0\x01\x90", "a frame without a map"),
        (b"\0\0\0\x03\x81\x90\x90", "in a frame"),  # a key that cannot be one
        (b"\0\0\x10\0" + b"\x91" * 4096, "in a frame"),  # deep
        (frame({"hello": 1}), "no greeting"),
        (frame({"fastscreen": "9", "protocol": 2}), "protocol version 2, this program speaks 1"),
    ],
)
def test_what_is_not_the_protocol(tmp_path: Path, says: bytes, why: str) -> None:
    async def connect() -> None:
        async with peer(tmp_path / "control", says):
            await Client.connect(str(tmp_path / "control"))

    with pytest.raises(ControlError, match=why):
        asyncio.run(connect())


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": 1},
        {"id": "1", "ok": 1},
        {"id": 1},
        {"id": 1, "ok": {}, "and": "more"},
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: Any) -> None:
    async def run() -> None:
        async with peer(tmp_path / "control", frame(HELLO), lambda _: frame(answer)):
            control = await Client.connect(str(tmp_path / "control"))
            await control.request("status")

    if answer.get("ok") == {}:
        asyncio.run(run())
    else:
        with pytest.raises(Malformed):
            asyncio.run(run())


@given(st.binary(max_size=200))
def test_any_octets_are_a_map_or_malformed(octets: bytes) -> None:
    with suppress(Malformed):
        assert isinstance(client.unpacked(octets), dict)


def test_nobody_there(tmp_path: Path) -> None:
    for call in (lambda path: asyncio.run(Client.connect(path)), lambda path: ask(path, "status")):
        with pytest.raises(Unreachable, match="there is no such socket; is fastscreen running"):
            call(str(tmp_path / "control"))
        with pytest.raises(Unreachable, match="too long"):
            call("/" + "x" * 200)


@driven
async def test_nobody_listens(tmp_path: Path) -> None:
    async with peer(tmp_path / "control", b""):
        (tmp_path / "control").rename(tmp_path / "kept")
    with pytest.raises(Unreachable, match="fastscreen has stopped"):
        await Client.connect(str(tmp_path / "kept"))


def test_no_permission(tmp_path: Path) -> None:
    error = client.unreachable("/run/x", PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, Forbidden)
    assert str(error).startswith("/run/x: no permission; root,")


@driven
async def test_ask(tmp_path: Path) -> None:
    async with Hub(tmp_path / "control", World()) as hub:
        path = str(hub.path)
        assert (await asyncio.to_thread(ask, path, "dnsbl"))["threshold"] == 3
        with pytest.raises(Refused, match="a number is missing"):
            await asyncio.to_thread(ask, path, "events", filter="score>")
        with pytest.raises(ControlError, match="the request has 70"):
            await asyncio.to_thread(ask, path, "sessions", filter="x" * 70_000)
    async with peer(tmp_path / "mute", frame(HELLO)):
        with pytest.raises(Unreachable, match="has closed the connection"):
            await asyncio.to_thread(ask, str(tmp_path / "mute"), "status")
