"""Sockets from a service manager: used unchanged, or rejected with what is expected."""

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen.config.model import Endpoint
from fastscreen.daemon import systemd_notify, systemd_sockets
from fastscreen.daemon.listeners import WHOLE, listen


def test_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert systemd_sockets.take({}, 1) == ({}, set())


def test_an_address_that_nobody_screens() -> None:
    with pytest.raises(OSError, match=r"192.0.2.1:25 is not in listen.addresses"):
        systemd_sockets.check({Endpoint("192.0.2.1", 25): []}, {Endpoint("192.0.2.2", 25): None}, 1)


def test_a_socket_for_each_worker() -> None:
    where = Endpoint("127.0.0.1", 0)
    group = listen(where, 2, 1)
    try:
        systemd_sockets.check({where: group}, {where: None}, 2)
        systemd_sockets.prepare(group, 1, WHOLE, by_client=True)
        with pytest.raises(OSError, match=r"2 sockets .* 3 workers; expected ListenStream="):
            systemd_sockets.check({where: group}, {where: None}, 3)
    finally:
        for one in group:
            one.close()


def test_without_reuseport_it_is_no_group() -> None:
    where = Endpoint("127.0.0.1", 0)
    with socket.socket() as one, socket.socket() as other, pytest.raises(OSError, match="expected ReusePort=yes"):
        systemd_sockets.check({where: [one, other]}, {where: None}, 2)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made


def test_the_store_takes_each_socket_under_its_own_name(manager: socket.socket) -> None:
    """Without a colon, which would separate names."""
    where = Endpoint("::1", 0)
    group = listen(where, 2, 1)
    systemd_sockets.store(Endpoint("::1", 25), group)
    for number, listener in enumerate(group):
        message, descriptors, _, _ = socket.recv_fds(manager, 1000, 4)
        assert message == f"FDSTORE=1\nFDNAME=fastscreen __1 25 {number}".encode()
        with socket.socket(fileno=descriptors[0]) as copy, listener:
            assert copy.getsockname() == listener.getsockname()
    systemd_sockets.forget(Endpoint("::1", 25), 2)
    assert [manager.recv(1000) for _ in range(2)] == [
        f"FDSTOREREMOVE=1\nFDNAME=fastscreen __1 25 {number}".encode() for number in (0, 1)
    ]


def test_a_barrier(manager: socket.socket) -> None:
    """It is over when the manager has closed what came with it; one that does not is not waited for."""
    systemd_notify.barrier(0.05)
    message, descriptors, _, _ = socket.recv_fds(manager, 1000, 4)
    assert (message, len(descriptors)) == (b"BARRIER=1", 1)
    os.close(descriptors[0])
    gc.collect()  # what earlier tests left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    with socket.socket(socket.AF_UNIX) as none:
        manager.close()
        systemd_notify.barrier(20.0)
        assert none.fileno() >= 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


@pytest.mark.parametrize(
    ("name", "number"), [("fastscreen 127.0.0.1 25 0", 0), ("fastscreen 127.0.0.1 25 12", 12), ("fastscreen x", 0)]
)
def test_numbers_in_names(name: str, number: int) -> None:
    assert systemd_sockets._number_in(name) == number
