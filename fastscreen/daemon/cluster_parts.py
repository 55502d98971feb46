"""What the supervisor holds for the cluster process: its sockets, shared memory and child."""

from __future__ import annotations

import mmap
import socket

from fastscreen.cluster import requests, state, worker_sockets
from fastscreen.cluster.records import Lifetime, Lifetimes
from fastscreen.cluster.state import ClusterState
from fastscreen.config import Config
from fastscreen.process import rpc
from fastscreen.process.child import Child
from fastscreen.screening import policy

_OFFENSES_BUFFER = 1 << 18  # bytes


def lifetimes(config: Config) -> Lifetimes:
    """How long a pass of each test is valid with a configuration."""
    return tuple(Lifetime(*each) if each is not None else None for each in policy.pass_lifetimes(config))


class ClusterParts:
    """Made before any process is forked, for a fixed number of workers. The ends outlive the processes."""

    def __init__(self, workers: int) -> None:
        self.child = Child("cluster", kind="cluster")
        self.worker_pairs = [worker_sockets.pair() for _ in range(workers)]
        """By worker: its end and the cluster process's."""
        self.requests: tuple[socket.socket, socket.socket] = requests.pair()
        """Of the control server: its end and the cluster process's."""
        self.offenses: tuple[socket.socket, socket.socket] = rpc.pair(_OFFENSES_BUFFER)
        """Of the recorder: its end and the cluster process's."""
        self.memory = memoryview(mmap.mmap(-1, state.SIZE))
        self.state = ClusterState(self.memory)

    def close(self, *keep: socket.socket) -> None:
        """In a child: close all ends but those that it needs."""
        for end in (*self.requests, *self.offenses, *(end for pair in self.worker_pairs for end in pair)):
            if end not in keep:
                end.close()
