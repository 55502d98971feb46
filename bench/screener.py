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
    """What is the same for both in one row, and a few that only one knows. Times are s."""

    greet_action: str = "enforce"
    greet_wait: int = 2
    deep: bool = False  # the three tests after the banner
    lists: tuple[str, ...] = ()  # DNS lists to ask
    limit: int = 5000  # sessions under test; stress mode begins at nine tenths
    handoffs: int = 3000  # under way: postscreen ends the greet waits of a whole second together
    address: str = "127.0.0.1"
    postscreen_cache: str = "btree"
    process_limit: int = 100  # Postfix's default_process_limit, which is its listen queue; 100 is the default
    workers: int = 1  # of fastscreen
    control: bool = False  # fastscreen's control socket


class Screener(ABC):
    """One screener under test, with a folder of its own."""

    name: str

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.port = _free_port(settings.address)
        self.root = 0  # the pid whose tree is counted
        self.new = 0  # how many clients it has had that were new

    @property
    @abstractmethod
    def mta_socket(self) -> Path:
        """Where it hands clients over."""

    @property
    @abstractmethod
    def log_path(self) -> Path: ...

    @abstractmethod
    def prepare(self) -> None:
        """Make the folders, in one of its own."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration that the next start reads."""

    @abstractmethod
    def held_memory(self) -> int:
        """RssAnon, in kB, of the processes that hold clients."""

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

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Until it has used less than a hundredth of a core for half a second."""
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


def rss_anon(pid: int) -> int:
    """Anonymous memory of one process, in kB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
