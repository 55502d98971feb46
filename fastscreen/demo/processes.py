"""The processes of the demo, fastscreen and the simulated clients, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from fastscreen.control import client
from fastscreen.control.messages import StatusRequest
from fastscreen.demo import settings
from fastscreen.process import prctl

START_SECONDS = 30.0
STOP_SECONDS = 5.0
MAX_TMPDIR = 50  # bytes: the socket of the sink is two folders below
_LISTENING = re.compile(rb"daemon started -- .* listening on ([0-9.]+):([0-9]+)")


class ProcessError(Exception):
    """The demo cannot continue. The message is for the user."""


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Delay signals that end this process until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Processes:
    """A demo that runs during the `with` block. Raises ProcessError if a process does not start, or has ended."""

    def __init__(self) -> None:
        self._end = contextlib.ExitStack()
        self._screener: subprocess.Popen[bytes]
        self._load: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._end:
            with _signals_blocked():  # so that the folder is always removed
                self.folder = Path(
                    self._end.enter_context(
                        tempfile.TemporaryDirectory(prefix="fastscreen-demo-", dir=temporary_folder())
                    )
                )
            self._load = self._start([sys.executable, "-m", "fastscreen.demo.load"])
            resolver = int(self._first_line(self._load))
            (self.folder / settings.ACCESS).write_text(settings.access_list(), encoding="utf-8")
            (self.folder / settings.SYSTEMS).write_text(settings.systems(), encoding="utf-8")
            configuration = self.folder / "fastscreen.toml"
            configuration.write_text(settings.configuration(self.folder, resolver), encoding="utf-8")
            self._screener = self._start([sys.executable, "-m", "fastscreen", "run", "-c", str(configuration)])
            host, port = self._listening()
            self._await_control()
            assert self._load.stdin is not None
            self._load.stdin.write(f"{host} {port}\n".encode())
            self._load.stdin.flush()
            self._end = self._end.pop_all()  # everything started: clean up at the end of the outer block
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals_blocked():  # a second Ctrl-C must not interrupt the clean-up
            self._end.close()

    @property
    def control(self) -> str:
        """The path of the control socket."""
        return str(self.folder / settings.CONTROL)

    def watch(self, seconds: float) -> None:
        """Run for some time. Raises ProcessError if a process ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.2))
        self.check()

    def check(self) -> None:
        """Raise ProcessError if a process has ended."""
        for name, process in (("fastscreen", self._screener), ("the load process", self._load)):
            if process.poll() is not None:
                raise ProcessError(f"{name} has ended with exit code {process.returncode}{self._last_output()}")

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process that ends with this one. Ctrl-C in the terminal does not reach it, so that we can stop it."""
        parent = os.getpid()

        def die_with_parent() -> None:
            prctl.die_with_parent(signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(0)

        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if "fastscreen.demo.load" in command else output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.folder), "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._end.callback(_stop, process)
        return process

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The first line that a process prints."""
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if readable else b""
        if not line.strip():
            raise ProcessError(f"the load process does not start{self._last_output()}")
        return line

    def _wait_for_screener(self, what: str) -> Iterator[None]:
        """Iterate while waiting for fastscreen. Raises ProcessError if it has ended or takes too long."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._screener.poll() is not None:
                raise ProcessError(f"fastscreen does not start{self._last_output()}")
            yield
            time.sleep(0.02)
        raise ProcessError(f"{what}, after {START_SECONDS:.0f} s{self._last_output()}")

    def _listening(self) -> tuple[str, int]:
        """The address of fastscreen, from its log, because the system has chosen a free port."""
        log = self.folder / settings.LOG
        for _ in self._wait_for_screener("fastscreen does not listen"):
            if log.exists() and (found := _LISTENING.search(log.read_bytes())):
                return found[1].decode(), int(found[2])
        raise AssertionError  # unreachable: _wait_for_screener raises

    def _await_control(self) -> None:
        for _ in self._wait_for_screener("the control socket does not answer"):
            with contextlib.suppress(client.Unreachable):
                client.ask(self.control, StatusRequest())
                return

    def _last_output(self) -> str:
        """The last output of the processes, to append to a message."""
        lines = []
        for name in ("output", settings.LOG):
            with contextlib.suppress(OSError):
                lines += (self.folder / name).read_text(errors="replace").splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)


def temporary_folder() -> str:
    """The folder for the temporary one: $TMPDIR, unless it is too long for sockets in it (108 bytes, unix(7))."""
    default = tempfile.gettempdir()
    return default if len(os.fsencode(default)) <= MAX_TMPDIR else "/tmp"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it. The second SIGTERM ends fastscreen without waiting for its clients."""
    if process.stdin is not None:
        process.stdin.close()
    for pause in (0.5, STOP_SECONDS):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pause)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
