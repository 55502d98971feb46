"""A real `fastscreen run -c FILE` for tests, and SMTP clients."""

import ctypes
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from peers import profiles

COMMAND = Path(sys.executable).parent / "fastscreen"
ADDRESS = "127.9.0.1"
HOSTNAME = "mx.example.test"
TEASER = b"220-mx.example.test ESMTP Postfix\r\n"
GREETING = b"220 mx.example.test ESMTP Postfix\r\n"
TIMEOUT = 60.0 if "libasan" in os.environ.get("LD_PRELOAD", "") else 20.0
"""How long a test waits for what must come, in s: a bound on hanging, not on speed. The sanitizers make all slower."""

_PR_CAPBSET_DROP = _CAP_SYS_RESOURCE = 24  # prctl(2), capabilities(7)
USER = "nobody" if os.geteuid() == 0 else ""


def wait_until(condition: Callable[[], bool], what: Callable[[], str] | str, seconds: float = TIMEOUT) -> None:
    """Poll until the condition holds; AssertionError names `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:g} s still waiting for {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


class Screener:
    """A fastscreen process with its log in a file.

    `settings` are merged over one listener on ADDRESS with a free port, no cache, a short greet wait. `descriptors`
    is the limit of open descriptors that the process gets. `command` starts another program than COMMAND.
    """

    def __init__(
        self, folder: Path, settings: profiles.Settings, *, descriptors: int = 0, command: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.log = folder / "screener.log"
        self.config = folder / "screener.toml"
        self.output = folder / "screener.output"
        self.settings: profiles.Settings = {}
        self._descriptors = descriptors
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.may_lose_workers = False
        """Set by a test that kills workers itself."""
        self.address = ("", 0)
        """Where it listens first."""
        self.configure(settings)

    def configure(self, settings: profiles.Settings) -> None:
        """Write the configuration that the next start or reload reads."""
        own: profiles.Settings = {
            "hostname": HOSTNAME,
            "banner": f"{HOSTNAME} ESMTP Postfix",
            "user": USER,
            "listen": {"addresses": [f"{ADDRESS}:0"]},
            "handoff": {"to": f"pass:{self.folder / 'mta'}"},
            "greet": {"wait": "1s", "action": "enforce"},
            "dnsbl": {"probe_interval": 0},
            "limits": {"pre_queue": 1000},
            "cache": {"path": ""},
            "control": {"path": ""},
            "log": {"to": f"file:{self.log}", "ident": "postfix/postscreen"},
        }
        self.settings = profiles.merge(own, settings)
        new = self.config.with_suffix(".new")
        new.write_text(profiles.to_toml(self.settings))
        new.replace(self.config)  # in one piece: a reload may be reading it

    def start(self) -> Self:
        """Start it and wait until it listens."""
        before = len(self.lines(" daemon started ")) if self.log.exists() else 0

        def limit() -> None:
            if self._descriptors:
                ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_RESOURCE, 0, 0, 0)  # else root raises the limit
                resource.setrlimit(resource.RLIMIT_NOFILE, (self._descriptors, self._descriptors))

        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [*(self._command or [str(COMMAND)]), "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                preexec_fn=limit,
            )
        wait_until(lambda: self._ended() or len(self.lines(" daemon started ")) > before, "fastscreen to start")
        if self._ended():
            raise AssertionError(f"fastscreen ended: {self.output.read_text()}")
        where = self.lines(" daemon started ")[-1].rpartition(" listening on ")[2].split(", ")[0]
        self.address = (where.rpartition(":")[0], int(where.rpartition(":")[2]))
        return self

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """The pids of its workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def reload(self, settings: profiles.Settings | None = None, expected: str = " configuration reloaded") -> str:
        """SIGHUP; return the line that tells how it went."""
        if settings is not None:
            self.configure(settings)
        count = len(self.lines(expected))
        self.signal(signal.SIGHUP)
        return self.line(expected, count + 1)

    def wait(self, seconds: float = TIMEOUT) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        """Stop it at once. AssertionError: it had crashed, or crashed now."""
        if self.process is None:
            return
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        try:
            code = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("fastscreen did not end at the second SIGTERM") from None
        self.process = None
        said = self.output.read_text(errors="replace")
        # The second signal may come when the loop has ended and Python itself ends: that is not a crash.
        assert code == 0 or (code == -signal.SIGTERM and self.lines(" daemon stopped$")), f"exit status {code}\n{said}"
        assert said == "", said
        assert not self.lines("worker .* was killed|worker .* ended") or self.may_lose_workers, "\n".join(self.lines())

    def kill(self) -> None:
        """All of it at once, as when the machine fails."""
        assert self.process is not None
        os.kill(self.pid, signal.SIGSTOP)  # it would see its workers end, or they that it is gone
        for pid in [*self.workers(), self.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    # ---- what it says

    def text(self) -> bytes:
        return self.log.read_bytes() if self.log.exists() else b""

    def lines(self, pattern: str = "") -> list[str]:
        """The whole lines so far in which the regular expression is found, behind stamp and host."""
        whole = self.text().rpartition(b"\n")[0].decode("utf-8", "surrogateescape").split("\n")
        found = re.compile(pattern)
        return [line for line in whole if found.search(line)]

    def line(self, pattern: str, number: int = 1, seconds: float = TIMEOUT) -> str:
        """Wait for the line of this number with the pattern in it."""
        wait_until(
            lambda: len(self.lines(pattern)) >= number,
            lambda: f"line {number} with {pattern!r} in:\n" + "\n".join(self.lines()[-40:]),
            seconds,
        )
        return self.lines(pattern)[number - 1]

    # ---- what its workers use

    def status(self, field: str) -> int:
        """A figure of /proc/PID/status, in its unit (kB for memory), for all workers together."""
        total = 0
        for pid in self.workers():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
        return total

    def cpu(self) -> float:
        """CPU seconds used so far."""
        total = 0
        for pid in self.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.workers())  # noqa: PTH208

    # ---- its clients

    def connect(self, source: str = "127.1.0.1", *, receive_buffer: int = 0) -> "Client":
        return Client(self.address, source, receive_buffer)


class Client:
    """An SMTP client that can misbehave."""

    def __init__(self, address: tuple[str, int], source: str, receive_buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.bind((source, 0))
        self.socket.connect(address)
        self.name = "[{}]:{}".format(*self.socket.getsockname())
        self.pattern = re.escape(self.name) + r"(?!\d)"
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> bytes:
        """One reply, all of its lines; b"" at the end."""
        reply = b""
        while True:
            while b"\n" not in self._held:
                try:
                    got = self.socket.recv(65536)
                except ConnectionResetError:
                    got = b""
                if not got:
                    reply, self._held = reply + self._held, b""
                    return reply
                self._held += got
            line, _, self._held = self._held.partition(b"\n")
            reply += line + b"\n"
            if line[3:4] != b"-":
                return reply

    def ask(self, command: bytes) -> bytes:
        self.send(command + b"\r\n")
        return self.read()

    def read_all(self) -> bytes:
        """Everything up to the end."""
        data = b""
        while reply := self.read():
            data += reply
        return data

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def silent(self, seconds: float = 0.0) -> bool:
        """True when nothing has come (within so many s)."""
        return not self._held and not select.select([self.socket], [], [], seconds)[0]


def merge(*settings: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for each in settings:
        merged = profiles.merge(merged, each)
    return merged


def refuses(address: tuple[str, int], source: str) -> bool:
    """Nobody listens there. A client in the queue of a port that closes is reset: that is not it yet."""
    try:
        with Client(address, source):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
