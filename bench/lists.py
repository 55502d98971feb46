"""A real rbldnsd whose DNS lists contain none of the benchmark's clients."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.netns import RESOLVER
from bench.programs import BenchError

ZONES = tuple(f"list{number}.rbl.test" for number in range(1, 9))

_ZONE = """\
$SOA 3600 ns.rbl.test. hostmaster.rbl.test. 1 3600 600 86400 300
$TTL 300
192.0.2.0/24 :127.0.0.2:
"""


class Lists:
    """The running server. Its CPU time is not counted."""

    def __init__(self, statistics: Path) -> None:
        self._statistics = statistics

    def asked(self) -> int:
        """The number of queries that it has received, as of the last full second."""
        lines = [line for line in self._statistics.read_text().splitlines() if ".rbl.test:" in line]
        return sum(int(zone.split(":")[1]) for zone in lines[-1].split() if ".rbl.test:" in zone) if lines else 0


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Lists]:
    program = shutil.which("rbldnsd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchError("rbldnsd is not installed: install Debian's package rbldnsd")
    folder.mkdir()
    folder.chmod(0o777)  # it switches to its own user before it writes
    (folder / "zone").write_text(_ZONE)
    zones = [f"{zone}:ip4trie:zone" for zone in ZONES]
    # Higher priority than all others: a query that is lost in its socket's buffer would spare a screener work.
    command = [
        "nice",
        "-n",
        "-10",
        program,
        "-n",
        "-w",
        str(folder),
        "-b",
        f"{RESOLVER}/53",
        "-c",
        "1",
        "-s",
        "statistics",
        *zones,
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        lists = Lists(folder / "statistics")
        deadline = time.monotonic() + 10
        while not (folder / "statistics").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"rbldnsd did not start: {(folder / 'log').read_text(errors='replace').strip()}")
            time.sleep(0.05)
        yield lists
    finally:
        server.terminate()
        server.wait(10)
