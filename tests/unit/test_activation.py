"""Sockets that a service manager passes: taken as they are, or refused with what is allowed."""

import socket

import pytest

from fastscreen import activation
from fastscreen.config.model import Endpoint
from fastscreen.listeners import WHOLE, listen


def test_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert activation.take({}, 1) == ({}, set())


def test_an_address_that_nobody_screens() -> None:
    with pytest.raises(OSError, match=r"192.0.2.1:25 is not in listen.addresses"):
        activation.check({Endpoint("192.0.2.1", 25): []}, {Endpoint("192.0.2.2", 25): None}, 1)


def test_a_socket_for_each_worker() -> None:
    where = Endpoint("127.0.0.1", 0)
    group = listen(where, 2, 1)
    try:
        activation.check({where: group}, {where: None}, 2)
        activation.prepare(group, 1, WHOLE, by_client=True)
        with pytest.raises(OSError, match=r"2 sockets .* 3 workers; allowed: ListenStream="):
            activation.check({where: group}, {where: None}, 3)
    finally:
        for one in group:
            one.close()


def test_without_reuseport_it_is_no_group() -> None:
    where = Endpoint("127.0.0.1", 0)
    with socket.socket() as one, socket.socket() as other, pytest.raises(OSError, match="allowed: ReusePort=yes"):
        activation.check({where: [one, other]}, {where: None}, 2)
