"""A core in the test process, for tests that need its batches, descriptors or counters."""

import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from fastscreen import config
from fastscreen.core import AccessStep, Log, Screener
from fastscreen.screening import policy
from robust.harness import HOSTNAME, wait_until


class Core:
    """A screener in this process, with a port for clients and one for a balancer's.

    settings: TOML. to, more: of [handoff]; else a Unix socket is the MTA. known: clients of 127/8 are allowlisted.
    """

    def __init__(
        self, folder: Path, opened: ExitStack, settings: str = "", *, to: str = "", more: str = "", known: bool = False
    ) -> None:
        file = folder / "fastscreen.toml"
        path = folder / "mta"
        file.write_text(
            f'hostname = "{HOSTNAME}"\nbanner = "{HOSTNAME} ESMTP Postfix"\nuser = ""\n'
            f'handoff = {{to = "{to or f"pass:{path}"}"{more}}}\n'
            f'access = {{mynetworks = ["{"127.0.0.0/8" if known else "192.0.2.0/24"}"]}}\n'
            + (settings or 'greet = {wait = "30s", action = "enforce"}\n')
        )
        rules = policy.build(config.load(file), str(path), print).policy
        self._opened = opened
        self.mta = self.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.mta.bind(str(path))
        self.mta.listen(10)
        self.screener = Screener(rules, Log("x", host="h", pid=1), None, on_truncated=print, on_drained=print)
        self.port = self.listen()
        self.proxy_port = self.listen(trusted=AccessStep(["permit"]), header_time=30.0)

    def keep(self, end: socket.socket) -> socket.socket:
        return self._opened.enter_context(end)

    def listen(self, **settings: object) -> socket.socket:
        port = self.keep(socket.create_server(("127.0.0.1", 0)))
        port.setblocking(False)
        self.screener.listen(port.fileno(), **settings)  # type: ignore[arg-type]
        return port

    def connect(self, port: socket.socket, data: bytes = b"") -> socket.socket:
        client = self.keep(socket.create_connection(port.getsockname()))
        client.settimeout(5.0)
        client.sendall(data)
        return client

    def run(self) -> None:
        self.screener.run()
        self.screener.run_relays()

    def run_until(self, condition: Callable[[], bool], what: str) -> None:
        def ran() -> bool:
            self.run()
            return condition()

        wait_until(ran, what)

    def made(self, step: Callable[[], object], condition: Callable[[], bool], what: str) -> set[int]:
        """The sockets that the core has opened while a step led to the condition."""
        before = sockets()
        own = step()
        self.run_until(condition, what)
        return sockets() - before - ({own.fileno()} if isinstance(own, socket.socket) else set())

    def hold(self, descriptors: set[int]) -> None:
        """Be the other process that holds these."""
        assert descriptors
        for descriptor in descriptors:
            self._opened.callback(os.close, os.dup(descriptor))

    def stat(self, name: str) -> int:
        value = self.screener.stats()[name]
        assert isinstance(value, int)
        return value

    def assert_quiet(self) -> None:
        """No descriptor is left in the epoll sets that would be reported repeatedly, and no event was stale."""
        for _ in range(3):
            self.run()
        assert not select.select([self.screener.fileno(), self.screener.relay_fileno()], [], [], 0)[0]
        assert self.stat("stale_events") == 0


def sockets() -> set[int]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if stat.S_ISSOCK(os.fstat(int(entry)).st_mode):
                found.add(int(entry))
        except OSError:
            continue
    return found
