"""The ring of events with a writer in another process: events are complete, and lost ones are counted."""

import contextlib
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastscreen import config
from fastscreen.core import EVENTS, EventReader, Filter, Log, Screener
from fastscreen.screening import policy

ROOM = 16
SIZE = 4096 + 128 * ROOM
SECONDS = 3.0


def write(memory: memoryview, settings: Path, listener: socket.socket) -> None:
    """A screener whose clients are in a thread's hands in the parent; killed in the end."""
    built = policy.build(config.load(settings), "/nonexistent/mta", print)
    screener = Screener(
        built.policy,
        Log("x", host="h", pid=1),
        None,
        on_truncated=lambda *_: None,
        on_drained=lambda: None,
        events=memory,
    )
    listener.setblocking(False)
    screener.listen(listener.fileno())
    while True:
        screener.run()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Early talkers are dropped, so that each connection is five events, one of them with the client's own text."""
    path = tmp_path / "screener.toml"
    path.write_text(
        'handoff = {to = "pass:/nonexistent/mta"}\nlisten = {addresses = ["127.0.0.1:0"]}\n'
        'greet = {action = "drop", wait = "5s"}\nlimits = {client_connection_count = 0}\n'
    )
    return path


def flood(address: tuple[str, int]) -> None:
    """Early talkers, one after the other, for SECONDS."""
    end = time.monotonic() + SECONDS
    clients: list[socket.socket] = []
    number = 0
    while time.monotonic() < end:
        number += 1
        client = socket.create_connection(address, 10, (f"127.1.{number >> 8 & 255}.{number & 255}", 0))
        client.sendall(named(client.getsockname()[1]))
        clients.append(client)
        if len(clients) > 50:
            clients.pop(0).close()


def named(port: int) -> bytes:
    """A text that fills a record and names the client."""
    return f"{port:05d} ".encode() * 20


def child(work: Callable[..., None], *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work(*arguments)
        os._exit(0)
    return pid


def test_no_record_is_torn(settings: Path) -> None:
    """The ring is so short that the writer overtakes the reader all the time. A text must be its own record's."""
    memory = memoryview(mmap.mmap(-1, SIZE))
    listener = socket.create_server(("127.9.0.7", 0), backlog=512)
    writer = child(write, memory, settings, listener)
    client = child(flood, listener.getsockname())
    try:
        reader = EventReader(memory)
        everything = Filter()
        assert reader.capacity == ROOM
        at = seen = lost = checked = 0
        while not os.waitid(os.P_PID, client, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            before = at
            events, at, missing, skipped = reader.read(at, everything, 1000)
            assert len(events) + missing == at - before
            assert skipped == 0
            seen += len(events)
            lost += missing
            last = before
            for sequence, when, kind, session, peer, port, _, _, _, index, _, text in events:
                assert last < sequence <= at
                last = sequence
                assert kind in EVENTS[1:-1]
                assert abs(when - time.time()) < 60
                assert session > 0
                assert peer.startswith("127.1.")
                assert index == -1
                if kind == "pregreet":
                    assert text == named(port)[:65] + b"..."
                    checked += 1
            if seen % 3 == 0:
                time.sleep(0.001)  # a reader that is not always there is overtaken
        assert checked > 10
        assert lost > 10
        assert seen + lost == at
        # A reader that comes late: what the ring holds is there, the rest is counted.
        events, head, missing, _ = reader.read(0, everything, 1000)
        assert len(events) + missing == head
        assert 0 < len(events) <= ROOM
        assert reader.counts()["pregreet"] >= checked
    finally:
        for pid in (writer, client):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        listener.close()
