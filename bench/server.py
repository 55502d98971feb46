"""What all measured programs have in common: a folder, a port, start and stop, CPU time."""

import contextlib
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from bench import cpu
from bench.ports import free_port
from bench.programs import BenchError


class Server(ABC):
    """One measured program, with its own folder."""

    name: str

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        self.port = free_port(address)
        self.root = 0  # the pid whose tree is counted
        self.new = 0  # how many clients it has had that were new

    @property
    @abstractmethod
    def log_path(self) -> Path: ...

    @abstractmethod
    def prepare(self) -> None:
        """Create its folders inside its own folder."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration for the next start."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]: ...

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        process = self.launch()
        self.root = process.pid
        try:
            self._wait_until_it_listens(process)
            yield
        finally:
            self.end(process)

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until it has used less than 1 % of a core for 0.5 s."""
        deadline = time.monotonic() + seconds
        used = 1.0
        before = self.read_cpu()
        while used > 0.005:
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} is still busy {seconds:g} s after its clients left")
            time.sleep(0.5)
            after = self.read_cpu()
            used = sum(cpu.used(before, after).values())
            before = after

    def read_cpu(self) -> cpu.Reading:
        return cpu.read(self.root)

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
                return
            time.sleep(0.05)
        said = (self.folder / "stderr").read_text(errors="replace").strip().rpartition("\n")[2]
        log = self.log_path.read_text(errors="replace")[-500:] if self.log_path.exists() else ""
        raise BenchError(f"{self.name} did not start: {said or log or 'no output'}")
