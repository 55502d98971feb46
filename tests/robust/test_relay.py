"""`handoff.to = "proxy:..."`: relaying to an MTA that may refuse, stop, stall or disconnect."""

import contextlib
import os
import random
import re
import resource
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust.conftest import Start
from robust.harness import GREETING, TEASER, TIMEOUT, Client, Screener, merge, refuses, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_control import connected

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
KNOWN_CLIENT = "127.7.0.1"
BIG = 50_000_000


def to(*targets: str, **more: object) -> dict[str, object]:
    return {**KNOWN, "handoff": {"to": list(targets), **more}}


def refused() -> str:
    """A target where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"proxy:127.0.0.1:{listener.getsockname()[1]}"


def greet(connection: Connection, _: int) -> None:
    connection.send(b"220 the MTA itself\r\n")
    with contextlib.suppress(EOFError):
        while connection.line() != b"QUIT":
            connection.send(b"250 ok\r\n")
        connection.send(b"221 bye\r\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_mta_is_told_who_the_client_is(start: Start, version: int) -> None:
    came: list[Connection] = []

    def serve(connection: Connection, number: int) -> None:
        came.append(connection)
        greet(connection, number)

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target, proxy_version=version))
        with screener.connect(KNOWN_CLIENT) as client:
            assert client.read() == b"220 the MTA itself\r\n"
            assert client.ask(b"EHLO me") == b"250 ok\r\n"
            assert client.ask(b"QUIT") == b"221 bye\r\n"
            assert client.read() == b""
            assert came[0].client == client.socket.getsockname()
            assert came[0].server == screener.address
            assert came[0].header.startswith(b"PROXY TCP4 ") == (version == 1)
            assert screener.lines("CONNECT from|ALLOWLISTED") == screener.lines("127.7.0.1")  # as with pass:


def test_a_new_client_is_greeted_once(start: Start) -> None:
    """The teaser is the first line of the MTA's greeting. What came early is the MTA's to read."""
    early: list[bytes] = []

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 the MTA itself\r\n")
        early.append(connection.line())

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target), {"greet": {"action": "ignore"}})
        with screener.connect() as client:
            client.send(b"EHLO early\r\n")
            assert client.read() == TEASER + b"220 the MTA itself\r\n"
            assert client.read() == b""
            assert early == [b"EHLO early"]
            assert screener.lines(f"PREGREET .* from {client.pattern}")


def test_ends_are_passed_on_one_by_one(start: Start) -> None:
    """Who has ended can still be talked to."""
    heard: list[bytes] = []

    def serve(connection: Connection, number: int) -> None:
        if number == 0:  # the client ends first
            heard.append(connection.rest())
            connection.send(b"after your end\r\n")
        else:  # the MTA does
            connection.send(b"221 first\r\n")
            connection.socket.shutdown(socket.SHUT_WR)
            heard.append(connection.rest())

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target))
        with screener.connect(KNOWN_CLIENT) as client:
            client.send(b"all I have to say")
            client.half_close()
            assert client.read_all() == b"after your end\r\n"
        with screener.connect(KNOWN_CLIENT) as client:
            assert client.read_all() == b"221 first\r\n"
            client.send(b"still here")
        wait_until(lambda: len(heard) == 2, "the MTA to hear both")
        assert heard == [b"all I have to say", b"still here"]


SPLITS = st.lists(st.binary(min_size=1, max_size=70_000), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inward=SPLITS, outward=SPLITS)
def test_octets_are_the_same_at_any_split(relaying: "Relaying", inward: list[bytes], outward: list[bytes]) -> None:
    relaying.outward = outward
    with relaying.screener.connect(KNOWN_CLIENT) as client:
        for piece in inward:
            client.send(piece)
        client.half_close()
        got = b""
        while piece := client.socket.recv(1 << 20):
            got += piece
    assert got == b"".join(outward)
    assert relaying.inward.pop() == b"".join(inward)


class Relaying:
    """One screener and MTA for many examples. The MTA says `outward` piece by piece once it has read all."""

    def __init__(self, start: Start) -> None:
        self.outward: list[bytes] = []
        self.inward: list[bytes] = []
        self.mta = ProxyMta(self._serve)
        self.screener = start(to(self.mta.target))

    def _serve(self, connection: Connection, _: int) -> None:
        writer = threading.Thread(target=self._write, args=(connection,))
        writer.start()
        self.inward.append(connection.rest())
        writer.join()
        connection.socket.shutdown(socket.SHUT_WR)

    def _write(self, connection: Connection) -> None:
        for piece in self.outward:
            connection.send(piece)


@pytest.fixture
def relaying(start: Start) -> Iterator[Relaying]:
    made = Relaying(start)
    yield made
    made.mta.close()


def test_a_side_that_stops_reading_stops_the_other(start: Start) -> None:
    """50 MB each way. The MTA reads nothing for a while, then the client does: what the screener keeps is bounded, and
    nothing is lost."""
    content = random.Random(1).randbytes(BIG)
    heard: list[bytes] = []
    go = threading.Event()

    def serve(connection: Connection, _: int) -> None:
        assert go.wait(TIMEOUT)
        heard.append(connection.rest())
        connection.send(content)

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target))
        before = screener.status("VmRSS")
        with screener.connect(KNOWN_CLIENT, receive_buffer=4096) as client:
            sent = send_until_it_stalls(client.socket, content)
            assert 0 < sent < BIG
            assert screener.status("VmRSS") - before < 4096
            go.set()
            client.socket.settimeout(10 * TIMEOUT)  # for all of it
            client.send(content[sent:])
            client.half_close()
            wait_until(lambda: heard != [], "the MTA to have all")
            got = bytearray()
            while piece := client.socket.recv(1 << 20):
                got += piece
        assert heard == [content]
        assert bytes(got) == content
        assert screener.status("VmRSS") - before < 4096


def send_until_it_stalls(sender: socket.socket, content: bytes) -> int:
    """Send until nothing has been accepted for 0.5 s. Return the number of accepted bytes."""
    sender.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(content):
            sent += sender.send(content[sent : sent + (1 << 20)])
    return sent


def test_bulk_in_many_sessions_uses_no_more_pipes_than_there_are(start: Start) -> None:
    """100 stalled messages at a time: 64 have a pipe. Then all go through, and the pipes are kept for the next."""
    content = random.Random(2).randbytes(8_000_000)
    heard: list[bytes] = []
    go = threading.Event()

    def serve(connection: Connection, _: int) -> None:
        assert go.wait(TIMEOUT)
        heard.append(connection.rest())

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target), {"limits": {"client_connection_count": 0}})
        clients = [screener.connect(KNOWN_CLIENT) for _ in range(100)]
        senders = [threading.Thread(target=finish, args=(client, content)) for client in clients]
        for sender in senders:
            sender.start()
        wait_until(lambda: pipes(screener) == 64, lambda: f"64 pipes, there are {pipes(screener)}")
        go.set()
        for sender in senders:
            sender.join()
        wait_until(lambda: len(heard) == 100, "the MTA to have all")
        assert set(heard) == {content}
        assert pipes(screener) <= 64


def finish(client: Client, content: bytes) -> None:
    with client:
        client.send(content)
        client.half_close()
        client.read_all()


def pipes(screener: Screener) -> int:
    """How many pipes its workers have beyond those that every worker has."""
    count = 0
    for pid in screener.workers():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += link.readlink().name.startswith("pipe:")
    return (count - 2 * LOOP_PIPES) // 2


LOOP_PIPES = 2


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_an_mta_that_breaks_off(start: Start, how: str) -> None:
    """The client has the last words that the MTA said, though it is just sending a message."""

    def serve(connection: Connection, _: int) -> None:
        connection.line()
        connection.send(b"421 going down\r\n")
        if how == "resets":
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target))
        descriptors = screener.descriptors()
        with screener.connect(KNOWN_CLIENT) as client:
            client.send(b"DATA\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(20):
                    client.send(b"a line of the message\r\n")
            assert client.read() == b"421 going down\r\n"
            assert client.read() == b""
        wait_until(lambda: screener.descriptors() == descriptors, "the session to be gone")


def test_a_client_that_breaks_off(start: Start) -> None:
    """The MTA sees the end, never the end of a message."""
    heard: list[bytes] = []
    with ProxyMta(lambda connection, _: heard.append(connection.rest())) as mta:
        screener = start(to(mta.target))
        descriptors = screener.descriptors()
        client = screener.connect(KNOWN_CLIENT)
        client.send(b"half a mess")
        wait_until(lambda: mta.came == 1, "the MTA to be connected")
        client.reset()
        wait_until(lambda: screener.descriptors() == descriptors, "the session to be gone")
        wait_until(lambda: heard != [], "the MTA to see the end")
        assert heard[0] in (b"half a mess", b"")  # a reset may overtake what was sent


def test_both_sides_have_news_and_the_first_ends_the_session(start: Start) -> None:
    """MTAs say something, clients are gone: a batch has an event of each side, and the second finds no session."""
    connections: list[Connection] = []

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 the MTA itself\r\n")
        connections.append(connection)
        connection.rest()

    with ProxyMta(serve) as mta:
        screener = start(to(mta.target))
        descriptors = screener.descriptors()
        (worker,) = screener.workers()
        for _ in range(5):
            connections.clear()
            clients = [screener.connect(KNOWN_CLIENT) for _ in range(20)]
            for client in clients:
                assert client.read() == b"220 the MTA itself\r\n"
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: ") T " in Path(f"/proc/{worker}/stat").read_text(), "the worker to stand still")
            for connection in connections:
                connection.send(b"250 to nobody\r\n")
            for client in clients:
                client.reset()
            os.kill(worker, signal.SIGCONT)
            wait_until(lambda: screener.descriptors() <= descriptors, "the sessions to be gone")
            assert screener.workers() == [worker]


def test_a_refusing_target_is_skipped(start: Start) -> None:
    with ProxyMta(greet) as mta:
        dead = refused()
        screener = start(to(dead, mta.target))
        for _ in range(3):
            with screener.connect(KNOWN_CLIENT) as client:
                assert client.read() == b"220 the MTA itself\r\n"
        label = re.escape(dead.removeprefix("proxy:"))
        assert len(screener.lines(f"]: warning: cannot connect to service {label}: Connection refused$")) == 1


def test_a_silent_target_is_skipped_after_a_while(start: Start) -> None:
    with ProxyMta(greet) as mta, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        silent_at = silent.getsockname()
        held = [socket.socket() for _ in range(3)]
        for each in held:  # its backlog is full: a SYN is never answered
            each.setblocking(False)
            each.connect_ex(silent_at)
        screener = start(to(f"proxy:127.0.0.1:{silent_at[1]}", mta.target))
        with screener.connect(KNOWN_CLIENT) as client:
            assert client.read() == b"220 the MTA itself\r\n"
        assert screener.lines(f"cannot connect to service 127.0.0.1:{silent_at[1]}: Connection timed out$")
        with screener.connect(KNOWN_CLIENT) as client:
            assert client.read() == b"220 the MTA itself\r\n"
        assert len(screener.lines("cannot connect to service")) == 1
        for each in held:
            each.close()


def test_a_way_that_is_being_made_counts(start: Start, folder: Path) -> None:
    """For limits.relay, in the worker as in what `explain` says of it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as held:
        target = silent.getsockname()
        for _ in range(3):
            each = held.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(target)
        path = folder / "run" / "control"
        more = {"limits": {"relay": 1}, "control": {"path": str(path)}}
        screener = start(to(f"proxy:127.0.0.1:{target[1]}"), more)
        with connected(path) as control, screener.connect(KNOWN_CLIENT) as first:
            screener.line(f"ALLOWLISTED {first.pattern}")
            explained = control.ok("explain", address="127.7.0.2")
            with screener.connect("127.7.0.2") as second:
                reply = second.read_all()
        assert reply == b"421 4.3.2 All server ports are busy\r\n"
        assert (explained["verdict"], explained["reply"]) == ("busy", reply.decode().rstrip())


def test_no_target_is_told_as_a_missing_socket_is(start: Start) -> None:
    """With and without a teaser before (reference 8.5). It works again without a restart."""
    targets = [refused(), refused()]
    screener = start(to(*targets))
    first, second = (re.escape(target.removeprefix("proxy:")) for target in targets)
    with screener.connect(KNOWN_CLIENT) as client:
        assert client.read_all() == b"421 4.3.2 All server ports are busy\r\n"
    screener.line(f"]: warning: cannot connect to service {first}: Connection refused$")
    screener.line(f"]: warning: cannot connect to service {first}, {second}: Connection refused$")
    with screener.connect() as client:
        assert client.read() == TEASER + GREETING
        assert client.ask(b"EHLO me") == b"421 4.3.2 No system resources\r\n"
        screener.line(f"DISCONNECT {client.pattern}")
    with ProxyMta(greet) as mta:
        screener.reload(merge(screener.settings, to(mta.target)))
        with screener.connect(KNOWN_CLIENT) as client:
            assert client.read() == b"220 the MTA itself\r\n"


def test_targets_by_weight(start: Start) -> None:
    with ProxyMta(greet) as one, ProxyMta(greet) as other:
        screener = start(to(f"{one.target}*3", f"{other.target}*1"))
        for _ in range(8):
            with screener.connect(KNOWN_CLIENT) as client:
                assert client.read() == b"220 the MTA itself\r\n"
        assert (one.came, other.came) == (6, 2)


def test_a_unix_socket_that_is_full_is_waited_for(start: Start, folder: Path) -> None:
    path = folder / "proxy"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(0)
        screener = start(to(f"proxy:unix:{path}"))
        with screener.connect(KNOWN_CLIENT) as first, screener.connect(KNOWN_CLIENT) as second:
            for client in (first, second):
                connection, _ = listener.accept()
                with connection:
                    made = Connection(connection)
                    assert made.client == client.socket.getsockname()
                    made.send(b"220 the MTA itself\r\n")
                    assert client.read() == b"220 the MTA itself\r\n"
        assert screener.lines("warning") == []


def test_nothing_moves_for_too_long(start: Start) -> None:
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target, relay_idle_limit="1s"))
        with screener.connect(KNOWN_CLIENT) as client:
            client.read()
            assert client.read() == b""
            screener.line(rf"RELAY TIME LIMIT from {client.pattern} after 0 bytes in, 20 bytes out$")


def test_a_session_that_lasts_too_long(start: Start) -> None:
    """Though something moves all the time."""
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target, relay_time_limit="1s"))
        with screener.connect(KNOWN_CLIENT) as client:
            client.read()
            with contextlib.suppress(ConnectionError):
                while client.ask(b"NOOP"):
                    pass
            screener.line(rf"RELAY TIME LIMIT from {client.pattern} after ")


def test_the_number_of_relayed_sessions_is_limited(start: Start) -> None:
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target), {"limits": {"relay": 2}})
        with screener.connect(KNOWN_CLIENT) as first, screener.connect(KNOWN_CLIENT) as second:
            assert first.read() == second.read() == b"220 the MTA itself\r\n"
            with screener.connect(KNOWN_CLIENT) as third:
                assert third.read_all() == b"421 4.3.2 All server ports are busy\r\n"
            first.ask(b"QUIT")
            assert first.read() == b""
            first.socket.close()
            with screener.connect(KNOWN_CLIENT) as fourth:
                assert fourth.read() == b"220 the MTA itself\r\n"


def test_relayed_sessions_do_not_count_as_clients_under_test(start: Start) -> None:
    with ProxyMta(greet) as mta, contextlib.ExitStack() as open_ones:
        screener = start(to(mta.target), {"limits": {"pre_queue": 10, "client_connection_count": 0}})
        for _ in range(30):
            client = open_ones.enter_context(screener.connect(KNOWN_CLIENT))
            assert client.read() == b"220 the MTA itself\r\n"
        with screener.connect() as client:
            assert client.read() == TEASER + b"220 the MTA itself\r\n"
        assert screener.lines("STRESS|busy") == []


def test_stress_ends_when_its_clients_are_relayed(start: Start) -> None:
    """Not when the first of them has ended: until then all newcomers would have the short limits."""
    with ProxyMta(greet) as mta, contextlib.ExitStack() as open_ones:
        screener = start(to(mta.target), {"limits": {"pre_queue": 10}})
        clients = [open_ones.enter_context(screener.connect(f"127.1.0.{number}")) for number in range(1, 10)]
        screener.line("entering STRESS mode with 9 connections")
        for client in clients:
            assert client.read() == TEASER + b"220 the MTA itself\r\n"
        screener.line("leaving STRESS mode with 7 connections")


def test_too_few_descriptors_are_waited_for(start: Start) -> None:
    """limits.relay promises more than there are: who was accepted waits until another has left, as with pass:."""
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target), {"limits": {"relay": 1000, "client_connection_count": 0}}, descriptors=50)
        clients = [screener.connect(KNOWN_CLIENT) for _ in range(40)]
        for client in clients:
            with client:
                assert client.read() == b"220 the MTA itself\r\n"
        assert screener.lines("warning: cannot connect") == []


def test_relayed_sessions_count_as_the_clients_own(start: Start) -> None:
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target), {"limits": {"client_connection_count": 1}})
        with screener.connect(KNOWN_CLIENT) as first:
            assert first.read() == b"220 the MTA itself\r\n"
            with screener.connect(KNOWN_CLIENT) as second:
                assert second.read_all() == b"421 4.7.0 Error: too many connections\r\n"


def test_relayed_mail_may_finish_at_sigterm(start: Start) -> None:
    with ProxyMta(greet) as mta:
        screener = start(to(mta.target))
        with screener.connect(KNOWN_CLIENT) as client:
            client.read()
            screener.signal(signal.SIGTERM)
            wait_until(lambda: refuses(screener.address, KNOWN_CLIENT), "the port to be closed")
            assert client.ask(b"NOOP") == b"250 ok\r\n"
            assert client.ask(b"QUIT") == b"221 bye\r\n"
        assert screener.wait() == 0


def test_many_at_a_time(start: Start) -> None:
    """A thousand in one worker, each with something to say."""
    raise_limit()
    with ProxyMta(greet) as mta, contextlib.ExitStack() as open_ones:
        screener = start(to(mta.target), {"limits": {"client_connection_count": 0, "post_queue": 1000}})
        before = screener.descriptors()
        clients = [open_ones.enter_context(screener.connect(f"127.7.{at % 200}.1")) for at in range(1000)]
        for client in clients:
            assert client.read() == b"220 the MTA itself\r\n"
        for client in clients:
            assert client.ask(b"NOOP") == b"250 ok\r\n"
        for client in clients:
            client.send(b"QUIT\r\n")
        for client in clients:
            assert client.read_all() == b"221 bye\r\n"
        open_ones.close()
        wait_until(lambda: screener.descriptors() == before, "all sessions to be gone")


def raise_limit() -> None:
    """The test itself needs a descriptor for both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20000)), hard))
