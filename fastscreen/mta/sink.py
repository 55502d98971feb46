"""The embedded MTA of `handoff.to = "sink:"`: a separate process that receives clients as Postfix's smtpd does,

accepts every message and discards it.

The screener holds the listening socket and the process inherits it, so that clients wait for a successor if it dies.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from fastscreen.process import prctl

_BACKLOG = 100  # as Postfix's
_CLIENTS = 100
_CLIENT_SECONDS = 600.0
_IDLE_SECONDS = 60.0
_PASS_SECONDS = 10.0
_ATTRIBUTES_MAX = 1024  # bytes
_MESSAGE_MAX = 10_240_000  # bytes
_RESTART_SECONDS = 1.0
_SHARED_MEMORY = "/dev/shm"


class Sink:
    """Runs the sink's process. For the main thread: the process ends with the thread that started it."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._hostname = ""
        self._folder: Path | None = None
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._started_at = 0.0
        self._restart: asyncio.TimerHandle | None = None

    def start(self, hostname: str) -> Path:
        """Start it and return the path of its socket. To be called with a running loop, as the user that serves."""
        self._hostname = hostname
        self._folder = _make_folder()
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / "smtpd"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        self._spawn()
        return path

    @property
    def pid(self) -> int | None:
        """The process that serves now."""
        return self._process.pid if self._process is not None else None

    def stop(self) -> None:
        """End the process and remove the socket."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._process is not None:
            self._forget_pidfd()
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _spawn(self) -> None:
        assert self._listener is not None
        self._restart = None
        self._started_at = time.monotonic()
        inherited = self._listener.fileno()
        command = [sys.executable, "-I", "-m", "fastscreen.mta.sink", self._hostname, str(inherited), str(os.getpid())]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(inherited,), cwd="/")
        except OSError as error:
            self._warn(f"sink: cannot start {sys.executable}: {error.strerror}")
            self._restart = asyncio.get_running_loop().call_later(_RESTART_SECONDS, self._spawn)
            return
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        assert self._process is not None
        self._forget_pidfd()
        code = self._process.wait()
        self._process = None
        what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._warn(f"sink: the process ended ({what}): it is started again")
        age = time.monotonic() - self._started_at
        self._restart = asyncio.get_running_loop().call_later(max(0.0, _RESTART_SECONDS - age), self._spawn)

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _make_folder() -> Path:
    """Make the folder of the socket. In a container with a read-only root, /tmp is often read-only too."""
    prefix = "fastscreen-sink-"
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except FileNotFoundError:  # no folder for temporary files
        return Path(tempfile.mkdtemp(prefix=prefix, dir=_SHARED_MEMORY))


# ---- in the sink's process


class _Discard:
    """What aiosmtpd calls when a message is complete."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 2.0.0 Ok: discarded"


class _Server:
    """Receives clients (reference 8.2) and serves them, a bounded number at a time: the others wait in the backlog."""

    def __init__(self, listener: socket.socket, hostname: str) -> None:
        self._listener = listener
        self._hostname = hostname
        self._room = asyncio.Semaphore(_CLIENTS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                channel, _ = await loop.sock_accept(self._listener)
            except OSError:  # no descriptors, or the peer is gone
                self._room.release()
                await asyncio.sleep(0.1)
                continue
            task = loop.create_task(self._serve(channel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self._room.release())

    async def _serve(self, channel: socket.socket) -> None:
        client = None
        try:
            with channel:
                async with asyncio.timeout(_PASS_SECONDS):
                    client = await _receive_descriptor(channel)
                    if client is None or not await _attributes_arrived(channel):
                        return
        except (OSError, TimeoutError):
            return
        else:
            await self._talk(client)
        finally:
            if client is not None:
                client.close()

    async def _talk(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            client.setblocking(False)
            protocol: Any
            transport, protocol = await loop.connect_accepted_socket(self._protocol, client)
            try:
                async with asyncio.timeout(_CLIENT_SECONDS):
                    await protocol.gone
            finally:
                transport.abort()

    def _protocol(self) -> asyncio.BaseProtocol:
        return _Smtp(
            _Discard(),
            hostname=self._hostname,
            ident="ESMTP fastscreen sink",
            data_size_limit=_MESSAGE_MAX,
            enable_SMTPUTF8=True,
            timeout=_IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
        )


class _Smtp(SMTP):
    """aiosmtpd's protocol, and `gone`: done when the connection is."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gone: asyncio.Future[None] = self.loop.create_future()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.gone.done():
            self.gone.set_result(None)


async def _receive_descriptor(channel: socket.socket) -> socket.socket | None:
    """Receive one byte and one descriptor with it."""
    channel.setblocking(False)
    while True:
        try:
            data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_LEN(4))
            break
        except BlockingIOError:
            await _readable(channel)
    for level, kind, content in ancillary:
        if data and level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(content) >= 4:
            descriptor = int.from_bytes(content[:4], sys.byteorder)
            try:
                return socket.socket(fileno=descriptor)
            except OSError:  # not a socket
                os.close(descriptor)
                return None
    return None


async def _attributes_arrived(channel: socket.socket) -> bool:
    """Read `(name NUL value NUL)* NUL` (reference 8.3). A sink does not need the client's address in it."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < _ATTRIBUTES_MAX:
        data = await loop.sock_recv(channel, _ATTRIBUTES_MAX)
        if not data:
            return False
        received += data
        if received == b"\0" or (received.endswith(b"\0\0") and received.count(b"\0") % 2 == 1):
            return True
    return False


async def _readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel)


def _main(arguments: list[str]) -> int:
    hostname, inherited, parent = arguments[0], int(arguments[1]), int(arguments[2])
    prctl.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return 0
    # Ctrl-C at the terminal reaches the whole group; the screener decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.getLogger("mail").setLevel(logging.CRITICAL)
    listener = socket.socket(fileno=inherited)
    asyncio.run(_Server(listener, hostname).run())
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
