"""Child processes of the tests: started, watched and ended by pid."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def start(command: list[str], output: Path, *, inside: list[str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program with both outputs appended to a file; `inside` is the command prefix that enters a namespace."""
    with output.open("ab") as sink:
        return subprocess.Popen(
            [*(inside or []), *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes], patience: float = 5.0) -> int:
    """End a program: SIGTERM, after `patience` seconds SIGKILL. Return its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def children(parent: int, name: str) -> int:
    """Return how many children of a process have this name."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text(errors="replace").rpartition(") ")
        except OSError:  # it has ended
            continue
        count += head.partition("(")[2] == name and rest.split()[1] == str(parent)
    return count


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Poll until the condition holds. RuntimeError names `what` when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"after {seconds:g} s still waiting for {what}")
        time.sleep(0.02)
