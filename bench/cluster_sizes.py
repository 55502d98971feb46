"""The sizes of what a cluster sends and stores: of its requests and replies, and of a pass in the server's memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.cluster_model import Rules
from bench.programs import BenchError
from fastscreen.cache.stamps import DISABLED
from fastscreen.cluster import lookups, sharing, write_behind
from fastscreen.cluster.records import record_name, sign_pass
from fastscreen.cluster.secrets import Secret, Secrets
from fastscreen.cluster.store import HostEntry
from fastscreen.core import TESTS

PREFIX = b"fastscreen:"
HOST = "mx1.example.com"
NOW = 1_800_000_000
_SECRETS = Secrets((Secret(0, bytes(32)),))

PACKET = 52  # bytes: headers of IPv4, and of TCP with time stamps

PASS_BYTES = 246
"""Memory of a pass in the server: `measure` with redis-server 7.0.15, an IPv6 client, all tests, 100,000 passes."""
MEASURED = 100_000
_LOOKUPS = 5000  # requests, for the server's CPU


def bulk(word: bytes) -> bytes:
    """A word as the protocol (RESP2) has it."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def request(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


def key_of(address: bytes) -> bytes:
    """The server's key of a cache key: 4 bytes for IPv4, 17 for the /64 of an IPv6 client."""
    return PREFIX + record_name(address)


def value_of(rules: Rules) -> bytes:
    """A pass, as hosts store it."""
    stamps = tuple(NOW + 1 if test.key in rules.tests else DISABLED for test in TESTS)
    return sign_pass(_SECRETS, bytes(4), stamps, host=HOST, stored=NOW)


@dataclass(frozen=True)
class Traffic:
    """Bytes per second to the server and from it."""

    to_server: float
    from_server: float


def traffic(looked_up: Sequence[float], hit_ratio: float, stores: float, rules: Rules) -> Traffic:
    """The traffic of hosts that look up so many keys per second each, and store so many passes in all.

    Each batch of requests, and of replies, is a packet.
    """
    hosts = len(looked_up)
    key, value = bulk(key_of(bytes(17))), bulk(value_of(rules))
    to_server = from_server = 0.0
    entry = msgspec.json.encode(HostEntry(NOW + 0.123456, "0.1.0", NOW + 0.123456, float(NOW), "0" * 32))
    script = (b"EVALSHA", b"0" * 40, b"200", PREFIX + b"hosts", b"%d" % NOW, b"%d" % 86400, HOST.encode(), entry, b"")
    store = request(*script) + request(b"EXPIRE", PREFIX + b"hosts", b"604800")
    stored = b"*2\r\n:200\r\n:0\r\n:1\r\n"
    record = key + value + b"0"  # a digit for each record is part of an argument
    for keys in looked_up:
        batches = per_batch(keys, lookups.GATHER, lookups.BATCH)
        to_server += batches * (PACKET + len(request(b"MGET")) + 2) + keys * len(key)
        from_server += batches * (PACKET + len(b"*100\r\n")) + keys * (1 - hit_ratio) * len(b"$-1\r\n")
        from_server += keys * hit_ratio * len(value)
        records = stores * keys / sum(looked_up) if stores else 0.0
        batches = per_batch(records, sharing.GATHER, write_behind.BATCH)
        to_server += batches * (PACKET + len(store)) + records * len(record)
        from_server += batches * (PACKET + len(stored))
    refresh = store + request(b"HLEN", PREFIX + b"hosts") + request(b"HGETALL", PREFIX + b"hosts")
    to_server += hosts * (3 * PACKET + len(refresh)) / sharing.REFRESH_SECONDS
    entries = hosts * len(bulk(HOST.encode()) + bulk(entry))
    from_server += hosts * (3 * PACKET + len(stored) + entries) / sharing.REFRESH_SECONDS
    return Traffic(to_server, from_server)


def per_batch(rate: float, gather: float, most: int) -> float:
    """Batches per second: each begins with a key and takes in those that follow within `gather` seconds."""
    return rate / min(1 + rate * gather, most)


# ---- a real server


@dataclass(frozen=True)
class Measured:
    """Bytes per pass: one, by MEMORY USAGE; each, the growth of used_memory, with the server's own tables.

    cpu: s, of the server, for a request of one key.
    """

    one: int
    each: float
    cpu: float


def measure(rules: Rules, address_bytes: int, passes: int = MEASURED) -> Measured:
    """Store passes in a redis-server that is started for this, look some up, and ask for its memory."""
    value = value_of(rules)
    with redis_server() as server:
        before = server.used_memory()
        for first in range(0, passes, 1000):
            keys = [key_of(number.to_bytes(address_bytes)) for number in range(first, min(first + 1000, passes))]
            server.send(b"".join(request(b"SET", key, value, b"EX", b"86400") for key in keys))
            for _ in keys:
                server.reply()
        server.send(request(b"MEMORY", b"USAGE", key_of((passes // 2).to_bytes(address_bytes))))
        one = int(server.reply())
        each = (server.used_memory() - before) / passes
        used = server.cpu()
        for number in range(_LOOKUPS):
            server.send(request(b"MGET", key_of((number * 7919 % passes).to_bytes(address_bytes))))
            if server.reply() != b"1" or server.reply() != value:
                raise BenchError("redis-server does not return what was stored")
        return Measured(one, each, (server.cpu() - used) / _LOOKUPS)


class Server:
    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self._pid = pid
        self._replies = connection.makefile("rb")

    def send(self, requests: bytes) -> None:
        self._connection.sendall(requests)

    def reply(self) -> bytes:
        line = self._replies.readline()
        if line[:1] not in (b"+", b":", b"*", b"$") or not line.endswith(b"\r\n"):
            raise BenchError(f"redis-server replied {line!r}")
        return self._replies.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" else line[1:-2]

    def cpu(self) -> float:
        """CPU time that the server has used (s), user and system."""
        return time.clock_gettime_ns(~self._pid << 3 | 2) / 1e9  # clock_getcpuclockid(3)

    def clients(self) -> int:
        """How many connections the server has, this one included."""
        self.send(request(b"CLIENT", b"LIST"))
        return self.reply().count(b"\n")

    def signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def used_memory(self) -> int:
        self.send(request(b"INFO", b"memory"))
        (line,) = (line for line in self.reply().splitlines() if line.startswith(b"used_memory:"))
        return int(line.partition(b":")[2])


@contextlib.contextmanager
def redis_server(port: int = 0) -> Iterator[Server]:
    """A server of its own on a Unix socket, and on a port of 127.0.0.1 (0: none), without files."""
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("redis-server is not installed: install Debian's package redis-server")
    with tempfile.TemporaryDirectory(prefix="fastscreen-bench-") as folder:
        path = Path(folder) / "socket"
        command = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--dir",
            folder,
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                deadline = time.monotonic() + 10
                while connection.connect_ex(str(path)):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise BenchError("redis-server did not start")
                    time.sleep(0.02)
                yield Server(connection, process.pid)
        finally:
            process.terminate()
            process.wait(10)
