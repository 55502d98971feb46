"""The embedded MTA: receives a client as smtpd does, accepts a message, ends and is restarted."""

import asyncio
import contextlib
import errno
import os
import resource
import select
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fastscreen.mta import sink as module
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
from fastscreen.mta import sink as module
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


def test_stopped_while_it_waits_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started afterwards."""
    warnings: list[str] = []

    errors: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        sink = Sink(warnings.append)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/nonexistent/python")
            sink.start("mx.example.test")
        assert sink.pid is None
        sink.stop()
        await asyncio.sleep(0.05)
        assert sink.pid is None
        assert errors == []

    monkeypatch.setattr(module, "_RESTART_SECONDS", 0.01)
    asyncio.run(run())
    assert warnings == ["sink: cannot start /nonexistent/python: No such file or directory"]


def test_a_process_that_does_not_end_is_killed() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        pid = sink.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)  # from now on SIGTERM stays pending
        pidfd = os.pidfd_open(pid)
        sink.stop()
        assert sink.pid is None
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)
        assert warnings == []

    _with_sink(test)


def test_without_descriptors_clients_wait_until_there_are_some() -> None:
    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        await asyncio.to_thread(_deliver, path)
        assert sink.pid is not None
        _, hard = resource.prlimit(sink.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(sink.pid, resource.RLIMIT_NOFILE, (3, hard))
        waiting = asyncio.create_task(asyncio.to_thread(_deliver, path))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        resource.prlimit(sink.pid, resource.RLIMIT_NOFILE, (1024, hard))
        await waiting
        assert warnings == []

    _with_sink(test)


def test_a_process_of_another_parent_ends_at_once() -> None:
    """Its parent ended before the kernel was asked to tell it."""
    with socket.socket(socket.AF_UNIX) as listener:
        words = ["-I", "-m", "fastscreen.mta.sink", "mx.example.test", str(listener.fileno()), "1"]
        inherited = (listener.fileno(),)
        ended = subprocess.run([sys.executable, *words], pass_fds=inherited, timeout=20, check=False)
    assert ended.returncode == 0


# ---- the server in this process, with other limits


def _with_server(folder: Path, test: Callable[[Path], Awaitable[None]]) -> None:
    async def run() -> None:
        errors: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "smtpd"))
            listener.listen(10)
            listener.setblocking(False)
            server = asyncio.create_task(module._Server(listener, "mx.example.test").run())
            try:
                await asyncio.wait_for(test(folder / "smtpd"), 20)
            finally:
                server.cancel()
                await asyncio.wait([server])
        await asyncio.sleep(0)
        assert errors == []

    asyncio.run(run())


async def _received(end: socket.socket) -> bytes:
    return await asyncio.to_thread(end.recv, 1000)


def test_a_hand_off_that_stalls_ends_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, or the client without the list, or a part of the list."""
    monkeypatch.setattr(module, "_PASS_SECONDS", 0.05)

    async def test(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.settimeout(10)
            silent.connect(str(path))
            assert await _received(silent) == b""
        for attributes in (b"", b"client_address\0"):
            client, channel = _pass_client(path, attributes=attributes)
            with client, channel:
                assert await _received(channel) == b""
                assert await _received(client) == b""

    _with_server(tmp_path, test)


def test_a_hand_off_in_pieces(tmp_path: Path) -> None:
    """The client arrives after the connection, and its list byte by byte."""

    async def test(path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as channel:
            client = socket.create_connection(server.getsockname(), 10)
            accepted, _ = server.accept()
            channel.settimeout(10)
            channel.connect(str(path))
            await asyncio.sleep(0.02)  # the server waits now
            with accepted:
                socket.send_fds(channel, [b"\0"], [accepted.fileno()])
            for octet in ATTRIBUTES:
                channel.send(bytes([octet]))
                await asyncio.sleep(0)
            with client:
                assert await _received(channel) == b""
                assert (await _received(client)).startswith(b"220 ")

    _with_server(tmp_path, test)


def test_what_is_passed_is_no_socket(tmp_path: Path) -> None:
    """Its descriptor is closed: the reader of the pipe notices."""

    async def test(path: Path) -> None:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as pipe, socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(path))
            socket.send_fds(channel, [b"\0"], [writer])
            os.close(writer)
            channel.sendall(ATTRIBUTES)
            with contextlib.suppress(ConnectionResetError):
                assert await _received(channel) == b""
            assert (await asyncio.to_thread(select.select, [pipe], [], [], 5))[0]

    _with_server(tmp_path, test)


def test_clients_beyond_the_limit_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLIENTS", 2)

    async def test(path: Path) -> None:
        ends = [_pass_client(path) for _ in range(3)]
        for client, _ in ends[:2]:
            assert (await _received(client)).startswith(b"220 ")
        third, channel = ends[2]
        third.settimeout(0.1)
        with pytest.raises(TimeoutError):
            await _received(third)
        third.settimeout(10)
        ends[0][0].close()
        assert (await _received(third)).startswith(b"220 ")
        assert await _received(channel) == b""
        for each in ends:
            each[0].close()
            each[1].close()

    _with_server(tmp_path, test)


def test_a_client_has_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy it is; and the next one is served."""
    monkeypatch.setattr(module, "_CLIENT_SECONDS", 0.1)
    monkeypatch.setattr(module, "_CLIENTS", 1)

    async def test(path: Path) -> None:
        for _ in range(2):
            client, channel = _pass_client(path)
            with client, channel, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                began = time.monotonic()
                while reply := await _received(client):
                    assert reply.startswith((b"220 ", b"250 "))
                    assert time.monotonic() - began < 5
                    client.sendall(b"NOOP\r\n")

    _with_server(tmp_path, test)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: ",
        b"\xff\0\x1b" * 1000,
        b"MAIL FROM:<" + b"a" * 100_000,
    ],
)
def test_a_client_that_leaves_harms_nobody(tmp_path: Path, sent: bytes) -> None:
    """With a reset, in the middle of a message, or after garbage without end."""

    async def test(path: Path) -> None:
        client, channel = _pass_client(path)
        with channel:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        assert await asyncio.to_thread(_deliver, path) == b"mx.example.test ESMTP fastscreen sink"

    _with_server(tmp_path, test)


def test_without_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a read-only root."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)

    async def test(sink: Sink, path: Path, warnings: list[str]) -> None:
        assert path.is_relative_to("/dev/shm")
        assert b"ESMTP fastscreen sink" in await asyncio.to_thread(_deliver, path)
        assert warnings == []

    _with_sink(test)
