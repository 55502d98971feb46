"""What the supervisor tells a service manager that started it with NOTIFY_SOCKET (sd_notify(3)); else nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time

PATIENCE = 0.5  # s: its queue is short, and without a READY=1 it would end us


def tell(*lines: str) -> None:
    """Send an assignment a line, such as READY=1. Whoever does not hear is not waited for long."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.settimeout(PATIENCE)
        speaker.sendto("\n".join(lines).encode(), "\0" + path[1:] if path[0] == "@" else path)


def reloading() -> None:
    """SIGHUP has come; `tell("READY=1")` follows. Type=notify-reload wants the time."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


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
            tell("WATCHDOG=1")
            self.due = now + self.interval
