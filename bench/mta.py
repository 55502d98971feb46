"""The stand-in for the MTA that receives relayed sessions, a process of one row. Its CPU time is not counted."""

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.ports import free_port
from bench.programs import BenchError

_START_SECONDS = 5


@contextlib.contextmanager
def running(program: Path) -> Iterator[int]:
    """Yield its port. BenchError: a connection came without a PROXY header."""
    port = free_port()
    process = subprocess.Popen([program, str(port)], stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the stand-in for the MTA does not listen on port {port}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.01)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        had = json.loads(process.communicate(timeout=10)[0])
    if had["bad"]:
        raise BenchError(f"{had['bad']} connections came to the MTA without a PROXY header")
