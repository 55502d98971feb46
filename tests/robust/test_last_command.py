"""The last command of a session is taken from the ring of events; sessions do not store it."""

import contextlib
import mmap
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastscreen import config
from fastscreen.core import Filter, Log, Screener, read_records
from fastscreen.screening import policy

ROOM = 16
TIMEOUT = 20.0  # s: a bound on hanging
CLIENT = "127.1.0.1"


class WorkerWithRing:
    """A screener in this process, whose ring holds ROOM events."""

    def __init__(self, settings: Path) -> None:
        built = policy.build(config.load(settings), "/nonexistent/mta", print)
        self._memory = memoryview(mmap.mmap(-1, 4096 + 128 * ROOM))
        self._screener = Screener(
            built.policy,
            Log("x", host="h", pid=1),
            None,
            on_truncated=lambda *_: None,
            on_drained=lambda: None,
            events=self._memory,
        )
        self.listener = socket.create_server(("127.9.0.8", 0))
        self.listener.setblocking(False)
        self._screener.listen(self.listener.fileno())

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end, self.said()
            select.select([self._screener.fileno()], [], [], 0.1)
            self._screener.run()

    def until_said(self, address: str, line: bytes) -> None:
        self.until(lambda: self.said()[address] == line)

    def said(self, *terms: tuple[str, str, object, bool]) -> dict[str, bytes]:
        """By address, of those that match."""
        _, _, packed = self._screener.live(Filter(terms), "age", 100)
        return {record[4]: record[11] for record in read_records(packed)}

    @contextlib.contextmanager
    def client(self, address: str) -> Iterator[socket.socket]:
        """A client that the dummy engine has greeted."""
        with socket.create_connection(self.listener.getsockname(), TIMEOUT, (address, 0)) as client:
            self.until(lambda: address in self.said(("stage", "=", 1 << 1, False)))
            assert client.recv(1000).startswith(b"220 ")
            yield client


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerWithRing]:
    """Without a greet wait, so that clients talk at once."""
    path = tmp_path / "screener.toml"
    path.write_text(
        'handoff = {to = "pass:/nonexistent/mta"}\nlisten = {addresses = ["127.0.0.1:0"]}\n'
        'greet = {banner = ""}\ndeep = {pipelining = "enforce"}\n'
    )
    made = WorkerWithRing(path)
    yield made
    made.listener.close()


def test_nothing_then_the_line_with_its_arguments(worker: WorkerWithRing) -> None:
    """With any bytes, truncated to the size of an event. A filter finds it."""
    with worker.client(CLIENT) as client:
        assert worker.said() == {CLIENT: b""}
        for line in (b"EHLO client.example", b"RCPT TO:<\x1b]0;x\x07\xff@example>", b"NOOP " + b"x" * 100):
            client.sendall(line + b"\r\n")
            shown = line if len(line) <= 68 else line[:65] + b"..."
            worker.until_said(CLIENT, shown)
            assert worker.said(("text", "=", line[5:12], False)) == {CLIENT: shown}
        assert worker.said(("text", "=", b"client.example", False)) == {}


def test_of_what_the_ring_has_lost_the_command_stays(worker: WorkerWithRing) -> None:
    with worker.client(CLIENT) as client, worker.client("127.1.0.2") as other:
        client.sendall(b"EHLO client.example\r\n")
        worker.until(lambda: worker.said()[CLIENT])
        for number in range(ROOM):
            assert worker.said()[CLIENT] in (b"EHLO client.example", b"EHLO")
            other.sendall(b"NOOP %d\r\n" % number)
            worker.until_said("127.1.0.2", b"NOOP %d" % number)
        assert worker.said()[CLIENT] == b"EHLO"
