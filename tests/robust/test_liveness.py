"""A worker is alive if its core handles events. After an error it still works or ends, but never hangs."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fastscreen import config
from fastscreen.core import Log, Screener
from fastscreen.screening import policy
from robust.conftest import Alter, Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING
from robust.harness import Screener as Daemon
from robust.proxymta import ProxyMta
from robust.test_relay import greet
from robust.tlsclient import begin, certificates, secure

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
IMPATIENT = (
    "from fastscreen.daemon import children\nfrom fastscreen.process import child\n"
    "child.TICK, children.HEARTBEAT_SECONDS = 0.1, 0.5\n"
)

# A Screener with faults; {run} and {run_relays} are what the loop calls. `due` is True once for each touch of the file.
FAULTY = """
import asyncio, pathlib
from fastscreen.daemon import worker
flag = pathlib.Path("{flag}")
def due():
    there = flag.exists()
    flag.unlink(missing_ok=True)
    return there
def deaf(fileno):
    asyncio.get_running_loop().remove_reader(fileno)
class Faulty:
    def __init__(self, *given, **named):
        self.core = worker_screener(*given, **named)
    def __getattr__(self, name):
        return getattr(self.core, name)
    def run(self):
        {run}
    def run_relays(self):
        {run_relays}
worker_screener, worker.Screener = worker.Screener, Faulty
"""


def faulty(flag: Path, run: str = "return self.core.run()", run_relays: str = "self.core.run_relays()") -> str:
    return FAULTY.format(flag=flag, run=run, run_relays=run_relays)


def assert_served(daemon: Daemon) -> None:
    with daemon.connect("127.7.0.1") as client:
        assert client.read() == FROM_MTA


def core(folder: Path, log: Log, cache: Any = None) -> Screener:
    file = folder / "fastscreen.toml"
    file.write_text('user = ""\nhandoff = {to = "pass:/nonexistent"}\n')
    rules = policy.build(config.load(file), "/nonexistent", print).policy
    return Screener(rules, log, cache, on_truncated=print, on_drained=print)


def test_probe_is_answered_by_both_sets(tmp_path: Path) -> None:
    screener = core(tmp_path, Log("x", host="h", pid=1))
    assert screener.probe()
    assert not screener.probe()
    screener.run()
    assert not screener.probe()
    screener.run_relays()
    assert screener.probe()
    screener.run_relays()
    assert not screener.probe()
    screener.run()
    assert screener.probe()
    for _ in range(3):  # each one is news, though the one before was never read
        screener.run()
        screener.run_relays()
        assert screener.probe()


def test_cache_that_fails_at_the_end_of_a_batch(tmp_path: Path) -> None:
    """What comes behind it is done all the same: the log is written, and the batch counts as completed."""

    class Odd:
        def end_batch(self) -> None:
            raise RuntimeError("injected")

    log = Log("x", host="h", pid=1)
    with (tmp_path / "log").open("wb") as file:
        log.open(file.fileno())
        screener = core(tmp_path, log, Odd())
        screener.probe()
        for _ in range(2):
            screener.run()
            screener.run_relays()
        assert screener.probe()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("x[1]: warning: end of the cache's batch: RuntimeError: injected")


def test_error_in_a_pause(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    """The reader of the core's set is away then; the next batch comes all the same."""
    run = "pause = self.core.run()\n        if due(): raise RuntimeError('injected')\n        return pause or 0.005"
    alter(faulty(folder / "now", run))
    daemon = start(KNOWN)
    assert_served(daemon)
    (folder / "now").touch()
    daemon.line(r"warning: internal error in screening: RuntimeError: injected \(.* in run\)$")
    for _ in range(3):
        assert_served(daemon)
    assert len(daemon.lines("warning")) == 1


def test_worker_that_only_fails_is_replaced(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    run = "if flag.exists(): raise RuntimeError('injected')\n        return self.core.run()"
    alter(
        faulty(folder / "now", run) + "from fastscreen.process import loop_errors\nloop_errors.FAILING_SECONDS = 0.3\n"
    )
    daemon = start(KNOWN)
    daemon.may_lose_workers = True
    assert_served(daemon)
    (folder / "now").touch()
    daemon.line(r"warning: screening has failed \d+ times in a row: this process ends and is started again$")
    daemon.line(r"warning: worker 1 .* ended with exit code 1: it is started again$")
    (folder / "now").unlink()
    assert_served(daemon)


@pytest.mark.parametrize(
    "fault",
    [
        {"run": "if due(): return deaf(self.core.fileno()) or 0.0\n        return self.core.run()"},
        {"run_relays": "if due(): return deaf(self.core.relay_fileno())\n        self.core.run_relays()"},
        {"run": "if due(): return deaf(self.core.fileno()) or 1e6\n        return self.core.run()"},
    ],
    ids=["screening", "relaying", "pausing for ever"],
)
def test_deaf_worker_is_replaced(start: Start, alter: Alter, folder: Path, mta: FakeMta, fault: dict[str, str]) -> None:
    """Its loop turns, its other tasks run, and it would never serve a client again."""
    alter(IMPATIENT + faulty(folder / "now", **fault))
    daemon = start(KNOWN)
    daemon.may_lose_workers = True
    assert_served(daemon)
    (pid,) = daemon.workers()
    (folder / "now").touch()
    daemon.line(rf"warning: worker 1 \(process {pid}\) hangs: killed$")
    assert_served(daemon)


def test_idle_worker_is_left_alone(start: Start, alter: Alter, mta: FakeMta) -> None:
    """Without a single event for longer than it takes to be taken for one that hangs."""
    alter(IMPATIENT)
    daemon = start(KNOWN)
    before = daemon.workers()
    time.sleep(5.0)
    assert daemon.workers() == before
    assert not daemon.lines("warning")
    assert_served(daemon)


def test_relay_that_fails_once(start: Start, alter: Alter, folder: Path) -> None:
    alter(faulty(folder / "now", run_relays="if due(): raise RuntimeError('injected')\n        self.core.run_relays()"))
    with ProxyMta(greet) as mta:
        daemon = start({**KNOWN, "handoff": {"to": [mta.target]}})
        with daemon.connect("127.7.0.1") as client:
            assert client.read() == b"220 the MTA itself\r\n"
            (folder / "now").touch()
            assert client.ask(b"NOOP") == b"250 ok\r\n"
        daemon.line(r"warning: internal error in relaying: RuntimeError: injected \(")


TLS_FAULTS = """
import os, pathlib
from fastscreen.tls import process, session
flag = pathlib.Path("{flag}")
take, read = process.TlsProcess._take_some, session.Session._read_client
def taking(self):
    if flag.exists() and "deaf" in flag.read_text():
        self._turns += 1
        return self._shared.loop.remove_reader(self._args.clients.fileno())
    take(self)
def reading(self):
    if flag.exists() and "client" in flag.read_text():
        flag.unlink()
        raise RuntimeError("injected")
    return read(self)
process.TlsProcess._take_some, session.Session._read_client = taking, reading
"""


@pytest.fixture
def tls(folder: Path) -> dict[str, Any]:
    return {
        "deep": {"pipelining": "enforce"},
        "greet": {"banner": ""},
        "tls": {"level": "may", "certificates": certificates(folder)},
    }


def test_deaf_tls_process_is_replaced(start: Start, alter: Alter, folder: Path, tls: dict[str, Any]) -> None:
    alter(IMPATIENT + TLS_FAULTS.format(flag=folder / "now"))
    daemon = start(tls)
    daemon.may_lose_workers = True
    (folder / "now").write_text("deaf")
    with daemon.connect() as client:
        assert client.read() == GREETING
        begin(client)
        daemon.line(r"warning: tls \(process \d+\) hangs: killed$")
        (folder / "now").unlink()
        daemon.line("tls is process")
        secure(client)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_error_in_a_tls_session_ends_that_one(start: Start, alter: Alter, folder: Path, tls: dict[str, Any]) -> None:
    alter(TLS_FAULTS.format(flag=folder / "now"))
    daemon = start(tls)
    with daemon.connect("127.1.0.1") as doomed, daemon.connect("127.1.0.2") as other:
        for client in (doomed, other):
            assert client.read() == GREETING
            begin(client)
            secure(client)
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"  # all that the handshake brought is read then
        (folder / "now").write_text("client")
        doomed.send(b"NOOP\r\n")
        with contextlib.suppress(ConnectionResetError):  # which older ssl modules take for an end
            assert doomed.socket.recv(100) == b""
        daemon.line(rf"tlsproxy.*: DISCONNECT {doomed.pattern}")
        daemon.line(r"warning: internal error in a TLS session: RuntimeError: injected \(")
        assert other.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert os.listdir(folder).count("now") == 0  # noqa: PTH208
