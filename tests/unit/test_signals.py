"""Signals from a descriptor. The test process blocks the signals meanwhile."""

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from fastscreen.process import signals
from fastscreen.process.signals import SignalReader

NUMBERS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 4)


@pytest.fixture
def reader() -> Iterator[SignalReader]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    made = SignalReader(NUMBERS)
    yield made
    made.read()
    made.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_here(number: int) -> None:
    """For this thread, which has them blocked."""
    signal.pthread_kill(threading.get_ident(), number)


def test_each_is_told_once(reader: SignalReader) -> None:
    assert reader.read() == []
    for number in (*NUMBERS, signal.SIGRTMIN + 4):
        raise_here(number)
    assert select.select([reader], [], [], 0)[0] == [reader]
    assert sorted(reader.read()) == sorted(NUMBERS)
    assert reader.read() == []


def test_closed_at_exec(reader: SignalReader) -> None:
    assert not os.get_inheritable(reader.fileno())


def test_none_is_both() -> None:
    """SIGCHLD is the only one that other processes of the daemon need not ignore."""
    assert not signals.ORDERS & signals.IGNORED
    assert set(signals.FOR_SUPERVISOR) == signals.ORDERS - {signal.SIGCHLD}


def test_names() -> None:
    assert signals.name_of(signal.SIGUSR2) == "SIGUSR2"
    assert signals.name_of(signal.SIGRTMIN + 6) == f"signal {int(signal.SIGRTMIN) + 6}"
