"""What both screeners have in common: a folder, a port, a start, a log, an end."""

import contextlib
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import cpu
from bench.programs import BenchError


@dataclass(frozen=True)
class Settings:
    """What is the same for both in one row. Times are s."""

    greet_action: str = "enforce"
    greet_wait: int = 2
    limit: int = 5000  # sessions that are tested, and hand-offs under way
    address: str = "127.0.0.1"
    postscreen_cache: str = "btree"


class Screener(ABC):
    """One screener under test, with a folder of its own."""

    name: str

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.port = _free_port(settings.address)
        self.root = 0  # the pid whose tree is counted

    @property
    @abstractmethod
    def mta_socket(self) -> Path:
        """Where it hands clients over."""

    @property
    @abstractmethod
    def log_path(self) -> Path: ...

    @abstractmethod
    def prepare(self) -> None:
        """Write configuration and folders."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def end(self, process: subprocess.Popen[bytes]) -> None: ...

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        process = self.launch()
        self.root = process.pid
        try:
            self._wait_until_it_listens(process)
            yield
        finally:
            self.end(process)

    def read_cpu(self) -> cpu.Reading:
        return cpu.read(self.root)

    def count_in_log(self, text: bytes, since: int = 0) -> int:
        """How many lines have `text`, from byte `since` on."""
        with self.log_path.open("rb") as log:
            log.seek(since)
            return sum(text in line for line in log)

    def log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((self.settings.address, self.port), 1):
                return
            time.sleep(0.05)
        said = (self.folder / "stderr").read_text(errors="replace").strip().rpartition("\n")[2]
        log = self.log_path.read_text(errors="replace")[-500:] if self.log_path.exists() else ""
        raise BenchError(f"{self.name} did not start: {said or log or 'it says nothing'}")


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
