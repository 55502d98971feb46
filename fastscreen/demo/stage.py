"""The demo's processes: a screener and the crowd, in a temporary folder that goes with them."""

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
from fastscreen.demo import settings
from fastscreen.process import prctl

START_SECONDS = 30.0
STOP_SECONDS = 5.0
MAX_PLACE = 50  # octets: the sink's socket lies two folders further down
_LISTENING = re.compile(rb"daemon started -- .* listening on ([0-9.]+):([0-9]+)")


class ProcessError(Exception):
    """The demo cannot go on; the text is for a person."""


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that end us wait until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Processes:
    """A demo that runs as long as the `with` block. ProcessError: a process does not start, or has ended."""

    def __init__(self) -> None:
        self._end = contextlib.ExitStack()
        self._screener: subprocess.Popen[bytes]
        self._crowd: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._end:
            with _undisturbed():  # between its making and our knowing of it
                self.folder = Path(
                    self._end.enter_context(tempfile.TemporaryDirectory(prefix="fastscreen-demo-", dir=place()))
                )
            self._crowd = self._started([sys.executable, "-m", "fastscreen.demo.crowd"])
            resolver = int(self._line(self._crowd))
            (self.folder / settings.ACCESS).write_text(settings.access_list(), encoding="utf-8")
            configuration = self.folder / "fastscreen.toml"
            configuration.write_text(settings.configuration(self.folder, resolver), encoding="utf-8")
            self._screener = self._started([sys.executable, "-m", "fastscreen", "run", "-c", str(configuration)])
            host, port = self._listening()
            self._await_control()
            assert self._crowd.stdin is not None
            self._crowd.stdin.write(f"{host} {port}\n".encode())
            self._crowd.stdin.flush()
            self._end = self._end.pop_all()  # all is well: it ends with our own block, not with this one
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _undisturbed():  # a second Ctrl-C leaves nothing behind either
            self._end.close()

    @property
    def control(self) -> str:
        """The control socket."""
        return str(self.folder / settings.CONTROL)

    def watch(self, seconds: float) -> None:
        """Let it run for so long. ProcessError: a process has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.2))
        self.check()

    def check(self) -> None:
        """ProcessError: a process has ended."""
        for name, process in (("the screener", self._screener), ("the crowd", self._crowd)):
            if process.poll() is not None:
                raise ProcessError(f"{name} has ended with exit code {process.returncode}{self._last_words()}")

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process that ends with us. Ctrl-C at the terminal does not reach it: its end is in our hands."""
        ours = os.getpid()

        def die_with_us() -> None:
            prctl.die_with_parent(signal.SIGTERM)
            if os.getppid() != ours:
                os._exit(0)

        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if "fastscreen.demo.crowd" in command else output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.folder), "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                preexec_fn=die_with_us,
            )
        self._end.callback(_stop, process)
        return process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The first line that a process prints."""
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if readable else b""
        if not line.strip():
            raise ProcessError(f"the crowd does not start{self._last_words()}")
        return line

    def _waiting(self, what: str) -> Iterator[None]:
        """Rounds of waiting for the screener. ProcessError: it has ended, or it takes too long."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._screener.poll() is not None:
                raise ProcessError(f"the screener does not start{self._last_words()}")
            yield
            time.sleep(0.02)
        raise ProcessError(f"{what}, after {START_SECONDS:.0f} s{self._last_words()}")

    def _listening(self) -> tuple[str, int]:
        """Where the screener listens: only its log tells, as the port is any that was free."""
        log = self.folder / settings.LOG
        for _ in self._waiting("the screener does not listen"):
            if log.exists() and (found := _LISTENING.search(log.read_bytes())):
                return found[1].decode(), int(found[2])
        raise AssertionError  # _waiting raises when it is over

    def _await_control(self) -> None:
        for _ in self._waiting("the control socket does not answer"):
            with contextlib.suppress(client.Unreachable):
                client.ask(self.control, "status")
                return

    def _last_words(self) -> str:
        """What the processes said last, to be put behind a message."""
        said = []
        for name in ("output", settings.LOG):
            with contextlib.suppress(OSError):
                said += (self.folder / name).read_text(errors="replace").splitlines()[-5:]
        return "".join(f"\n  {line}" for line in said)


def place() -> str:
    """Where the folder is made: $TMPDIR, unless that is too long for the sockets in it (108 octets, unix(7))."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= MAX_PLACE else "/tmp"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it. Its clients are of no account, so the screener is told twice."""
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
