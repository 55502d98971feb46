"""The embedded MTA: receives a client as smtpd does, accepts a message, ends and is restarted."""

import asyncio
import contextlib
import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fastscreen.mta.sink import Sink

ATTRIBUTES = (
    b"client_address\x00192.0.2.25\0client_port\x0051234\0server_address\x00198.51.100.7\0server_port\x0025\0\0"
)


def _with_sink(test: Callable[[Sink, Path, list[str]], Awaitable[None]]) -> None:
    async def run() -> None:
        warnings: list[str] = []
        sink = Sink(warnings.append)
        path = sink.start("mx.example.test")
        folder = path.parent
        try:
            await asyncio.wait_for(test(sink, path, warnings), 30)
        finally:
            sink.stop()
        assert not folder.exists()

    asyncio.run(run())


def _pass_client(
    path: Path, first: bytes = b"\0", attributes: bytes = ATTRIBUTES
) -> tuple[socket.socket, socket.socket]:
    """Hand a client over; return the client's end of it and the channel."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(20)
    channel.connect(str(path))
    with accepted:
        socket.send_fds(channel, [first], [accepted.fileno()])
    if attributes:
        channel.sendall(attributes)
    client.settimeout(20)
    return client, channel


def _deliver(path: Path, first: bytes = b"\0", attributes: bytes = ATTRIBUTES) -> bytes:
    """Hand a client over, then speak SMTP as it; return the banner."""
    client, channel = _pass_client(path, first, attributes)
    with channel:
        assert channel.recv(1) == b""  # the receiver closes the channel before it serves
    session = smtplib.SMTP(timeout=20)
    session.sock = client
    code, banner = session.getreply()
    assert code == 220
    assert session.sendmail("a@example.test", ["b@example.test"], b"Subject: x\r\n\r\n.dot\r\n") == {}
    assert session.quit()[0] == 221
    return bytes(banner)


def test_a_client_is_received_and_its_message_taken() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        banner = await asyncio.to_thread(_deliver, path)
        assert banner == b"mx.example.test ESMTP fastscreen sink"
        assert warnings == []

    _with_sink(test)


def test_both_parts_in_one_message_and_an_empty_list_are_received() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        await asyncio.to_thread(_deliver, path, b"\0" + ATTRIBUTES, b"")
        await asyncio.to_thread(_deliver, path, b"X", b"\0")

    _with_sink(test)


def _refused(path: Path, first: bytes, attributes: bytes) -> None:
    client, channel = _pass_client(path, first, attributes)
    with client, channel:
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(1) == b""
        assert client.recv(1) == b""


def test_a_bad_hand_off_closes_the_client_and_nothing_else() -> None:
    def no_descriptor(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(20)
            channel.connect(str(path))
            channel.sendall(b"\0" + ATTRIBUTES)
            with contextlib.suppress(ConnectionResetError):  # it may be closed before the list was read
                assert channel.recv(1) == b""

    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        await asyncio.to_thread(_refused, path, b"\0", b"client_address")
        await asyncio.to_thread(_refused, path, b"\0", b"\1" * 1024)
        await asyncio.to_thread(no_descriptor, path)
        await asyncio.to_thread(_deliver, path)
        assert warnings == []

    _with_sink(test)


def test_it_is_started_again_when_it_dies_and_clients_wait_for_it() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        await asyncio.to_thread(_deliver, path)
        first = sink.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(_deliver, path)
        assert sink.pid not in (None, first)
        assert warnings == ["sink: the process ended (SIGKILL): it is started again"]

    _with_sink(test)


_PARENT = """
import asyncio
from fastscreen.mta.sink import Sink
async def main():
    sink = Sink(print)
    print(sink.start("mx.example.test"), sink.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_it_ends_when_the_screener_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        path, pid = parent.stdout.readline().split()
        _deliver(Path(path))
        pidfd = os.pidfd_open(int(pid))
        parent.kill()
    asyncio.run(_ended(pidfd))
    os.close(pidfd)
    Path(path).unlink()
    Path(path).parent.rmdir()


async def _ended(pidfd: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await asyncio.wait_for(ended.wait(), 20)


def test_its_folder_is_private() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        assert path.parent.stat().st_mode & 0o777 == 0o700

    _with_sink(test)


def test_a_program_that_cannot_start_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        assert warnings == ["sink: cannot start /nonexistent/python: No such file or directory"]
        monkeypatch.undo()
        await asyncio.to_thread(_deliver, path)

    _with_sink(test)
