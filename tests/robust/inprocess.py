"""A worker's core in the test process, with lists whose state the test sets and that are not probed."""

import contextlib
import itertools
import json
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fastscreen import core
from fastscreen.config import load
from fastscreen.dns.health.state import HealthTable
from fastscreen.screening import policy
from robust.fakedns import FakeDns
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import wait_until


class Core:
    """Clients connect to `listener`; `serve` runs the core until something is so. settings: more TOML. banner: empty to
    disable the pregreet test."""

    def __init__(
        self,
        folder: Path,
        dns: FakeDns,
        health: HealthTable | None = None,
        *,
        sites: tuple[str, ...] = ("bl.test",),
        wait: str = "1s",
        action: str = "drop",
        dnsbl: str = "",
        settings: str = "",
        banner: str = "",
    ) -> None:
        file = folder / "core.toml"
        file.write_text(
            f'hostname = "mx.test"\nhandoff = {{to = "pass:{folder / "mta"}"}}\n'
            f'greet = {{banner = "{banner}", wait = "{wait}"}}\n'
            f'dnsbl = {{sites = {json.dumps(sites)}, action = {json.dumps(action)}, {dnsbl}min_ttl = "60s"}}\n'
            f"[limits]\npre_queue = 1000\n{settings}\n"
        )
        loaded = load(file)
        if health is not None:
            health.claim(loaded.dnsbl.domains)
        self.stored: dict[bytes, bytes] = {}
        self.log = core.Log("x", host="h", pid=1)
        self.warnings: list[str] = []
        self.log.on_warning = lambda line: self.warnings.append(line.decode())
        self.screener = core.Screener(
            policy.build(loaded, str(folder / "mta"), print, health=health).policy,
            self.log,
            self,
            on_truncated=self.truncated,
            on_drained=lambda: None,
        )
        host, _, port = dns.endpoint.rpartition(":")
        packed = struct.pack("=HH", socket.AF_INET, socket.htons(int(port))) + socket.inet_aton(host) + bytes(8)
        self.screener.use_resolvers([packed])
        self.listener = socket.create_server(("127.9.0.2", 0), backlog=512)
        self.listener.setblocking(False)
        self.screener.listen(self.listener.fileno())
        self.clients = contextlib.ExitStack()

    # ---- as the cache

    def record(self, key: bytes) -> bytes | None:
        return self.stored.get(key)

    def lookup(self, key: bytes) -> tuple[int, ...]:
        raise AssertionError(key)

    def keep(self, key: bytes, record: bytes) -> None:
        self.stored[key] = record

    def end_batch(self) -> None:
        pass

    # ----

    def truncated(self, token: int, name: str) -> None:
        """A worker that asks too much over TCP already."""
        raise RuntimeError("more truncated answers than are asked for at a time")

    def serve(self, until: Callable[[], bool], what: str) -> None:
        def done() -> bool:
            self.screener.run()
            return until()

        wait_until(done, what)

    def connect(self, source: str) -> socket.socket:
        """A client that says nothing; it stays until `hang_up` or the end."""
        client = self.clients.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((source, 0))
        client.connect(self.listener.getsockname())
        client.setblocking(False)
        return client

    def hold(self, sources: Iterable[str]) -> list[socket.socket]:
        """So many clients under test."""
        accepted = self.screener.accepted
        held = [self.connect(source) for source in sources]
        self.serve(lambda: self.screener.accepted == accepted + len(held), "the clients to be accepted")
        return held

    def hang_up(self, clients: Iterable[socket.socket]) -> None:
        sessions, left = self.screener.sessions, 0
        for client in clients:
            client.close()
            left += 1
        self.serve(lambda: self.screener.sessions <= sessions - left, "the end of their sessions")

    def told(self, source: str) -> bytes:
        """All replies to a client."""
        return self.told_to(self.connect(source))

    def told_to(self, client: socket.socket) -> bytes:
        got = [b" "]

        def ended() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(client.recv(1000))
            return not got[-1] or got[-1] == FROM_MTA

        self.serve(ended, "the last word to a client")
        client.close()
        return b"".join(got).strip()

    def asks(self, dns: FakeDns, sources: list[str]) -> None:
        """The list is asked about clients that do not wait for its answers to count."""
        before = dns.count("bl.test")
        for some in batched(sources, 50):
            held = self.hold(some)
            before += len(some)
            self.serve(lambda before=before: dns.count("bl.test") >= before, "the questions")  # type: ignore[misc]
            self.serve(lambda: self.screener.stats()["dns_in_flight"] == 0, "the answers")
            for client in held:
                client.close()

    def close(self) -> None:
        self.clients.close()
        self.listener.close()


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some
