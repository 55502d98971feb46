"""Whose a client is: the kernel's choice, by the program it was given, and the same calculated."""

import select
import socket

import pytest

from fastscreen.config.model import Endpoint, Prefix
from fastscreen.core import worker_of
from fastscreen.daemon.listeners import WHOLE, listen

KEY = 0x9E3779B97F4A7C15


@pytest.mark.parametrize("prefix", [WHOLE, Prefix(24, 48), Prefix(9, 17)])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("key", [0, 0x0123456789ABCDEF, 2**64 - 1])
def test_worker_of_is_the_kernels_choice(workers: int, key: int, prefix: Prefix) -> None:
    """IPv6 has its turn in tests/peers: here it has one address only."""
    listeners = listen(Endpoint("127.0.0.1", 0), workers, key, prefix)
    try:
        sources = [f"127.{number}.{number * 7 % 256}.{number * 31 % 255 + 1}" for number in range(1, 61)]
        for source in sources:
            with socket.socket() as client:
                client.bind((source, 0))
                client.connect(listeners[0].getsockname())
                ready = [at for at, one in enumerate(listeners) if select.select([one], [], [], 0)[0]]
                assert ready == [worker_of(source, workers, key, prefix)]
                listeners[ready[0]].accept()[0].close()
    finally:
        for one in listeners:
            one.close()


def test_the_choice_depends_on_the_key_and_is_even() -> None:
    for sources in ([f"192.0.2.{at}" for at in range(256)], [f"2001:db8:{at:x}::1" for at in range(256)]):
        one, other = ([worker_of(source, 4, key, WHOLE) for source in sources] for key in (12345, 54321 << 32))
        assert one != other
        assert all(40 <= chosen.count(worker) <= 90 for chosen in (one, other) for worker in range(4))


def test_all_of_a_64_are_one_workers() -> None:
    assert len({worker_of(f"2001:db8:1:2:{host:x}::{host:x}", 64, 99, WHOLE) for host in range(100)}) == 1
    assert len({worker_of(f"2001:db8:1:{network:x}::1", 64, 99, WHOLE) for network in range(100)}) > 40


def test_all_of_a_prefix_are_one_workers() -> None:
    assert len({worker_of(f"192.0.2.{host}", 64, KEY, Prefix(24, 48)) for host in range(256)}) == 1
    assert len({worker_of(f"192.0.{network}.1", 64, KEY, Prefix(24, 48)) for network in range(256)}) > 40
    assert len({worker_of(f"2001:db8:1:{network:x}::1", 64, KEY, Prefix(24, 48)) for network in range(100)}) == 1
    assert len({worker_of(f"2001:db8:{network:x}::1", 64, KEY, Prefix(24, 48)) for network in range(100)}) > 40
    assert len({worker_of(f"2001:{network:x}::1", 64, KEY, Prefix(24, 16)) for network in range(100)}) == 1


def test_all_of_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    for host in range(20):
        assert worker_of(f"::ffff:192.0.2.{host}", 64, KEY, WHOLE) == worker_of(f"192.0.2.{host}", 64, KEY, WHOLE)
