"""Signals as events of the supervisor's loop: blocked, and read from a descriptor (signalfd(2)).

Blocked signals also survive execve, so that none is lost while a restart replaces the program.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterable

_SIZE = 128  # bytes of struct signalfd_siginfo; its first field is the number of the signal
_SET_SIZE = 128  # bytes of sigset_t

ORDERS = frozenset(
    {signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD}
)
"""Signals that mean something to the supervisor."""

IGNORED = frozenset(
    {
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT),
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
"""Signals that would end the daemon without a word, though nobody means that by them. SIGPIPE is ignored by Python."""

BLOCKED = ORDERS | IGNORED

FOR_SUPERVISOR = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that other processes of the daemon ignore: a terminal or `kill -- -PGID` sends them to all."""


class SignalReader:
    """A descriptor that is readable when one of these signals, which are blocked, has come. OSError: no descriptor."""

    def __init__(self, numbers: Iterable[int] = BLOCKED) -> None:
        mask = 0
        for number in numbers:
            mask |= 1 << (number - 1)
        self._set = (ctypes.c_ulong * (_SET_SIZE // ctypes.sizeof(ctypes.c_ulong)))(mask)
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(libc.signalfd(-1, self._set, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            number = ctypes.get_errno() or errno.EINVAL
            raise OSError(number, f"signalfd: {os.strerror(number)}")

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[int]:
        """The signals that have come; each at most once. Never waits."""
        found: list[int] = []
        while True:
            try:
                records = os.read(self._fd, _SIZE * 32)
            except BlockingIOError:
                return found
            numbers = (int.from_bytes(records[at : at + 4], "little") for at in range(0, len(records), _SIZE))
            found += [number for number in dict.fromkeys(numbers) if number not in found]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def name_of(number: int) -> str:
    """For a person."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
