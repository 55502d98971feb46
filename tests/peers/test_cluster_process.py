"""Cluster processes as the supervisor forks them, with real servers and cache files."""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bench.ports import free_port
from fastscreen import config
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.stamps import TESTS
from fastscreen.cluster import files, packets, process, requests, sharing, state, worker_sockets
from fastscreen.cluster.deletion_file import DeletionFile
from fastscreen.cluster.packets import Item
from fastscreen.cluster.process import ClusterArgs, ClusterProcess
from fastscreen.cluster.records import Lifetime
from fastscreen.cluster.requests import Asked, Check, Checked, Delete, DeletedElsewhere, Deleting, Failed, Get, Known
from fastscreen.cluster.state import ClusterState, ClusterStats
from fastscreen.config.model import ClusterConfig
from fastscreen.control.cache_store import Store
from fastscreen.core import read_record, write_record
from fastscreen.process import child, conditions, ipc, rpc
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.ipc import Ready, Stop
from peers.redis_server import RedisServer

DAY = 86400
KEY = b"\xc0\x00\x02\x01"
LINES = 1 << 16


class Process:
    """A cluster process of one host, with its sockets as workers and control server have them."""

    def __init__(
        self, folder: Path, url: str, name: str, workers: int = 2, keeps_deletions: bool = True, **settings: Any
    ) -> None:
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        secret = folder / "secret"
        secret.write_text("the secret of these hosts\n")
        cluster = ClusterConfig(**{"server": url, "name": name, "secret_file": str(secret)} | settings)
        self.config = msgspec.structs.replace(config.default(), cluster=cluster)
        self.cache = Store(self.folder / "cache.lmdb", 1 << 24)
        self._lines = mmap.mmap(-1, LINES)
        self.heartbeat = memoryview(mmap.mmap(-1, 1))
        self.conditions = Conditions(memoryview(mmap.mmap(-1, conditions.SIZE)))
        self._state = ClusterState(memoryview(mmap.mmap(-1, state.SIZE)))
        pairs = [worker_sockets.pair() for _ in range(workers)]
        self.workers = [theirs for theirs, _ in pairs]
        self.control, control = requests.pair()
        self.channel, channel = ipc.pair()
        self._number = 0
        self.pid = os.fork()
        if not self.pid:
            code = 99
            try:
                args = ClusterArgs(
                    channel,
                    self.heartbeat,
                    self.conditions,
                    [ours for _, ours in pairs],
                    control,
                    self._state,
                    lambda: files.read(cluster),
                    lambda config: (Lifetime(config.greet.ttl, config.greet.ttl),) * TESTS,
                    self.cache,
                    DeletionFile(self.folder / "cache.lmdb") if keeps_deletions else None,
                    "1.0",
                )
                for theirs in (self.channel, self.control, *self.workers):
                    theirs.close()
                code = ClusterProcess(self.config, self._target(), args).run()
            finally:
                os._exit(code)
        channel.close()

    def _target(self) -> Any:
        def note(text: str) -> None:
            self._lines.write(f"{text}\n".encode())

        log = SimpleNamespace(warning=note, info=note, flush=lambda: None)
        return SimpleNamespace(log=log, reopen=lambda: None, tick=lambda: None, close=lambda: None)

    def lines(self) -> list[str]:
        return self._lines[:LINES].rstrip(b"\0").decode().splitlines()

    def report(self) -> Any:
        self.channel.settimeout(5)
        return ipc.receive_report(self.channel) if wait(self._has_report, "a report") else None

    def _has_report(self) -> bool:
        try:
            return bool(self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def stats(self) -> ClusterStats:
        found: ClusterStats = wait(self._state.read, "the state")
        return found

    def keep(self, key: bytes, stamps: tuple[int, ...], worker: int = 0) -> None:
        for packet in packets.encode_keep([Item(packets.PASS, key, write_record(stamps))]):
            self.workers[worker].send(packet)

    def look_up(self, key: bytes, worker: int = 0, seconds: float = 0.5) -> tuple[int, ...] | None:
        for packet in packets.encode_look_up([key]):
            self.workers[worker].send(packet)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                found = packets.decode(self.workers[worker].recv(5000))
            except BlockingIOError:
                time.sleep(0.001)
                continue
            assert isinstance(found, packets.Found) and found.items[0].key == key
            return read_record(found.items[0].record)
        return None

    def ask(self, question: requests.Question) -> Any:
        self._number += 1
        rpc.send(self.control, Asked(self._number, question))
        while True:
            answered = wait(lambda: requests.receive_answer(self.control), f"an answer to {question}")
            if answered.number == self._number:
                return answered.answer

    def code(self) -> int:
        _, status = wait(lambda: (found := os.waitpid(self.pid, os.WNOHANG))[0] and found, "the end")
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def stop(self) -> int:
        ipc.send(self.channel, Stop())
        return self.code()

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def close(self) -> None:
        self.kill()
        for end in (self.channel, self.control, *self.workers):
            end.close()
        self.cache.close()


def wait(found: Callable[[], Any], what: str, seconds: float = 6.0) -> Any:
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"after {seconds:g} s still waiting for {what}"
        time.sleep(0.005)
    return result


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "TICK", 0.1)
    monkeypatch.setattr(process, "GRACE", 0.5)
    monkeypatch.setattr(sharing, "REFRESH_SECONDS", 0.3)
    monkeypatch.setattr(sharing, "SETTLED_SECONDS", 0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(url: str, name: str = "mx1", **settings: Any) -> Process:
        started.append(Process(tmp_path, url, name, **settings))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def in_days(days: float) -> tuple[int, ...]:
    return (int(time.time() + days * DAY),) * TESTS


def store_locally(process: Process, key: bytes, stamps: tuple[int, ...]) -> None:
    cache = LmdbCache(process.cache.path, warn=pytest.fail, log=pytest.fail, wake=lambda callback: callback())
    cache.open()
    cache.keep(key, write_record(stamps))
    cache.close()


def test_two_hosts_from_start_to_end(server: RedisServer, start: Callable[..., Process]) -> None:
    server.client.flushall()
    one, two = start(server.url, "mx1"), start(server.url, "mx2")
    assert one.report() == two.report() == Ready()
    wait(lambda: one.stats().connected and two.stats().connected, "a connection", 3)
    stamps = in_days(0.5)
    assert two.look_up(KEY) is None
    one.keep(KEY, stamps, worker=1)
    kept = time.monotonic()
    found = None
    while found is None and time.monotonic() < kept + 1:
        found = two.look_up(KEY, seconds=0.05)
    assert found == stamps
    assert one.look_up(KEY) == stamps

    known = two.ask(Get(KEY))
    assert isinstance(known, Known)
    assert (known.stamps, known.host) == (stamps, "mx1")
    assert time.time() - known.stored < 10
    assert isinstance(two.ask(Get(b"too long a key that is no client's")), Failed)
    assert isinstance(two.ask(Delete("192.0.2.1/24")), Failed)
    checked = two.ask(Check())
    assert isinstance(checked, Checked)
    assert 0 < checked.seconds < 1
    assert checked.server == f"127.0.0.1:{server.port}"

    store_locally(two, KEY, stamps)
    name = "fastscreen:p:" + KEY.hex()
    old = server.client.get(name)
    assert one.ask(Delete("192.0.2.0/24")) == Deleting(True)
    deleted = time.monotonic()
    wait(lambda: two.cache.get(KEY) is None, "the deletion at the other host", 1)
    assert time.monotonic() - deleted < 1
    note = wait(lambda: requests.receive_answer(two.control), "a note about it", 1)
    assert note.number == 0
    assert isinstance(note.answer, DeletedElsewhere)
    assert (note.answer.network, note.answer.host) == ("192.0.2.0/24", "mx1")
    wait(lambda: not server.client.exists(name), "the record to be removed")
    server.client.set(name, old)  # by somebody who has kept it
    assert two.look_up(KEY, seconds=0.2) is None

    for packet in (b"", b"X", b"L\x04abc", b"K\0\4abcd\2\xff\xff", b"L" + bytes(5000), b"F\0\4abcd\0"):
        one.workers[0].send(packet or b"L")
    wait(lambda: one.stats().malformed_packets == 6, "packets to be counted", 3)
    wait(lambda: two.stats().ignored["deleted"] == 1, "the deleted record to be counted", 3)
    stats = two.stats()
    assert stats.hits == 1
    assert (stats.role, stats.name, stats.deletions) == ("primary", "mx2", 1)
    assert 0 < stats.round_trip < 1
    wait(lambda: [peer.name for peer in one.stats().peers] == ["mx2"], "the other host to be seen", 7)
    assert not one.stats().peers[0].away
    assert one.heartbeat[0] > 0
    assert one.conditions.read() == two.conditions.read() == []

    # What comes last is stored before the end.
    other = b"\xc0\x00\x03\x01"
    one.keep(other, stamps)
    assert one.stop() == 0
    assert two.look_up(other) == stamps
    assert two.stop() == 0
    assert not [line for line in (*one.lines(), *two.lines()) if "error" in line]


def test_a_server_that_starts_later(start: Callable[..., Process], tmp_path: Path) -> None:
    port = free_port()
    process = start(f"redis://127.0.0.1:{port}")
    assert process.report() == Ready()
    stamps = in_days(0.5)
    process.keep(KEY, stamps)
    assert isinstance(process.ask(Check()), Failed)
    assert process.ask(Delete("198.51.100.0/24")) == Deleting(False)
    [condition] = wait(process.conditions.read, "a condition")
    assert condition.kind is Kind.CLUSTER
    assert re.fullmatch(rf"cluster: 127.0.0.1:{port}: .*refused.*; clients are screened without it", condition.text)
    assert process.stats().queue_records == 1
    assert process.stats().queue_age > 0.2
    server = RedisServer(tmp_path / "late", port=port)
    try:
        wait(lambda: process.stats().connected and not process.stats().queue_records, "the pass to be stored")
        assert process.look_up(KEY) == stamps
        wait(lambda: not process.conditions.read(), "the condition to end", 2)
        assert server.client.zcard("fastscreen:deleted") == 1
        assert sum("refused" in line for line in process.lines()) == 1
        assert any("works again" in line for line in process.lines())
    finally:
        server.close()


def test_deletions_that_are_lost_are_logged(start: Callable[..., Process]) -> None:
    """Without a cache, there is no folder for a file."""
    process = start(f"redis://127.0.0.1:{free_port()}", keeps_deletions=False)
    assert process.report() == Ready()
    for number in range(7):
        assert process.ask(Delete(f"192.0.{number}.0/24")) == Deleting(False)
    assert process.stop() == 0
    [line] = [line for line in process.lines() if "deletion" in line]
    assert line == (
        "cluster: deletions were not sent to the server, so other hosts keep these clients: 192.0.0.0/24, "
        "192.0.1.0/24, 192.0.2.0/24, 192.0.3.0/24, 192.0.4.0/24, …; run `fastscreen cache delete` again when the "
        "server is back"
    )


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_a_restart_keeps_deletions(
    start: Callable[..., Process], tmp_path: Path, end: Callable[[Process], object]
) -> None:
    """A host deletes while the server is down, and restarts; another host has the clients in its cache."""
    url = f"redis://127.0.0.1:{(port := free_port())}"
    one, two = start(url, "mx1"), start(url, "mx2")
    assert one.report() == two.report() == Ready()
    store_locally(two, KEY, in_days(0.5))
    assert one.ask(Delete("192.0.2.0/24")) == Deleting(False)
    assert one.ask(Delete("2001:db8::/64")) == Deleting(False)
    file = deletions_of(one)
    assert file.stat().st_mode == 0o100600
    deleted = int(time.time())
    end(one)
    assert file.exists()
    if end is Process.stop:
        assert one.lines()[-1] == (
            "cluster: deletions are sent to the server after the next start: 192.0.2.0/24, 2001:db8::/64"
        )
    server = RedisServer(tmp_path / "late", port=port)
    try:
        wait(lambda: two.stats().connected, "a connection", 8)
        assert two.cache.get(KEY) is not None
        again = start(url, "mx1")
        wait(lambda: two.cache.get(KEY) is None, "the other host to delete", 5)
        wait(lambda: not file.exists(), "the file to be removed")
        assert [path.name for path in file.parent.glob("*deletions*")] == []
        scores = server.client.zrange("fastscreen:deleted", 0, -1, withscores=True)
        assert len(scores) == 2
        assert all(deleted - 2 <= int.from_bytes(value[6:10], "big") <= deleted for value, _ in scores)
        wait(lambda: again.stats().deletions == 2, "the statistics")
        assert again.stop() == 0
    finally:
        server.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version":2,"deletions":[]}', b'{"version":1,"deletions":[{"network":"x","time":1}]}']
)
def test_a_damaged_file_of_deletions(start: Callable[..., Process], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mx1").mkdir()
    file = tmp_path / "mx1" / "cache.lmdb.deletions"
    file.write_bytes(content)
    process = start(f"redis://127.0.0.1:{free_port()}")
    assert process.report() == Ready()
    [line] = [line for line in process.lines() if "deletions" in line]
    assert line.startswith(f"cluster: {file} is damaged, and now named cache.lmdb.deletions.damaged: ")
    assert line.endswith("; deletions that the server does not have yet may be lost at a restart")
    assert file.with_name(f"{file.name}.damaged").read_bytes() == content
    assert process.ask(Delete("192.0.2.0/24")) == Deleting(False)
    assert b"192.0.2.0/24" in file.read_bytes()


def test_a_file_of_deletions_that_cannot_be_written(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start(f"redis://127.0.0.1:{free_port()}")
    assert process.report() == Ready()
    for name in ("cache.lmdb.deletions", "cache.lmdb.deletions.damaged"):
        (process.folder / name / "in the way").mkdir(parents=True)
    for _ in range(2):
        assert process.ask(Delete("192.0.2.0/24")) == Deleting(False)
    assert process.stop() == 0
    lines = [line for line in process.lines() if "deletions" in line]
    assert len(lines) == 2
    assert "may be lost at a restart" in lines[0]
    assert "run `fastscreen cache delete` again" in lines[1]


def deletions_of(process: Process) -> Path:
    return DeletionFile(process.cache.path).path


def test_records_of_strangers_are_a_condition(server: RedisServer, start: Callable[..., Process]) -> None:
    server.client.flushall()
    process = start(server.url)
    wait(lambda: process.stats().connected, "a connection")
    server.client.set("fastscreen:p:c0000201", b"\x01\x00" + bytes(8) + b"\x03mx9" + bytes(30))
    assert process.look_up(KEY, seconds=0.2) is None
    [condition] = wait(process.conditions.read, "a condition")
    assert condition.kind is Kind.CLUSTER_RECORDS
    assert process.stats().ignored["bad_mac"] == 1
    assert sum("no known secret" in line for line in process.lines()) == 1


@pytest.mark.parametrize(("ahead", "words"), [(3600, "1 h ahead of"), (-3600, "1 h behind")])
def test_a_wrong_clock_is_a_condition(
    server: RedisServer, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, ahead: int, words: str
) -> None:
    real, wrong = time.time, mmap.mmap(-1, 1)
    wrong[0] = 1
    with monkeypatch.context() as patched:
        patched.setattr(process, "time", SimpleNamespace(time=lambda: real() + ahead * wrong[0]))
        one = start(server.url)
    wait(lambda: one.stats().connected, "a connection")
    [condition] = wait(one.conditions.read, "a condition")
    assert condition.kind is Kind.CLUSTER_CLOCK
    assert condition.text.startswith(f"cluster: this host's clock is {words} that of the server; ")
    assert "set the clock" in condition.kind.remedy
    wrong[0] = 0
    wait(lambda: not one.conditions.read(), "the condition to end")
    assert sum("this host's clock is" in line for line in one.lines()) == 1
    assert sum("clock agrees" in line for line in one.lines()) == 1


def test_two_hosts_of_one_name(
    server: RedisServer, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sharing, "PREDECESSOR_SECONDS", 0.0)
    monkeypatch.setattr(process, "NAMESAKE_SECONDS", 1.0)
    server.client.flushall()
    (tmp_path / "other").mkdir()
    one, two = start(server.url), Process(tmp_path / "other", server.url, "mx1")
    try:
        wait(lambda: one.stats().connected and two.stats().connected, "the connections")
        [condition] = wait(one.conditions.read, "a condition")
        assert condition.kind is Kind.CLUSTER_NAME
        assert condition.text.startswith("cluster: another host has the name mx1, too; ")
        wait(two.conditions.read, "a condition at the other host")
    finally:
        two.close()
    wait(lambda: not one.conditions.read(), "the condition to end")
    assert sum("another host has the name" in line for line in one.lines()) == 1


def test_a_host_of_the_same_name_may_be_a_former_process_at_first(
    server: RedisServer, start: Callable[..., Process], tmp_path: Path
) -> None:
    """For a minute after the start."""
    server.client.flushall()
    (tmp_path / "other").mkdir()
    one, two = start(server.url), Process(tmp_path / "other", server.url, "mx1")
    try:
        wait(lambda: one.stats().connected and two.stats().connected, "the connections")
        entries = set()

        def refreshed() -> bool:
            entries.add(server.client.hget("fastscreen:hosts", "mx1"))
            return len(entries) > 8

        wait(refreshed, "both to have seen the other's entry several times", 20)
        assert not one.conditions.read()
        assert not two.conditions.read()
    finally:
        two.close()


def test_a_successor_has_the_same_name(
    server: RedisServer, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sharing, "PREDECESSOR_SECONDS", 1.5)
    server.client.flushall()
    (tmp_path / "other").mkdir()
    one, two = start(server.url), Process(tmp_path / "other", server.url, "mx1")
    try:
        wait(lambda: one.stats().connected and two.stats().connected, "the connections")
        one.control.shutdown(socket.SHUT_RDWR)
        time.sleep(3.5)
        assert not one.conditions.read()
        assert not two.conditions.read()
    finally:
        two.close()


def test_a_reload(server: RedisServer, start: Callable[..., Process]) -> None:
    server.client.flushall()
    process = start(server.url)
    assert process.report() == Ready()
    wait(lambda: process.stats().connected, "a connection")
    process.keep(KEY, in_days(0.9))
    wait(lambda: process.stats().stored == 1, "the pass to be stored")
    greet = msgspec.structs.replace(process.config.greet, ttl=3600)
    ipc.send_reload(process.channel, msgspec.structs.replace(process.config, greet=greet), {})
    assert process.report() == Ready()
    found = process.look_up(KEY)
    assert found is not None
    assert abs(found[0] - time.time() - 3600) < 5, "a pass is valid for no longer than one of this host's own"
    cluster = msgspec.structs.replace(process.config.cluster, accept=())
    ipc.send_reload(process.channel, msgspec.structs.replace(process.config, cluster=cluster), {})
    assert process.report() == Ready()
    assert process.look_up(KEY, seconds=0.2) is None


@pytest.mark.parametrize(
    ("settings", "code", "why"),
    [
        ({"secret_file": "/nonexistent"}, 1, "/nonexistent: No such file or directory"),
        ({"secret_file": "/dev/null"}, 2, "cluster.secret_file: /dev/null: is empty"),
        ({"server": "http://mx"}, 2, "cluster.server: not the URL of a server"),
    ],
)
def test_it_does_not_start(start: Callable[..., Process], settings: dict[str, str], code: int, why: str) -> None:
    process = start(settings.pop("server", "redis://127.0.0.1:1"), **settings)
    report = process.report()
    assert isinstance(report, ipc.Failed)
    assert report.code == code
    assert why in report.why
    assert process.code() == code


def test_a_server_that_announces_a_reply_of_any_size(start: Callable[..., Process], tmp_path: Path) -> None:
    """Nothing is allocated for it, and the process lives."""
    path = tmp_path / "hostile"
    pid = os.fork()
    if not pid:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                words = data.count(b"*")
                writer.write(b"*2000000000\r\n" + b":1\r\n" * 1000 if b"PING" in data else b"+OK\r\n" * words)

        async def work() -> None:
            await asyncio.start_unix_server(serve, str(path))
            await asyncio.sleep(60)

        try:
            asyncio.run(work())
        finally:
            os._exit(1)
    try:
        wait(path.exists, "the server")
        process = start(f"unix://{path}")
        assert process.report() == Ready()
        wait(lambda: process.stats().problem, "a problem")
        time.sleep(1.5)
        text = Path(f"/proc/{process.pid}/status").read_text()
        assert int(re.findall(r"VmData:\s+(\d+)", text)[0]) < 800_000
        assert not process.stats().connected
        assert process.ask(Delete("192.0.2.0/24")) == Deleting(False)
        assert process.stop() == 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
