"""What both screeners have in common: settings, a socket for hand-offs, a log."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from bench.server import Server


@dataclass(frozen=True)
class Settings:
    """Settings that both have in one row, and a few that only one of them has. Times are in s."""

    greet_action: str = "enforce"
    greet_wait: int = 2
    greet_test: bool = True  # False: no teaser, no wait
    deep: bool = False  # the three tests after the banner
    lists: tuple[str, ...] = ()  # DNS lists to ask
    limit: int = 5000  # sessions under test; stress mode begins at nine tenths
    handoffs: int = 3000  # under way: postscreen ends the greet waits of a whole second concurrent
    address: str = "127.0.0.1"
    tls: tuple[Path, ...] = ()  # files of a key and its chain: STARTTLS is offered
    postscreen_cache: str = "btree"
    process_limit: int = 100  # Postfix's default_process_limit, which is its listen queue; 100 is the default
    workers: int = 1  # of fastscreen
    control: bool = False  # fastscreen's control socket
    relay_to: int = 0  # where fastscreen connects clients through to, a port; 0: it passes their descriptors
    continue_to: int = 0  # where fastscreen's sessions go on, a port; 0: they do not


class Screener(Server):
    """One screener under test."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings.address)
        self.settings = settings

    @property
    @abstractmethod
    def mta_socket(self) -> Path:
        """The socket to which it hands off clients."""

    @abstractmethod
    def held_memory(self) -> int:
        """RssAnon, in kB, of the processes that hold clients."""

    def count_in_log(self, text: bytes, since: int = 0) -> int:
        """The number of lines with `text`, from byte `since` on."""
        with self.log_path.open("rb") as log:
            log.seek(since)
            return sum(text in line for line in log)

    def log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0


def rss_anon(pid: int) -> int:
    """Anonymous memory of one process, in kB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
