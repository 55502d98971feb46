"""What a record has about the client's SYN packet and its SMTP dialect."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastscreen.history import session
from fastscreen.history.session import Session
from robust.fakemta import FakeMta
from robust.historycore import Client, Core

TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
DEEP = {"deep": {"pipelining": "enforce"}, "greet": {"banner": ""}}
LINES = (b"EHLO a.se", b"mail from: a@b.test", b"RCPT TO:<c@d.test> ", b"RSET", b"QUIT")
SAID = "EHLO mixed from: blank nobracket trailing rset quit"

Make = Callable[..., Core]


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made = FakeMta(folder / "mta")
    made.start()
    with ExitStack() as opened:
        yield lambda settings=None, **more: Core(folder, opened, settings or DEEP, **more)
    made.close()


def talk(client: Client, *lines: bytes) -> None:
    client.until(lambda got: b"220 mx.test" in got)
    client.ask(*lines)
    client.hang_up()


def recorded(core: Core) -> Session:
    core.end()
    ((ended, address, packed, _, _),), lost = core.reader.read(10)
    core.reader.done()
    found = session.read(ended, address, packed, None)
    assert found is not None
    assert lost == 0
    return found


def saves(port: socket.socket) -> bool:
    """Whether the kernel keeps SYN packets for this listener."""
    return port.getsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN) == 1


def own_syn(address: tuple[str, int], family: socket.AddressFamily) -> tuple[int, int]:
    """The time to live and the maximum segment size that this kernel uses."""
    with socket.create_server((address[0], 0), family=family) as server:
        server.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        with socket.socket(family) as client:
            client.connect(server.getsockname()[:2])
            accepted, _ = server.accept()
            packet = accepted.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 256)
            accepted.close()
    at = packet.index(b"\2\4", 40 if family == socket.AF_INET else 60)
    (mss,) = struct.unpack_from("!H", packet, at + 2)
    return packet[8] if family == socket.AF_INET else packet[7], mss


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_client_under_test(make: Make, family: socket.AddressFamily) -> None:
    core = make()
    port = core.port
    if family == socket.AF_INET6:
        port = core.opened.enter_context(socket.create_server(("::1", 0), family=family))
        port.setblocking(False)
        core.screener.listen(port.fileno())
    assert saves(port)
    assert not saves(core.proxy_port)
    client = core.opened.enter_context(socket.socket(family))
    client.connect(port.getsockname()[:2])
    client.setblocking(False)
    talk(Client(core, client), *LINES)
    found = recorded(core)
    words = found.syn.split()
    ttl, mss = own_syn(port.getsockname()[:2], family)
    assert words[:2] == ["ttl", str(ttl)]
    assert words[words.index("mss") + 1] == str(mss)
    assert ("df" in words) == (family == socket.AF_INET)
    assert words[-1] == "mss,sack,ts,nop,ws"
    assert found.dialect.rpartition(" ")[0] == SAID
    assert found.dialect.endswith(("µs", "ms"))


def test_a_client_of_a_load_balancer(make: Make) -> None:
    core = make()
    client = core.connect(port=core.proxy_port, first=b"PROXY TCP4 192.0.2.1 127.9.0.3 4000 25\r\n")
    talk(client, *LINES)
    found = recorded(core)
    assert (found.address, found.syn) == ("192.0.2.1", "")
    assert found.dialect.rpartition(" ")[0] == SAID


def test_a_known_client(make: Make) -> None:
    """It is handed off without a look at its packet."""
    core = make({"greet": {"wait": "1s"}})
    for marks in ({"new", "passed"}, {"cached", "passed"}):
        core.connect().rest()
        found = recorded(core)
        assert set(found.marks) == marks
        assert bool(found.syn) == ("new" in marks)
        assert found.dialect == ""


def test_without_a_history(make: Make) -> None:
    """Nothing is asked of the kernel; and nothing any longer once the history ends."""
    core = make(recording=False)
    assert not saves(core.port)
    talk(core.connect(), *LINES)
    core.use_history()
    assert saves(core.port)
    assert saves(core.listen())
    core.screener.use_history(None, 0, 0)
    assert not saves(core.port)
    core.end()
    assert core.reader.head == 0


def test_the_memory_of_offenses_alone(make: Make) -> None:
    """It learns from records, but does not use fingerprints: nothing is asked of the kernel."""
    core = make(recording=False)
    core.use_history(fingerprints=False)
    assert not saves(core.port)
    assert not saves(core.listen())
    talk(core.connect(), *LINES)
    found = recorded(core)
    assert (found.dialect, found.syn, found.commands) == ("", "", len(LINES))
    core.use_history()
    assert saves(core.port)


def test_the_time_to_answer(make: Make) -> None:
    core = make()
    client = core.connect()
    client.until(lambda got: b"220 mx.test" in got)
    for line in LINES:
        time.sleep(0.02)
        client.ask(line)
    client.hang_up()
    word = recorded(core).dialect.split()[-1]
    assert word in ("16ms", "32ms", "65ms", "131ms", "262ms")  # the machine may be busy
