"""An epoll registration lives as long as the open file description, which another process may hold after our close():
a worker that passed it, an MTA, a child forked meanwhile. Here a dup() of the core's descriptor stands for that.
"""

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from robust.owncore import Core

PROXY_START = b"PROXY TCP4 192.0.2.1 "


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_client_under_test(tmp_path: Path, opened: ExitStack) -> None:
    core = Core(tmp_path, opened)
    clients: list[socket.socket] = []

    def connect() -> socket.socket:
        clients.append(core.connect(core.port))
        return clients[0]

    core.hold(core.made(connect, lambda: core.screener.sessions == 1, "the client to be accepted"))
    clients[0].close()
    core.run_until(lambda: core.screener.sessions == 0, "the end of its session")
    core.assert_quiet()


def test_connection_that_waits_for_its_header(tmp_path: Path, opened: ExitStack) -> None:
    core = Core(tmp_path, opened)
    clients: list[socket.socket] = []

    def connect() -> socket.socket:
        clients.append(core.connect(core.proxy_port, PROXY_START))
        return clients[0]

    core.hold(core.made(connect, lambda: core.stat("arrivals") == 1, "the connection"))
    clients[0].close()
    core.run_until(lambda: core.stat("arrivals") == 0, "its end")
    core.assert_quiet()


def test_both_sides_of_a_relay(tmp_path: Path, opened: ExitStack) -> None:
    mta = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    core = Core(tmp_path, opened, to=f"proxy:127.0.0.1:{mta.getsockname()[1]}", known=True)
    clients: list[socket.socket] = []

    def connect() -> socket.socket:
        clients.append(core.connect(core.port))
        return clients[0]

    core.hold(core.made(connect, lambda: core.screener.relayed == 1, "the relay"))
    inside, _ = mta.accept()
    core.keep(inside)
    clients[0].sendall(b"EHLO x\r\n")
    core.run_until(lambda: bool(select.select([inside], [], [], 0)[0]), "the line to be relayed")
    inside.close()  # with unread bytes: a reset
    clients[0].close()
    core.run_until(lambda: core.screener.relays == 0, "the end of the relay")
    core.assert_quiet()


def test_connect_that_an_mta_refuses_late(tmp_path: Path, opened: ExitStack) -> None:
    """Only the MTA's side is in an epoll set. The kernel answers the second SYN with a reset after 1 s."""
    mta = socket.create_server(("127.0.0.1", 0), backlog=0)
    for _ in range(3):  # the queue is full then
        filling = opened.enter_context(socket.socket())
        filling.setblocking(False)
        filling.connect_ex(mta.getsockname())
    core = Core(tmp_path, opened, to=f"proxy:127.0.0.1:{mta.getsockname()[1]}", known=True)
    core.hold(core.made(lambda: core.connect(core.port), lambda: core.screener.relays == 1, "the connect"))
    mta.close()
    core.run_until(lambda: core.screener.relays == 0, "the end of the connect")
    core.assert_quiet()


def test_hand_off_socket(tmp_path: Path, opened: ExitStack) -> None:
    """Its set is asked only while there are hand-offs: the second client is one, and of the first nothing is told."""
    core = Core(tmp_path, opened, known=True)
    core.hold(core.made(lambda: core.connect(core.port), lambda: core.screener.handoffs == 1, "the hand-off"))
    core.mta.accept()[0].close()
    core.run_until(lambda: core.screener.handoffs == 0, "the MTA to confirm")
    core.connect(core.port)
    core.run_until(lambda: core.screener.handoffs == 1, "the second hand-off")
    core.assert_quiet()
    assert core.screener.handoffs == 1


def test_socket_for_dns_questions(tmp_path: Path, opened: ExitStack) -> None:
    """Retired with the resolvers of before; a late answer to it is nobody's."""
    core = Core(tmp_path, opened, 'dnsbl = {sites = ["a.test"]}\n')
    resolver = core.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    resolver.bind(("127.0.0.1", 0))
    resolver.settimeout(5.0)
    core.screener.use_resolvers([packed(resolver)])
    core.hold(core.made(lambda: core.connect(core.port), lambda: core.stat("dns_asked") == 1, "a question"))
    question, asker = resolver.recvfrom(1000)
    other = core.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other.bind(("127.0.0.1", 0))
    core.screener.use_resolvers([packed(other)])
    resolver.sendto(question, asker)
    core.assert_quiet()


def packed(end: socket.socket) -> bytes:
    """A struct sockaddr_in."""
    host, port = end.getsockname()
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


def test_listener(tmp_path: Path, opened: ExitStack) -> None:
    """The supervisor holds it, too."""
    core = Core(tmp_path, opened)
    core.screener.unlisten(core.port.fileno())
    core.connect(core.port)
    core.assert_quiet()


def test_event_of_a_registration_that_has_ended(tmp_path: Path, opened: ExitStack) -> None:
    """The second line of defense, with a fault that the core cannot see: another file is put in the descriptor's place,
    so that it cannot be taken out of the set. What epoll still says of it finds nothing, and harms nobody else."""
    core = Core(tmp_path, opened)
    clients: list[socket.socket] = []

    def connect() -> socket.socket:
        clients.append(core.connect(core.port))
        return clients[0]

    (descriptor,) = core.made(connect, lambda: core.screener.sessions == 1, "the client")
    core.hold({descriptor})
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), descriptor)
    clients[0].sendall(b"EHLO early\r\n")
    core.run_until(lambda: core.screener.sessions == 0, "the end of the session")
    # Enough for one of them to have the slot, and the memory, of the one that ended.
    others = [core.connect(core.port) for _ in range(5)]
    core.run_until(lambda: core.screener.sessions == 5, "the others")
    clients[0].close()
    before = core.stat("stale_events")
    core.run_until(lambda: core.stat("stale_events") > before + 3, "stale events")
    assert core.screener.sessions == 5
    for each in others:
        assert each.recv(1000).startswith(b"220-")
