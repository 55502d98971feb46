"""What the supervisor tells a service manager that started it with NOTIFY_SOCKET (sd_notify(3)); else nothing."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence

from fastscreen.process import fd_passing as fds

TIMEOUT = 0.5  # s: its queue is short, and without a READY=1 it would end us


def send(*lines: str) -> None:
    """Send assignments such as READY=1, one per line. Does not wait long for a receiver that does not read."""
    _send(lines, ())


def _send(lines: Sequence[str], descriptors: Sequence[int]) -> bool:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.settimeout(TIMEOUT)
        speaker.connect("\0" + path[1:] if path[0] == "@" else path)
        fds.send(speaker, "\n".join(lines).encode(), descriptors)
        return True
    return False


def store(name: str, descriptor: int) -> None:
    """Ask the service manager to keep a copy of a descriptor (FileDescriptorStoreMax=)."""
    _send(["FDSTORE=1", f"FDNAME={name}"], [descriptor])


def remove(name: str) -> None:
    """Ask it to close what it keeps under this name."""
    send("FDSTOREREMOVE=1", f"FDNAME={name}")


def barrier(seconds: float = 2.0) -> None:
    """Wait until the service manager has handled what it was sent, or for this time at most."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        sent = _send(["BARRIER=1"], [writing])
        os.close(writing)
        writing = -1
        if sent:
            select.select([reading], [], [], seconds)  # readable (at its end) when the manager has closed its copy
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def reloading() -> None:
    """SIGHUP has come; `send("READY=1")` follows. Type=notify-reload wants the time."""
    send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


class Watchdog:
    """Says in time that we are alive, if the service manager wants to hear it (WatchdogSec=)."""

    def __init__(self) -> None:
        wanted = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.interval = int(wanted) / 2e6 if ours and wanted.isascii() and wanted.isdigit() else 0.0  # s; 0: not wanted
        self.due = time.monotonic()

    def feed(self, now: float) -> None:
        """now: s, monotonic."""
        if self.interval and now >= self.due:
            send("WATCHDOG=1")
            self.due = now + self.interval
