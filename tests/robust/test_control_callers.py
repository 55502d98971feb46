"""Callers of the control socket that are idle or never read do not block others, and use little memory."""

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from robust import harness
from robust.conftest import Alter, Start
from robust.control import Control, Map
from robust.harness import Screener, wait_until
from robust.test_control import connected, control_server_of, rss_of

READ_ONLY_UID = 12345  # a user that may only read


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path, folder: Path) -> Map:
    return {"control": {"path": str(path)}, "cache": {"path": str(folder / "cache")}}


@pytest.fixture
def callers() -> Iterator[contextlib.ExitStack]:
    """What is entered here is closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield stack


def call(path: Path, callers: contextlib.ExitStack, uid: int = 0) -> socket.socket:
    """A connection, as root or another user, with small buffers."""
    control = callers.enter_context(socket.socket(socket.AF_UNIX))
    control.settimeout(20)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    os.seteuid(uid)
    try:
        control.connect(str(path))
    finally:
        os.seteuid(0)
    return control


def frame(message: Map) -> bytes:
    body: bytes = msgpack.packb(message)
    return struct.pack("!I", len(body)) + body


def is_ended(control: socket.socket) -> bool:
    """Whether the server has closed the connection; earlier data is discarded."""
    control.settimeout(0.05)
    with contextlib.suppress(TimeoutError, BlockingIOError):
        try:
            while control.recv(65536):
                pass
        except ConnectionError:
            pass
        return True
    return False


def command(path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    program = [str(harness.COMMAND), words[0], *words[1:], "--socket", str(path)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_idle_callers_shut_nobody_out(start: Start, path: Path, settings: Map, callers: contextlib.ExitStack) -> None:
    """With forty silent callers `status` and `bypass` still work, because older callers are closed."""
    start(settings)
    with connected(path) as watching:
        control_server = control_server_of(start_of(watching), watching)
        watching.ok("events", filter="kind:command_limit")
        idle = [call(path, callers) for _ in range(40)]
        asked = command(path, "status")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert command(path, "bypass", "on", "--for", "1m").returncode == 0
        assert command(path, "bypass", "off").returncode == 0
        wait_until(lambda: sum(map(is_ended, idle)) >= 40 + 1 - 32, "the first ones to have made room")
        assert watching.ok("status")["workers"]  # it follows events: it stays
        assert descriptors(control_server) < 32 + 40


def start_of(control: Control) -> Any:
    """What `control_server_of` needs: the children of the supervisor."""

    class Children:
        def workers(self) -> list[int]:
            pid = control.hello["pid"]
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return Children()


def fill(screener: Screener, count: int) -> None:
    """Connect many clients that send before the greeting."""
    for number in range(count):
        with screener.connect(f"127.9.{number // 200}.{number % 200 + 1}") as client:
            client.send(b"x" * 200)


def test_callers_that_never_read(
    alter: Alter, start: Start, path: Path, settings: Map, callers: contextlib.ExitStack
) -> None:
    """Eight large subscriptions each, nothing read, half-closed: none stays, memory is bounded, others are served."""
    alter("from fastscreen.control import session as it\nit.TAKE_SECONDS = it.CLOSE_SECONDS = 4.0")
    screener = start(settings)
    with connected(path) as control:
        control_server = control_server_of(screener, control)
        fill(screener, 400)
        before, had = rss_of(control_server), descriptors(control_server)
        for turn in range(80):
            deaf = call(path, callers)
            with contextlib.suppress(OSError):
                for number in range(8):
                    deaf.sendall(frame({"id": number, "do": "events", "recent": 2000, "rate": 1}))
                if turn % 2:
                    deaf.shutdown(socket.SHUT_WR)
        asked = command(path, "status")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert descriptors(control_server) <= had + 32
        assert rss_of(control_server) - before < 64 << 20
        wait_until(lambda: descriptors(control_server) <= had, "all of them to have ended, though they never read")
        assert command(path, "status").returncode == 0


def test_time_limits(alter: Alter, start: Start, path: Path, settings: Map, callers: contextlib.ExitStack) -> None:
    """No request, half a request, an answer that is not read, half closed: each ends. A subscriber that reads stays."""
    alter("from fastscreen.control import session as it\nit.REQUEST_SECONDS = it.TAKE_SECONDS = it.CLOSE_SECONDS = 1.5")
    screener = start(settings)
    with connected(path) as control, connected(path) as subscriber:
        control_server = control_server_of(screener, control)
        assert subscriber.ok("events", filter="kind:command_limit") == {}
        fill(screener, 100)
        control.ok("status")
        had = descriptors(control_server)
        silent, half, deaf, closing = (call(path, callers) for _ in range(4))
        half.sendall(frame({"id": 1, "do": "status"}) + b"\0\0")
        for one in (deaf, closing):
            for number in range(8):
                one.sendall(frame({"id": number, "do": "events", "recent": 2000}))
        closing.shutdown(socket.SHUT_WR)
        wait_until(lambda: descriptors(control_server) == had, "all four to have ended")
        for one in (silent, half, deaf, closing):
            wait_until(partial(is_ended, one), "the end")
        assert control.ok("status")["workers"]  # a caller that has sent one request may be idle for any time
        assert subscriber.ok("status")["workers"]


def test_members_of_the_group_shut_out_neither_root_nor_each_other(
    start: Start, path: Path, settings: Map, callers: contextlib.ExitStack
) -> None:
    start(settings)
    connected(path).socket.close()
    path.chmod(0o666)
    follow = frame({"id": 1, "do": "events", "filter": "kind:command_limit"})
    for uid in range(READ_ONLY_UID, READ_ONLY_UID + 4):
        for _ in range(14):
            with contextlib.suppress(BrokenPipeError):  # refused, as all beyond the places of a user are
                call(path, callers, uid).sendall(follow)
    with Control(path) as root:
        assert root.ok("bypass", seconds=0) == {"until": None}
    asked = command(path, "status")
    assert (asked.returncode, asked.stderr) == (0, "")
    refused = call(path, callers, READ_ONLY_UID)
    (size,) = struct.unpack("!I", refused.recv(4))
    assert "too many" in msgpack.unpackb(refused.recv(size))["error"]
    assert is_ended(refused)


def test_requests_that_wait_are_small(
    alter: Alter, start: Start, path: Path, settings: Map, callers: contextlib.ExitStack
) -> None:
    """64 KiB may become megabytes when decoded, so a request is only decoded when it is handled."""
    alter("from fastscreen.control import session as it\nit.EVENTS_HELD = 10_000")
    screener = start(settings)
    with connected(path) as control:
        control_server = control_server_of(screener, control)
        fill(screener, 400)
        before = rss_of(control_server)
        body = b"\x83\xa2id\x01\xa2do\xa6status\xa1x\xdd" + struct.pack("!I", 65_000) + 65_000 * b"\x80"
        for _ in range(20):
            deaf = call(path, callers)
            deaf.sendall(frame({"id": 9, "do": "events", "recent": 2000}))
            deaf.recv(1)
            deaf.settimeout(1)
            with contextlib.suppress(OSError):
                for _ in range(9):
                    deaf.sendall(struct.pack("!I", len(body)) + body)
        assert rss_of(control_server) - before < 96 << 20
        assert command(path, "status").returncode == 0


def test_who_asks_and_never_reads_gets_no_more_work(start: Start, path: Path, settings: Map) -> None:
    """The requests of a caller that does not read wait; those of others do not."""
    screener = start(settings)
    with connected(path) as control, Control(path) as deaf:
        fill(screener, 300)
        for number in range(8):
            deaf.send({"id": number, "do": "events", "recent": 2000})
        deaf.socket.settimeout(0.2)
        with contextlib.suppress(OSError, TimeoutError):
            for number in range(4000):
                deaf.send({"id": number, "do": "story", "address": "127.9.0.1"})
        assert control.ok("status")["workers"]
        assert control.ok("story", address="127.9.0.1")["events"]
        deaf.socket.settimeout(20)
        while "address" not in deaf.read().get("ok", {}):
            pass  # it reads again, and gets what it has asked for
