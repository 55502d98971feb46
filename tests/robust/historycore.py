"""A core in the test process that records its sessions."""

import contextlib
import itertools
import mmap
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from peers import profiles

from fastscreen import config
from fastscreen.core import (
    HISTORY_FIELDS,
    HISTORY_MARKS,
    HISTORY_OUTCOMES,
    HISTORY_RING_SIZE,
    HISTORY_TLS,
    SCORERS,
    STAGES,
    TESTS,
    AccessStep,
    HistoryReader,
    Log,
    Screener,
    history_read,
)
from fastscreen.dns.health.state import HealthTable
from fastscreen.screening import policy
from fastscreen.screening.policy import Built
from robust.fakedns import FakeDns
from robust.harness import wait_until

Settings = dict[str, Any]
SERVER = "127.9.0.3"
GREET_WAIT = 0.2
WORKER = 3


class Core:
    """A screener with a port for clients and one for a load balancer's; `dnsbl` names the lists that `dns` serves.

    With room, the ring has only so many records. The greet wait is short unless `settings` has one.
    """

    def __init__(
        self,
        folder: Path,
        opened: ExitStack,
        settings: Settings | None = None,
        *,
        dns: FakeDns | None = None,
        known: int = 1,
        room: int = 0,
        events: memoryview | None = None,
        health: HealthTable | None = None,
        recording: bool = True,
    ) -> None:
        self.folder = folder
        self.opened = opened
        self.stored: dict[bytes, bytes] = {}
        self.drained = False
        self._health = health
        self.built = self.build(settings or {})
        self.memory = ring(room)
        self.reader = HistoryReader(self.memory)
        self.log = Log("x", host="h", pid=1)
        self.screener = Screener(
            self.built.policy,
            self.log,
            self,
            on_truncated=lambda *_: None,
            on_drained=self._drained,
            events=events,
        )
        if recording:
            self.use_history(known)
        if dns is not None:
            host, _, port = dns.endpoint.rpartition(":")
            packed = struct.pack("=HH", socket.AF_INET, socket.htons(int(port))) + socket.inet_aton(host) + bytes(8)
            self.screener.use_resolvers([packed])
        self.port = self.listen()
        self.proxy_port = self.listen(trusted=AccessStep(["permit"]), header_time=30.0)

    def build(self, settings: Settings) -> Built:
        own: Settings = {
            "hostname": "mx.test",
            "user": "",
            "handoff": {"to": f"pass:{self.folder / 'mta'}"},
            "access": {"list": ["permit_mynetworks"], "mynetworks": ["127.8.0.0/16"]},
            "dnsbl": {"probe_interval": 0, "min_ttl": "60s"},
            "greet": {"action": "enforce"},
        }
        file = self.folder / "core.toml"
        file.write_text(profiles.to_toml(profiles.merge(own, settings)))
        loaded = config.load(file)
        if "wait" not in settings.get("greet", {}):
            loaded = replace(loaded, greet=replace(loaded.greet, wait=GREET_WAIT, stress_wait=GREET_WAIT))
        if self._health is not None:
            self._health.claim(loaded.dnsbl.domains)
        return policy.build(loaded, str(self.folder / "mta"), print, health=self._health)

    def use_history(self, known: int = 1, *, fingerprints: bool = True) -> None:
        self.screener.use_history(self.memory, WORKER, known, self.built.description, fingerprints=fingerprints)

    def listen(self, **settings: object) -> socket.socket:
        port = self.opened.enter_context(socket.create_server((SERVER, 0), backlog=512))
        port.setblocking(False)
        self.screener.listen(port.fileno(), **settings)  # type: ignore[arg-type]
        return port

    def _drained(self) -> None:
        self.drained = True

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

    def run(self) -> None:
        self.screener.run()
        self.screener.run_relays()

    def run_until(self, condition: Callable[[], bool], what: str) -> None:
        def ran() -> bool:
            self.run()
            return condition()

        wait_until(ran, what)

    def connect(self, source: str = "127.1.0.1", port: socket.socket | None = None, first: bytes = b"") -> "Client":
        client = self.opened.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((source, 0))
        client.connect((port or self.port).getsockname())
        client.setblocking(False)
        if first:
            client.sendall(first)
        return Client(self, client)

    def end(self) -> None:
        """Run until no session is left."""
        self.run_until(lambda: self.screener.sessions == 0, "the end of all sessions")

    def rows(self, count: int) -> list[dict[str, Any]]:
        """So many records, and not one more, as `plain` shows them; the reader moves on."""
        self.end()
        for _ in range(3):
            self.run()
        rows, lost = self.reader.read(count + 100)
        self.reader.done()
        assert lost == 0
        assert len(rows) == count
        found = []
        for ended, client, packed, outcome, cached in rows:
            fields = history_read(ended, client, packed)
            assert fields is not None
            found.append(plain(dict(zip(HISTORY_FIELDS, fields, strict=True))))
            assert found[-1]["outcome"] == HISTORY_OUTCOMES[outcome]
            assert ("cached" in found[-1].get("marks", ())) == cached
        return found

    def row(self) -> dict[str, Any]:
        return self.rows(1)[0]


class Client:
    """A client whose core runs while it waits. It can also be the plaintext of one in TLS."""

    def __init__(self, core: Core, end: socket.socket) -> None:
        self.core = core
        self.socket = end
        self.got = b""

    def ended(self) -> bool:
        """Read what has come; whether nothing more will."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self.socket.recv(65536):
                self.got += data
            return True
        return False

    def until(self, condition: Callable[[bytes], bool]) -> bytes:
        """What has come when the condition holds for it."""

        def came() -> bool:
            self.ended()
            return condition(self.got)

        self.core.run_until(came, "a reply")
        got, self.got = self.got, b""
        return got

    def reply(self, count: int = 1) -> bytes:
        return self.until(lambda got: len([line for line in got.split(b"\n")[:-1] if line[3:4] != b"-"]) >= count)

    def ask(self, *lines: bytes) -> bytes:
        """One after the other; the last reply."""
        for line in lines:
            self.socket.sendall(line + b"\r\n")
            answer = self.reply()
        return answer

    def rest(self) -> bytes:
        """All that comes until the end."""
        self.core.run_until(self.ended, "the end of the connection")
        self.socket.close()
        return self.got

    def hang_up(self) -> None:
        self.socket.close()


def ring(room: int = 0) -> memoryview:
    """Memory for a ring of so many records; 0: as many as the daemon's."""
    return memoryview(mmap.mmap(-1, HISTORY_RING_SIZE if not room else HISTORY_RING_SIZE - 320 * (16384 - room)))


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """A record with names, of which only the fields that say something are left; without its times and ports.

    These must be plausible. Seconds of a pass are rounded up to minutes.
    """
    assert 0 <= fields.pop("lasted") < 60_000_000
    assert abs(fields.pop("ended") / 1e6 - time.time()) < 60
    assert fields.pop("client_port") > 0
    assert fields.pop("server_port") > 0
    assert fields.pop("settings") > 0
    assert fields.pop("worker") == WORKER
    assert bool(fields.pop("dialect")) == bool(fields["commands"])  # test_history_fingerprints.py
    known = [bool(fields.pop(key)) for key in ("syn_ip", "syn_tcp", "syn_options")]
    assert not known[0] or not fields["proxied"]
    assert all(known) or not any(known)
    assert fields.pop("mta_refused") <= fields.pop("mta_recipients") <= fields["recipients"]  # test_score_session.py
    if fields["weight"] == 1:
        fields["weight"] = 0
    assert fields.pop("server") == socket.inet_aton(SERVER)
    fields["client"] = socket.inet_ntoa(fields["client"])
    fields["outcome"] = HISTORY_OUTCOMES[fields["outcome"]]
    fields["stage"] = STAGES[fields["stage"]]
    fields["tls"] = HISTORY_TLS[fields["tls"]] if fields["tls"] else ""
    fields["marks"] = set(named(fields["marks"], HISTORY_MARKS))
    for key in ("needed", "made", "found", "failed"):
        fields[key] = named(fields[key], tuple(test.key for test in TESTS))
    fields["evidence"] = named(fields["evidence"], tuple(scorer.key for scorer in SCORERS))
    for key in ("listed", "doubtful", "silent", "unasked"):
        fields[key] = named(fields[key], tuple(range(64)))
    fields["answers"] = [
        (number, socket.inet_ntoa(struct.pack("!I", address))) for number, address in fields["answers"]
    ]
    fields["pass_seconds"] = -(-fields["pass_seconds"] // 60) * 60  # what is left of a list's TTL
    said = {key: value for key, value in fields.items() if value not in (0, "", b"", (), set(), [], None)}
    return said if fields["score"] is None else said | {"score": fields["score"]}


def named(bits: int, names: tuple[Any, ...]) -> tuple[Any, ...]:
    assert bits >> len(names) == 0
    return tuple(name for name, number in zip(names, itertools.count(), strict=False) if bits >> number & 1)
