"""The sockets between the workers and the cluster process. A worker that takes nothing loses its oldest answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from fastscreen.cluster.packets import PACKET_MAX

MOST = 64  # packets that wait for a worker
TURN = 64  # packets of one worker that are read in a turn
_BUFFER = 1 << 18


def pair() -> tuple[socket.socket, socket.socket]:
    """The worker's end and the cluster process's. Both are non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


class WorkerSockets:
    """ends: the cluster process's, by worker. take(worker, packet): what a worker sent.

    guard: makes a callback one that never raises.
    """

    def __init__(
        self,
        ends: Sequence[socket.socket],
        take: Callable[[int, bytes], object],
        guard: Callable[[Callable[[], object]], Callable[[], None]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ends = ends
        self._take = take
        self._loop = loop
        self._waiting: list[deque[bytes]] = [deque() for _ in ends]
        self.dropped = 0
        """Packets that a worker did not take."""
        self._writers = [guard(partial(self._write, worker)) for worker in range(len(ends))]
        for worker, end in enumerate(ends):
            loop.add_reader(end.fileno(), guard(partial(self._read, worker)))

    def send(self, worker: int, packet: bytes) -> None:
        """Send a packet, now or when the worker takes it."""
        waiting = self._waiting[worker]
        if not waiting and self._sent(worker, packet):
            return
        if not waiting:
            self._loop.add_writer(self._ends[worker].fileno(), self._writers[worker])
        elif len(waiting) >= MOST:
            waiting.popleft()
            self.dropped += 1
        waiting.append(packet)

    def close(self) -> None:
        """Neither read nor send anything more."""
        for end in self._ends:
            self._loop.remove_reader(end.fileno())
            self._loop.remove_writer(end.fileno())

    def _sent(self, worker: int, packet: bytes) -> bool:
        try:
            self._ends[worker].send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:  # the supervisor ends
            self.dropped += 1
        return True

    def _write(self, worker: int) -> None:
        waiting = self._waiting[worker]
        while waiting:
            if not self._sent(worker, waiting[0]):
                return
            waiting.popleft()
        self._loop.remove_writer(self._ends[worker].fileno())

    def _read(self, worker: int) -> None:
        end = self._ends[worker]
        for _ in range(TURN):
            with contextlib.suppress(BlockingIOError):
                packet = end.recv(PACKET_MAX + 1, socket.MSG_DONTWAIT)
                if not packet:  # nobody has the other end any more
                    self._loop.remove_reader(end.fileno())
                    return
                self._take(worker, packet)
                continue
            return
