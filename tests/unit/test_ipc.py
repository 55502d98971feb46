"""Messages between the supervisor and its children: limited, checked, and never waited for."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastscreen.config import default
from fastscreen.process import fd_passing, ipc
from fastscreen.process.ipc import Failed, MalformedError, Ready, Stop


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = ipc.pair()
    with ours, theirs:
        yield ours, theirs


def opened(descriptor: int) -> int:
    """How many descriptors of this process are of the same file."""
    wanted, count = os.fstat(descriptor), 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder itself
            count += os.path.samestat(os.fstat(int(one.name)), wanted)
    return count


def test_reports(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        ipc.receive_report(ours)
    ipc.send(theirs, Ready())
    ipc.send(theirs, Failed("x" * 1000, 2))
    assert ipc.receive_report(ours) == Ready()
    assert ipc.receive_report(ours) == Failed("x" * 1000, 2)
    theirs.close()
    assert ipc.receive_report(ours) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        b"x",
        b"\x80",
        b"\x81\xa4type\xa4stop",
        b"\x81\xa4type\xa6failed",
        bytes(100_000),
        msgspec.msgpack.encode(1),
    ],
)
def test_packets_that_are_no_reports(ends: tuple[socket.socket, socket.socket], packet: bytes) -> None:
    ours, theirs = ends
    theirs.send(packet)
    with pytest.raises(MalformedError):
        ipc.receive_report(ours)
    ipc.send(theirs, Ready())
    assert ipc.receive_report(ours) == Ready()


@pytest.mark.parametrize("count", [1, 3, 16, 17, 250])
def test_descriptors_that_no_report_has(ends: tuple[socket.socket, socket.socket], count: int) -> None:
    """However many they are, none stays open."""
    ours, theirs = ends
    passed = os.memfd_create("passed")
    with os.fdopen(passed):
        fd_passing.send(theirs, msgspec.msgpack.encode(Ready()), [passed] * count)
        with pytest.raises(MalformedError, match="descriptors"):
            ipc.receive_report(ours)
        assert opened(passed) == 1


def test_a_full_channel(ends: tuple[socket.socket, socket.socket]) -> None:
    """The process at the other end hangs, and is not waited for."""
    ours, _ = ends
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            ipc.send(ours, Stop(), [0])


def test_received_descriptors_end_with_exec(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ipc.send_reload(ours, default(), {})
    order, found = ipc.receive_order(theirs)
    assert isinstance(order, ipc.Reload)
    assert [os.get_inheritable(one) for one in found] == [False]
    assert ipc.read_settings(found[0]) == (default(), ())


def test_several_read_the_same_settings(ends: tuple[socket.socket, socket.socket]) -> None:
    """From one file, whose position they share."""
    memory = ipc.settings_memory(default(), ())
    os.lseek(memory, 10, os.SEEK_SET)
    assert ipc.read_settings(os.dup(memory)) == (default(), ())
    assert os.lseek(memory, 0, os.SEEK_CUR) == 10
    os.close(memory)


def test_an_order_of_a_newer_program(ends: tuple[socket.socket, socket.socket]) -> None:
    """After a restart the former workers get the new program's orders: what they do not know is ignored."""
    ours, theirs = ends
    ours.send(msgspec.msgpack.encode({"type": "stop", "successor": True, "new": 1}))
    assert ipc.receive_order(theirs)[0] == Stop(successor=True)
    ours.send(msgspec.msgpack.encode({"type": "stop"}))
    assert ipc.receive_order(theirs)[0] == Stop()


@pytest.mark.parametrize("packet", [b"\xc1", b"", msgspec.msgpack.encode(1), msgspec.msgpack.encode(Stop())])
def test_descriptors_of_what_takes_none_are_closed(ends: tuple[socket.socket, socket.socket], packet: bytes) -> None:
    ours, theirs = ends
    passed = os.memfd_create("passed")
    with os.fdopen(passed):
        fd_passing.send(ours, packet, [passed] * 3)
        with contextlib.suppress(msgspec.MsgspecError):
            assert ipc.receive_order(theirs)[1] == []
        assert opened(passed) == 1
