"""Notifications to a service manager, also if it reads slowly."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from fastscreen.daemon import systemd_notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "notify"))
    made.settimeout(20)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return made


def fill(manager: socket.socket) -> int:
    """Fill the queue; return the number of messages."""
    number = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"x", manager.getsockname())
            number += 1
    return number


def test_one_that_is_slow(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A READY=1 that is lost costs the whole start."""
    monkeypatch.setattr(systemd_notify, "TIMEOUT", 20.0)
    with manager:
        number = fill(manager)
        teller = threading.Thread(target=systemd_notify.send, args=("READY=1", "STATUS=here"))
        teller.start()
        heard = [manager.recv(100) for _ in range(number + 1)]
        teller.join()
        assert heard == [b"x"] * number + [b"READY=1\nSTATUS=here"]


def test_one_that_hears_nothing(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_notify, "TIMEOUT", 0.05)
    with manager:
        number = fill(manager)
        systemd_notify.send("READY=1")
        assert [manager.recv(100) for _ in range(number)] == [b"x"] * number


def test_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("", "relative", "vsock:2:3", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        systemd_notify.send("READY=1")


def test_watchdog_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert systemd_notify.Watchdog().interval == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd_notify.Watchdog().interval == 0.0
    monkeypatch.delenv("WATCHDOG_PID")
    for odd in ("", "-1", "x", "1e6"):
        monkeypatch.setenv("WATCHDOG_USEC", odd)
        assert systemd_notify.Watchdog().interval == 0.0
