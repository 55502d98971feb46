"""What can be wrong with a cluster's server while known clients are measured: stopped, frozen, slow."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

from bench.cluster_sizes import Server, redis_server
from bench.programs import BenchError

PORT, SLOW_PORT = 6379, 6380
SLOW_SECONDS = 0.2
"""How late each reply of a slow server is (s)."""
URLS = {"slow": f"redis://127.0.0.1:{SLOW_PORT}"}
FAULTS = ("stopped", "frozen", "slow")
_CONNECT_SECONDS = 10.0


@contextlib.contextmanager
def server_with(fault: str) -> Iterator[_Breakable]:
    """A server; its `breaking()` is the fault, "" for none."""
    with redis_server(PORT) as server, contextlib.ExitStack() as stack:
        if fault == "slow":
            stack.enter_context(_slow_port())
        yield _Breakable(server, fault)


class _Breakable:
    def __init__(self, server: Server, fault: str) -> None:
        self._server = server
        self._fault = fault

    @contextlib.contextmanager
    def breaking(self) -> Iterator[None]:
        """Wait until the daemon is connected, then break the server."""
        deadline = time.monotonic() + _CONNECT_SECONDS
        while self._server.clients() < 2:  # this is one of them
            if time.monotonic() > deadline:
                raise BenchError("the daemon did not connect to redis-server")
            time.sleep(0.05)
        if self._fault == "stopped":
            self._server.signal(signal.SIGTERM)
        elif self._fault == "frozen":
            self._server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self._fault == "frozen":
                self._server.signal(signal.SIGCONT)


@contextlib.contextmanager
def _slow_port() -> Iterator[None]:
    """A port before the server; the server's replies come through SLOW_SECONDS late."""
    with socket.create_server(("127.0.0.1", SLOW_PORT)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", PORT))
            for source, sink, late in ((client, server, 0.0), (server, client, SLOW_SECONDS)):
                threading.Thread(target=_pass_on, args=(source, sink, late), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, late: float) -> None:
    """Replies of one connection: what arrives during the wait is late, too, so `late` is the least."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            time.sleep(late)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
