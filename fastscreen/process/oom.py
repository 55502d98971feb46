"""What the kernel ends first when memory runs out: a worker, which is replaced, and never the supervisor.

The kernel uses oom_score_adj (proc(5)).

Each process starts at the value that its parent has at the fork. So the supervisor takes a child's value for the moment
of the fork, and its own again afterwards. The kernel permits that without privileges: a process may raise its value,
and lower it as far as a privileged one has set it before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROTECTION = 500
"""By how much the supervisor lowers its own value when it starts as root."""
CHILD = 100
"""By how much the value of children is above the inherited one, and the least value that they have."""
MIN_SCORE, MAX_SCORE = -1000, 1000


class OomScore:
    """The supervisor's. `inherited`: the value that it was started with. fd: /proc/self/oom_score_adj, or -1."""

    def __init__(self, inherited: int, fd: int, *, own: int | None = None) -> None:
        self.inherited = inherited
        self.fd = fd
        self.own = inherited if own is None else own

    @property
    def child(self) -> int:
        """The value of all children."""
        return min(MAX_SCORE, max(self.inherited, 0) + CHILD)

    def protect(self) -> None:
        """Lower the supervisor's own value, where that is permitted."""
        wanted = max(MIN_SCORE, self.inherited - PROTECTION)
        if self._write(wanted):
            self.own = wanted

    @contextlib.contextmanager
    def for_fork(self) -> Iterator[None]:
        """A process that is forked in this block has the children's value."""
        self._write(self.child)
        try:
            yield
        finally:
            self._write(self.own)

    def _write(self, value: int) -> bool:
        if self.fd < 0:
            return False
        try:
            os.write(self.fd, f"{value}".encode())
        except OSError:
            return False
        return True


def opened(path: Path = Path("/proc/self/oom_score_adj")) -> OomScore:
    """For before privileges are dropped: afterwards the file belongs to root. Without /proc it does nothing."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return OomScore(0, -1)
    try:
        return OomScore(int(os.read(fd, 16)), fd)
    except (OSError, ValueError):
        os.close(fd)
        return OomScore(0, -1)
