"""Connections that wait for their PROXY header, in the test's own core: they end in any order, for any reason."""

import errno
import gc
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from robust.harness import TEASER
from robust.owncore import Core
from robust.syscalls import with_failing

START = b"PROXY TCP4 203.0.113.1 "
REST = b"198.51.100.7 5000 25\r\n"
REFUSED = b"421 4.3.2 No system resources\r\n"
EPOLL_CTL_ADD = 1


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def waiting(core: Core, count: int) -> list[socket.socket]:
    """Connections of which a part of the header is there, in the order of their arrival."""
    clients = []
    for number in range(count):
        clients.append(core.connect(core.proxy_port, START))
        core.run_until(lambda wanted=number + 1: core.stat("arrivals") == wanted, "the connection")  # type: ignore[misc]
    return clients


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_each_may_be_the_next_to_leave(tmp_path: Path, opened: ExitStack, order: tuple[int, ...]) -> None:
    """The first leaves, the second becomes a client, the last one is told to go at the end of the process."""
    core = Core(tmp_path, opened)
    clients = waiting(core, 3)
    clients[order[0]].close()
    core.run_until(lambda: core.stat("arrivals") == 2, "the end of one")
    clients[order[1]].sendall(REST)
    core.run_until(lambda: core.stat("arrivals") == 1, "the header of another")
    assert (core.screener.sessions, clients[order[1]].recv(100)) == (1, TEASER)
    del core.screener
    gc.collect()
    with pytest.raises(ConnectionResetError):  # without a reply, and with the part of the header unread
        clients[order[2]].recv(100)


def test_in_a_hurry_they_have_a_second(tmp_path: Path, opened: ExitStack) -> None:
    """At a second SIGTERM, or for an update. All are replied to, and nothing of them is left."""
    core = Core(tmp_path, opened)
    clients = waiting(core, 3)
    began = time.monotonic()
    core.screener.drain(hurry=True)
    core.run()
    assert core.stat("arrivals") == 3
    core.run_until(lambda: core.stat("arrivals") == 0, "the end of the second")
    assert 0.9 < time.monotonic() - began < 5
    for each in clients:
        assert each.recv(100) == REFUSED
    core.assert_quiet()


def test_the_kernel_has_no_room_for_another_watch(tmp_path: Path, opened: ExitStack) -> None:
    """fs.epoll.max_user_watches. It is refused, the others still wait, and the next one is taken."""
    core = Core(tmp_path, opened)
    first = waiting(core, 1)[0]
    second = core.connect(core.proxy_port, START)
    with_failing("epoll_ctl", 1, EPOLL_CTL_ADD, errno.ENOSPC, core.run)
    assert second.recv(100) == REFUSED
    assert core.stat("arrivals") == 1
    third = core.connect(core.proxy_port, START)
    core.run_until(lambda: core.stat("arrivals") == 2, "the third")
    for each in (first, third):
        each.sendall(REST)
        core.run_until(lambda: core.screener.sessions == 1, "its header")
        assert each.recv(100) == TEASER
        each.close()
        core.run_until(lambda: core.screener.sessions == 0, "its end")
    core.assert_quiet()


def test_the_header_can_be_seen_but_not_taken(tmp_path: Path, opened: ExitStack) -> None:
    """A client whose first bytes would be the header's is never begun, whether it waited or not."""
    core = Core(tmp_path, opened)
    waited = waiting(core, 1)[0]
    waited.sendall(REST)
    whole = core.connect(core.proxy_port, START + REST)
    with_failing("recvfrom", 3, socket.MSG_DONTWAIT, errno.ENOMEM, core.run)
    for each in (waited, whole):
        assert each.recv(100) == REFUSED
    assert (core.stat("arrivals"), core.screener.sessions) == (0, 0)
    core.assert_quiet()
