"""What the live view costs the screener at full load: pairs of samples, with the view attached and without."""

import contextlib
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import clients, cpu
from bench.clients import ClientGroup
from bench.fastscreen import Fastscreen
from bench.measure import started
from bench.programs import BenchError
from bench.rows import Viewer
from fastscreen.escaping import escape_text

CONTROL_SERVER = "fastscreen-ctl"
_KNOWN = b": PASS OLD [127.1."
_SETTLE_SECONDS = 1.5
_WARM_CLIENTS = 5000
_ATTACH_SECONDS = 240  # on a busy machine
_SIZE = {"COLUMNS": "120", "LINES": "36", "TERM": "xterm-256color", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Sample:
    """CPU in µs per connection: of supervisor and workers, of the control server, and of the view."""

    screener: float
    control: float
    view: float


@dataclass
class Result:
    """Pairs (without, with), or the reason why they are missing."""

    row: Viewer
    pairs: list[tuple[Sample, Sample]] = field(default_factory=list)
    problem: str = ""


def run(row: Viewer, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one screen of the view; every second pair begins with the view, so that drift favors neither."""
    result = Result(row)
    screener = Fastscreen(folder / row.name, row.settings)
    try:
        screener.folder.mkdir()
        screener.prepare()
        with started(screener, programs):
            first = ClientGroup("pass", row.sources, row.sources, sources=row.sources)
            clients.check(clients.load(first, screener, programs["load"]), screener)
            clients.load(
                ClientGroup("pass", min(_WARM_CLIENTS, row.clients), row.concurrent), screener, programs["load"]
            )
            time.sleep(_SETTLE_SECONDS)
            for number in range(rounds):
                samples = {}
                for attached in (False, True) if number % 2 == 0 else (True, False):
                    samples[attached] = _sample(row, screener, programs, attached)
                result.pairs.append((samples[False], samples[True]))
    except BenchError as error:
        result.problem = str(error)
        result.pairs.clear()
    return result


def _sample(row: Viewer, screener: Fastscreen, programs: dict[str, Path], attached: bool) -> Sample:
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(_view(row, screener)) if attached else None
        log_size = screener.log_size()
        before, view_before = screener.read_cpu(), cpu.read(view) if view else cpu.Reading()
        group = ClientGroup("pass", row.clients, row.concurrent, sources=row.sources)
        outcome = clients.load(group, screener, programs["load"])
        time.sleep(_SETTLE_SECONDS)
        spent = cpu.used(before, screener.read_cpu())
        viewed = cpu.used(view_before, cpu.read(view)) if view else {}
    clients.check(outcome, screener)
    logged = screener.count_in_log(_KNOWN, log_size)
    if logged != row.clients:
        raise BenchError(f"{screener.name}: {logged} of {row.clients} clients were logged as PASS OLD")
    control = spent.pop(CONTROL_SERVER)
    return Sample(*(seconds * 1e6 / row.clients for seconds in (sum(spent.values()), control, sum(viewed.values()))))


@contextlib.contextmanager
def _view(row: Viewer, screener: Fastscreen) -> Iterator[int]:
    """`fastscreen tui` on a terminal whose output is discarded. Yields its PID once it shows the screen."""
    command = [str(Path(sys.executable).with_name("fastscreen")), "tui", "--socket", str(screener.control_socket)]
    ours, theirs = pty.openpty()
    drawn = bytearray()
    shown = threading.Event()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **_SIZE}) as process:
        os.close(theirs)
        reader = threading.Thread(target=_read, args=(ours, drawn, row.shows, shown))
        reader.start()
        try:
            deadline, pause = time.monotonic() + _ATTACH_SECONDS, 1.0
            while not shown.wait(pause):
                pause *= 1.5  # a view that is slow to start must not only read keys
                if process.poll() is not None:
                    raise BenchError(f"the view has ended: {escape_text(drawn[-500:].decode('utf-8', 'replace'), 500)}")
                if time.monotonic() > deadline:
                    raise BenchError(f"the view does not show {row.shows.decode()!r}")
                os.write(ours, row.key)
            yield process.pid
            if process.poll() is not None:
                raise BenchError("the view exited unexpectedly")
        finally:
            process.terminate()
            process.wait(10)
            reader.join()
            os.close(ours)


def _read(terminal: int, drawn: bytearray, wanted: bytes, shown: threading.Event) -> None:
    """Read until all writers have closed it."""
    while True:
        select.select([terminal], [], [])
        try:
            drawn += os.read(terminal, 65536)
        except OSError:
            return
        if wanted in drawn:
            shown.set()
        del drawn[:-1000]
