"""The sockets between the workers and the cluster process. A worker that takes nothing loses its oldest answers."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from fastscreen.cluster.packets import PACKET_MAX
from fastscreen.process import rpc

MOST = 64  # packets that wait for a worker
TURN = 256  # packets of one worker that are read in a turn
GATHER = 0.005  # s
_BUFFER = 1 << 18


def pair() -> tuple[socket.socket, socket.socket]:
    """The worker's end and the cluster process's. Both are non-blocking."""
    return rpc.pair(_BUFFER)


class WorkerSockets:
    """ends: the cluster process's, by worker. take(worker, packet): what a worker sent. taken: called after the packets
    of a while. guard: makes a callback one that never raises.

    Packets are read every GATHER seconds, those of all workers together, for as long as there are some: waking up for
    each of them would cost more than all that is done with it.
    """

    def __init__(
        self,
        ends: Sequence[socket.socket],
        take: Callable[[int, bytes], object],
        taken: Callable[[], object],
        guard: Callable[[Callable[[], object]], Callable[[], None]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ends = ends
        self._open = set(range(len(ends)))
        self._take = take
        self._taken = taken
        self._loop = loop
        self._waiting: list[deque[bytes]] = [deque() for _ in ends]
        self.dropped = 0
        """Packets that a worker did not take."""
        self._writers = [guard(partial(self._write, worker)) for worker in range(len(ends))]
        self._turn = guard(self._read_all)
        self._timer: asyncio.TimerHandle | None = None
        self._sleep()

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
        """Neither read nor send anything more; what workers have sent so far is taken."""
        if self._timer is not None:
            self._timer.cancel()
        for worker, end in enumerate(self._ends):
            self._loop.remove_reader(end.fileno())
            self._loop.remove_writer(end.fileno())
            self._read(worker)

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

    def _sleep(self) -> None:
        """Wait for a worker to send something."""
        self._timer = None
        for worker in self._open:
            self._loop.add_reader(self._ends[worker].fileno(), self._wake)

    def _wake(self) -> None:
        for worker in self._open:
            self._loop.remove_reader(self._ends[worker].fileno())
        if self._timer is None:
            self._timer = self._loop.call_later(GATHER, self._turn)

    def _read_all(self) -> None:
        self._timer = self._loop.call_later(GATHER, self._turn)
        count = sum(self._read(worker) for worker in list(self._open))
        if count:
            self._taken()
        else:
            self._timer.cancel()
            self._sleep()

    def _read(self, worker: int) -> int:
        """Return how many packets were there; an end that is closed is not read again."""
        end = self._ends[worker]
        for count in range(TURN):
            try:
                packet = end.recv(PACKET_MAX + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return count
            except ConnectionResetError:  # the other end was closed with answers unread; what it sent follows
                continue
            except OSError:
                packet = b""
            if not packet:  # nobody has the other end any more
                self._open.discard(worker)
                return count
            self._take(worker, packet)
        return TURN
