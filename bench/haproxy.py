"""HAProxy in front of an MTA that reads the PROXY protocol: TCP mode, one thread, no log."""

import shutil
import subprocess
from pathlib import Path

from bench.programs import BenchError
from bench.server import Server

# No `tune.*` settings: postmasters use HAProxy as built by Debian. The time limits are those of docs/configuration.md.
_CONFIGURATION = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    {splice}
    timeout connect 5s
    timeout client 11m
    timeout server 11m
listen smtp
    bind {address}:{port}
    server mta 127.0.0.1:{mta} send-proxy-v2
"""


class Haproxy(Server):
    """Debian's HAProxy. `splice`: with the option that its manual recommends for bulk data; it is off by default."""

    name = "haproxy"

    def __init__(self, folder: Path, mta: int, splice: bool) -> None:
        super().__init__(folder)
        self._mta = mta
        self._splice = splice
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise BenchError("haproxy is not installed: install Debian's package haproxy")
        self._program = program

    @property
    def log_path(self) -> Path:
        return self.folder / "stderr"

    def prepare(self) -> None:
        pass

    def configure(self) -> None:
        values = {
            "splice": "option splice-auto" if self._splice else "",
            "address": self.address,
            "port": self.port,
            "mta": self._mta,
        }
        (self.folder / "haproxy.cfg").write_text(_CONFIGURATION.format_map(values))

    def launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._program, "-db", "-f", self.folder / "haproxy.cfg"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
        )


def version() -> str:
    """HAProxy's version, or an empty string."""
    try:
        result = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.split()[2]
