"""Everything that runs: folders on small file systems, fastscreen, the MTA, the name server, and what was seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
from msgspec import Struct

from soak import settings
from soak.settings import Options
from soak.smtp import GoneError, Message, Smtp, now

COMMAND = Path(sys.executable).parent / "fastscreen"
TESTS = Path(__file__).resolve().parents[1]
_DISKS = {"cache": "24m", "log": "128m"}


class Refusal(Struct, frozen=True):
    """What a good client got that was not 2xx or 3xx. code: 0 for a lost connection."""

    at: float
    kind: str
    code: int
    text: str


class Window(Struct):
    """One fault. begin, end, recovered: s, monotonic. recovery: s from its end until everything worked; seen: what did
    not work in between."""

    fault: str
    begin: float
    end: float
    detail: str = ""
    recovered: float = 0.0
    recovery: float = 0.0
    seen: dict[str, int] = {}
    problem: str = ""


class World:
    """One run. `chance` is for what a fault does, `traffic_chance` for clients; the nemesis has its own for the
    schedule, so that the others do not shift it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = options.folder
        self.chance = random.Random(options.seed + 1)
        self.traffic_chance = random.Random(options.seed + 2)
        self.started = now()
        self.owner = (pwd.getpwnam(settings.USER).pw_uid, pwd.getpwnam(settings.USER).pw_gid)
        self.messages: list[Message] = []
        self.refusals: list[Refusal] = []
        self.waits: list[tuple[float, float]] = []
        """Known clients: when they had their greeting, and after how many s."""
        self.kinds: dict[str, str] = {}
        """Of clients, by address."""
        self.counts: Counter[str] = Counter()
        self.windows: list[Window] = []
        self.violations: list[str] = []
        self.gone: set[int] = set()
        """Processes that a fault ended, or the supervisor because of one."""
        self.workers: set[int] = set()
        """All that there ever were."""
        self.former: set[int] = set()
        """Those of a fastscreen before the last restart: their events are in no ring of the one that runs now."""
        self._addresses = 0

    def say(self, *words: object) -> None:
        """A line of progress."""
        print(f"[{now() - self.started:6.1f}]", *words, flush=True)

    def violate(self, text: str) -> None:
        """An invariant does not hold."""
        self.violations.append(text)
        self.say("VIOLATION:", text)

    def new_address(self, prefix: str) -> str:
        """An address of a /16 that no client had yet."""
        self._addresses += 1
        return f"{prefix}.{self._addresses // 250 % 250}.{self._addresses % 250 + 1}"

    # ---- files

    def prepare(self) -> None:
        """In namespaces of our own: loopback, file systems, certificate, folders."""
        _run("mount", "--make-rprivate", "/")
        _run("ip", "link", "set", "lo", "up")
        for name, value in (("ipv4/ip_local_port_range", "10000 65000"), ("core/somaxconn", "4096")):
            with contextlib.suppress(OSError):
                Path("/proc/sys/net", name).write_text(value)
        user, group = self.owner
        for name in ("cache", "log", "control", "mta"):
            (self.folder / name).mkdir(parents=True)
            if name in _DISKS:
                options = f"size={_DISKS[name]},mode=755,uid={user},gid={group}"
                _run("mount", "-t", "tmpfs", "-o", options, "soak", str(self.folder / name))
            os.chown(self.folder / name, user, group)
        self._open_interpreter()
        self.make_certificate()
        (self.folder / "access.cidr").write_text("198.51.100.0/24 permit\n")
        for name in ("mta", "nameserver"):
            (self.folder / f"{name}.mode").write_text("ok")
        self.configure()

    def _open_interpreter(self) -> None:
        """Let the unprivileged user start Python when it is under /root: it is all that our own /root has."""
        interpreter = Path(sys.executable).resolve()
        if not interpreter.is_relative_to("/root"):
            return
        top = Path(*interpreter.parts[:3])
        kept = self.folder / "interpreter"
        kept.mkdir()
        _run("mount", "--bind", str(top), str(kept))
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "soak", "/root")
        top.mkdir()
        _run("mount", "--bind", str(kept), str(top))

    def make_certificate(self) -> None:
        """A new key and certificate, in one file."""
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mx.example.test"
        _run("openssl", *words.split(), "-keyout", str(key), "-out", str(certificate))
        new = self.folder / "tls.new"
        new.write_bytes(key.read_bytes() + certificate.read_bytes())
        os.chown(new, *self.owner)
        new.rename(self.folder / "tls.pem")

    def configure(self, teaser: str = "$banner", text: str | None = None) -> None:
        """Write the configuration, in one step. text: another one."""
        new = self.folder / "fastscreen.new"
        new.write_text(text if text is not None else settings.text(self.options, teaser))
        new.rename(self.folder / "fastscreen.toml")

    # ---- processes

    def start(self) -> None:
        """The MTA, the name server and fastscreen."""
        self.mta = self.start_role("mta")
        self.nameserver = self.start_role("nameserver")
        self.start_daemon()

    def start_role(self, name: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-m", f"soak.{name}", str(self.folder)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)

    def start_daemon(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self.daemon = subprocess.Popen(
                [str(COMMAND), "run", "-c", str(self.folder / "fastscreen.toml")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def until_up(self, seconds: float = 40.0) -> bool:
        """Wait until the control server knows all workers."""
        end = now() + seconds
        while now() < end:
            status = await self.ask({"do": "status"})
            if status is not None and len(status.get("workers", [])) == self.options.workers:
                return True
            await asyncio.sleep(0.2)
        return False

    @property
    def supervisor(self) -> int:
        """The pid: not the one that was started first, after a restart that hands over."""
        return self.daemon.pid

    def processes(self, kind: str) -> list[int]:
        """The pids of a kind: "worker", "tls" or "control"."""
        return [pid for pid, name in self.all_processes().items() if name == kind]

    def all_processes(self) -> dict[int, str]:
        """The supervisor and its children, by pid."""
        found = {self.supervisor: "supervisor"}
        try:
            listed = Path(f"/proc/{self.supervisor}/task/{self.supervisor}/children").read_text().split()
        except OSError:
            return found
        for pid in map(int, listed):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                kind = {"tls": "tls", "ctl": "control"}.get(name.rpartition("-")[2], "worker")
                if kind == "worker" and name.rpartition("-")[2] not in ("fastscreen", "worker"):
                    continue
                found[pid] = kind
                if kind == "worker":
                    self.workers.add(pid)
        return found

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of our own."""
        if number == signal.SIGKILL:
            self.gone.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_all(self) -> None:
        """Processes that are still there when the run ends."""
        for pid in [*self.all_processes(), self.mta.pid, self.nameserver.pid]:
            self.kill(pid)

    def reload(self) -> None:
        self.kill(self.supervisor, signal.SIGHUP)

    # ---- the control socket

    async def ask(self, request: dict[str, Any], seconds: float = 3.0) -> dict[str, Any] | None:
        """What the control server answers; None: nothing, or an error."""
        try:
            answer = await asyncio.wait_for(self._talk(request), seconds)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, msgpack.UnpackException):
            return None
        found = answer.get("ok")
        return found if isinstance(found, dict) else None

    async def _talk(self, request: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "control/socket"))
        try:
            await _frame(reader)
            body = msgpack.packb(request | {"id": 1})
            writer.write(len(body).to_bytes(4, "big") + body)
            answer: dict[str, Any] = msgpack.unpackb(await _frame(reader))
            return answer
        finally:
            writer.close()

    async def greeted_within(self, seconds: float) -> None:
        """While a fault holds: clients of all workers get a greeting before the time is over."""
        began = now()
        waiting = [f"127.13.0.{number + 1}" for number in range(8)]
        while waiting and now() < began + seconds:
            got = await asyncio.gather(*map(_is_greeted, waiting))
            waiting = [source for source, greeted in zip(waiting, got, strict=True) if not greeted]
            await asyncio.sleep(0.2)
        if waiting:
            self.violate(f"{len(waiting)} of 8 clients are not greeted within {seconds:.0f} s of a fault that holds")

    # ---- when faults held

    def fault_at(self, when: float, grace: float = 15.0) -> str:
        """The faults in whose time this was; "" for none."""
        names = [
            window.fault
            for window in self.windows
            if window.begin - 0.5 <= when <= max(window.end, window.recovered) + grace
        ]
        return "+".join(names)


async def _is_greeted(source: str) -> bool:
    client = Smtp(source)
    try:
        await client.open(2)
        await client.read_line(2)
    except GoneError:
        return False
    finally:
        client.close()
    return True


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
