"""Hosts that share passes: complete daemons with one MTA, the clients that visit them, the network, forged records."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from robust.control import Control, conditions
from robust.fakemta import BACKLOG, GREETING, FakeMta, folder_for
from robust.harness import COMMAND, TEASER, TIMEOUT, USER, Screener, wait_until
from robust.reachable import wrap

from bench.ports import free_port
from fastscreen.cache.stamps import Stamps, parse_stamps
from fastscreen.cluster import records, secrets, tombstones
from fastscreen.cluster.records import record_name
from fastscreen.control.cache_store import Store
from peers import needs, processes
from peers.namespace import Namespace
from peers.redis_server import RedisServer

SECRET = b"the secret of these hosts\n"
PREFIX = b"fastscreen:"
WAIT = 3.0
"""The greet wait of all hosts (s)."""
LATE = 3.0
"""What a good client may wait longer than that (s): the machine may be busy. A client that waited for the cluster would
wait for BUDGET."""
EARLY = 0.5
"""What a client may wait less than that (s): the wait begins when the worker looks at its sockets, and on a busy
machine the worker may be stopped before it accepts the client."""
SHARED = 2.0
"""A client that another host knows waits for less than this (s), well below the greet wait: on a quiet machine for less
than 0.6 s, on a busy one for more than 1 s."""
BUDGET = 10
"""The time that answers of the cluster have (s)."""

Settings = dict[str, Any]
Passes = dict[bytes, Stamps]
"""Stamps by cache key."""


class Visit(NamedTuple):
    """A client's connection. began: s, monotonic. teaser, greeting: s after the connect until they came."""

    source: str
    host: str
    began: float
    teaser: float
    greeting: float
    said: bytes

    @property
    def is_served(self) -> bool:
        """By the MTA, with nothing before it but the teaser."""
        return self.said in (GREETING, TEASER + GREETING)

    @property
    def is_shared(self) -> bool:
        """Served at once, as a client that is known. What one with a teaser waited to be accepted does not count."""
        waited = self.greeting - self.teaser if self.said.startswith(TEASER) else self.greeting
        return self.is_in_time and waited < SHARED

    @property
    def is_tested(self) -> bool:
        """Served after the greet wait, and no later than without a cluster."""
        return self.said == TEASER + GREETING and self.is_in_time and self.greeting > WAIT - EARLY

    @property
    def is_in_time(self) -> bool:
        """Served, and no later than an unknown client without a cluster."""
        return self.is_served and self.teaser < LATE and self.greeting < WAIT + LATE


class Host(Screener):
    """A daemon. altered: statements that it runs first, before it forks anything. inside: enters a namespace.

    more: other tables of the configuration, from its folder.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        cluster: Settings,
        mta: Path,
        *,
        workers: int = 1,
        altered: str = "",
        namespace: Namespace | None = None,
        more: Callable[[Path], Settings] = lambda _: {},
    ) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        folder_for(USER, folder)
        self.name = name
        self.namespace = namespace
        self.cache = folder / "cache"
        self.control = folder / "control"
        secret = folder / "secret"
        secret.write_bytes(SECRET)
        program = COMMAND
        if altered:
            program = folder / "altered"
            program.write_text(
                f"#!{sys.executable}\nimport sys\nfrom fastscreen.cli import main\n{altered}\nsys.exit(main())\n"
            )
            program.chmod(0o755)
        number = name.removeprefix("mx")
        super().__init__(
            folder,
            {
                "listen": {"addresses": [f"127.9.0.{number}:0"], "workers": workers},
                "handoff": {"to": f"pass:{mta}"},
                "greet": {"wait": f"{WAIT:g}s"},
                "cache": {"path": str(self.cache)},
                "control": {"path": str(self.control)},
                "cluster": {"secret_file": str(secret), "name": name, "budget": f"{BUDGET}s", **cluster},
                **more(folder),
            },
            command=[*(namespace.inside if namespace is not None else []), str(wrap(program, folder))],
        )

    def cluster_pids(self) -> list[int]:
        """Of the cluster process, and after a restart of its predecessor while that is needed."""
        found = []
        for pid in self.workers():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "fastscreen-clus":
                    found.append(pid)
        return found

    def cpu_of_each(self) -> dict[int, float]:
        """CPU seconds that each of its processes has used."""
        found = {}
        for pid in self.workers():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def passes(self) -> Passes:
        """What its cache file has."""
        cache = Store(self.cache)
        try:
            entries, more = cache.entries(None, b"", 100_000)
            assert not more
            return dict(entries)
        finally:
            cache.close()

    def wait_for_cache(self, *sources: str) -> None:
        """Until the cache file has these clients."""
        wanted = {key_of(source) for source in sources}
        until(lambda: wanted <= self.passes().keys(), f"the cache file of {self.name}")

    def wait_for_deletion(self, *sources: str) -> None:
        """Until neither the cache file has them nor a worker that has not written them yet."""
        with Control(self.control) as control:
            until(
                lambda: all(control.ok("cache.get", address=source) is None for source in sources),
                f"{self.name} to delete clients",
            )

    def wait_for_lines(self, event: str, *sources: str) -> None:
        """Until the log has this event of each of these clients."""
        until(lambda: set(sources) <= self.clients(event), f"{event} at {self.name}")

    def wait_for_condition(self, pattern: str = ".", seconds: float = TIMEOUT) -> None:
        """Until the cluster's condition has this in its text."""

        def what() -> str:
            said = "\n".join(self.lines(" cluster: "))
            return f"{pattern!r} at {self.name}; its condition: {self.condition()!r}; its log:\n{said}"

        until(lambda: re.search(pattern, self.condition()), what, seconds)

    def wait_for_end(self) -> None:
        """Until the cluster's condition has ended."""
        until(lambda: not self.condition(), lambda: f"the condition at {self.name} to end: {self.condition()}")

    def clients(self, event: str) -> set[str]:
        """Addresses of the clients with this event in the log, `PASS OLD` for instance."""
        return {found[1] for line in self.lines(f" {event} ") if (found := re.search(r" \[([\d.]+)\]:\d", line))}

    def connected(self, number: int = 1, seconds: float = TIMEOUT) -> str:
        """Wait for the line that says so for the so-many-th time."""
        return self.line(" cluster: connected to ", number, seconds)

    def count(self, pattern: str) -> int:
        return len(self.lines(pattern))

    def cluster_status(self) -> Settings:
        """What `fastscreen status` shows of the cluster."""
        with Control(self.control) as control:
            found: Settings = control.ok("status")["cluster"]
            return found

    def condition(self, kind: str = "cluster") -> str:
        """What `fastscreen status` shows under this kind; empty: nothing."""
        return str(conditions(self.control).get(kind, ""))


class Site:
    """Hosts behind which one MTA is. The folder is reachable for the hosts' user. `close` stops everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mta = FakeMta(folder / "mta")
        self.mta.start(1000)
        self.hosts: list[Host] = []
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.mta.close)

    def add(self, name: str, cluster: Settings, **options: Any) -> Host:
        """A host that `start` starts."""
        host = Host(self.folder / name, name, cluster, self.mta.path, **options)
        self.hosts.append(host)
        return host

    def keep(self, peer: Any) -> Any:
        """Close it in the end, after the hosts."""
        self._stack.callback(peer.close)
        return peer

    def start(self) -> None:
        """Start all hosts at once, and wait until they listen."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(Host.start, self.hosts))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for host in self.hosts:
                if host.process is not None:
                    host.process.terminate()
            for host in self.hosts:
                host.stop()


# ---- clients


def client_of(host: Host, source: str) -> socket.socket:
    """A socket with this address, where the host is."""
    family, kind = socket.AF_INET, socket.SOCK_STREAM
    made = host.namespace.socket(family, kind) if host.namespace is not None else socket.socket(family, kind)
    made.setblocking(False)
    made.bind((source, 0))
    return made


async def visit(host: Host, source: str, client: socket.socket) -> Visit:
    """A well-behaved client: it waits for the MTA's greeting, and leaves."""
    loop = asyncio.get_running_loop()
    said, teaser = b"", float("inf")
    with client:
        began = time.monotonic()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_connect(client, host.address)
                while GREETING not in said and (some := await loop.sock_recv(client, 1000)):
                    said += some
                    teaser = min(teaser, time.monotonic() - began)
        return Visit(source, host.name, began, teaser, time.monotonic() - began, said)


def visits(*wanted: tuple[Host, str]) -> list[Visit]:
    """These clients at once, but no more than the stand-in for the MTA lets wait at its socket."""
    clients = [(host, source, client_of(host, source)) for host, source in wanted]
    places = asyncio.Semaphore(BACKLOG)

    async def place(host: Host, source: str, client: socket.socket) -> Visit:
        async with places:
            return await visit(host, source, client)

    async def work() -> list[Visit]:
        return await asyncio.gather(*(place(*client) for client in clients))

    return asyncio.run(work())


def pass_at(host: Host, *sources: str) -> None:
    """Unknown clients pass the tests there."""
    for each in visits(*((host, source) for source in sources)):
        assert each.is_tested, each


def known_at(host: Host, *sources: str) -> None:
    """Clients that passed elsewhere are served at once, as known ones."""
    for each in visits(*((host, source) for source in sources)):
        assert each.is_shared, each


class Load:
    """Clients at a steady rate, in a thread, until the end of the block. plan(number): where the next one goes."""

    def __init__(self, rate: float, plan: Callable[[int], tuple[Host, str]]) -> None:
        self._rate = rate
        self._plan = plan
        self.visits: list[Visit] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        tasks: list[asyncio.Task[Visit]] = []
        first = time.monotonic()
        while not self._over.is_set():
            host, source = self._plan(len(tasks))
            tasks.append(asyncio.create_task(visit(host, source, client_of(host, source))))
            await asyncio.sleep(first + len(tasks) / self._rate - time.monotonic())
        self.visits = await asyncio.gather(*tasks)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def addresses(block: int, count: int) -> list[str]:
    """Different clients for each block."""
    return [f"127.{100 + block}.{number // 250}.{1 + number % 250}" for number in range(count)]


def key_of(source: str) -> bytes:
    return socket.inet_aton(source)


# ---- what the server has


def stored(server: RedisServer) -> dict[bytes, bytes]:
    """The values by cache key."""
    names = server.client.keys(PREFIX + b"p:*")
    values = server.client.mget(names) if names else []
    found = {
        bytes.fromhex(name.removeprefix(PREFIX + b"p:").decode()): value
        for name, value in zip(names, values, strict=True)
    }
    return {key: value for key, value in found.items() if value is not None}


def name_of(source: str) -> bytes:
    """Of a client's record."""
    return PREFIX + record_name(key_of(source))


def stamps_of(key: bytes, value: bytes, secret: bytes = SECRET) -> Stamps:
    """What a record says, if its signature is right."""
    sealed = records.unseal(secrets.parse(secret, "secret"), records.PASS_LABEL, record_name(key), value)
    assert isinstance(sealed, records.Sealed), sealed
    return parse_stamps(sealed.body)


def lacks(server: RedisServer, *hosts: Host) -> list[str]:
    """Clients in the hosts' cache files whose record in the server is missing, or is older."""
    values = stored(server)
    return [
        f"{host.name}: {socket.inet_ntoa(key)}"
        for host in hosts
        for key, stamps in host.passes().items()
        if key not in values or max(stamps_of(key, values[key])) < max(stamps)
    ]


def publish_deletion(server: RedisServer, network: str, *, secret: bytes = SECRET, host: str = "mx9") -> None:
    """Delete a network's passes, as a host of the cluster does."""
    tombstone = tombstones.Tombstone(ipaddress.ip_network(network), int(time.time()), host)
    value = tombstones.sign(secrets.parse(secret, "secret"), tombstone, 86400)
    server.client.zadd(PREFIX + b"deleted", {value: int(time.time())})
    server.client.publish(PREFIX + b"deleted", value)


# ---- the network


class SlowProxy:
    """A TCP port before a server; whatever goes through it is `delay` s late, each way."""

    def __init__(self, target: int, delay: float) -> None:
        self.delay = delay
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(TIMEOUT)

    async def _run(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pass_on(reader, ours), self._pass_on(theirs, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self._loop.call_later(self.delay, writer.write, data)
        finally:
            self._loop.call_later(self.delay, writer.close)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


class Network:
    """Namespaces: one for the server at ADDRESS, one for each host, with a cable between them that can be cut."""

    ADDRESS = "10.77.0.1"

    def __init__(self, folder: Path, count: int) -> None:
        needs.program("ip")
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text("nameserver 127.0.0.1\n")
        self._stack = contextlib.ExitStack()
        try:
            self.server = self._make(resolv_conf)
            self.hosts = [self._make(resolv_conf) for _ in range(count)]
            _run(self.server, f"ip address add {self.ADDRESS}/32 dev lo")
            for number, host in enumerate(self.hosts):
                pid = host.inside[1].removeprefix("--target=")
                _run(self.server, f"ip link add host{number} type veth peer name server netns {pid}")
                _run(
                    self.server,
                    f"ip address add 10.77.{number + 1}.1/24 dev host{number}",
                    f"ip link set host{number} up",
                )
                _run(host, f"ip address add 10.77.{number + 1}.2/24 dev server", "ip link set server up")
                _run(host, f"ip route add {self.ADDRESS} via 10.77.{number + 1}.1")
        except BaseException:
            self.close()
            raise

    def _make(self, resolv_conf: Path) -> Namespace:
        made = Namespace(resolv_conf)
        self._stack.callback(made.close)
        return made

    @contextlib.contextmanager
    def cut(self, *numbers: int) -> Iterator[None]:
        """These hosts cannot reach the server during the block; nothing tells them so."""
        _run(self.server, *(f"ip link set host{number} down" for number in numbers))
        try:
            yield
        finally:
            _run(self.server, *(f"ip link set host{number} up" for number in numbers))

    def close(self) -> None:
        self._stack.close()


def _run(namespace: Namespace, *commands: str) -> None:
    for command in commands:
        done = subprocess.run([*namespace.inside, *command.split()], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")


class RemoteServer(RedisServer):
    """A server in a namespace of the network; `client` reaches it through its Unix socket."""

    def __init__(self, folder: Path, network: Network) -> None:
        self._namespace = network.server
        super().__init__(folder, "--bind", "0.0.0.0", "--protected-mode", "no")
        self.url = f"redis://{network.ADDRESS}:{self.port}"

    def _start(self, command: list[str]) -> None:
        self._process = processes.start(command, self.folder / "output", inside=self._namespace.inside)


def until(condition: Callable[[], object], what: Callable[[], str] | str, seconds: float = TIMEOUT) -> None:
    """Poll until it is true."""
    wait_until(lambda: bool(condition()), what, seconds)
