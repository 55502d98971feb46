"""late-timers: a process that stood still (stopped, swapped out, a paused machine) past its timers' ends. What peers
did in time counts, whatever order timers and events are in when it goes on."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from robust.conftest import Start
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta, fill
from robust.harness import ADDRESS, GREETING, TEASER, Client, Screener, wait_until
from robust.owncore import Core
from robust.proxymta import ProxyMta
from robust.tlsclient import begin, certificates, secure

DEEP = {"deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}}
AT_ONCE = {"greet": {"banner": ""}}
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}


@contextlib.contextmanager
def stopped(screener: Screener, seconds: float, name: str = "fastscreen") -> Iterator[None]:
    """Stop the worker (or the other process of this name) for the block, and for so many s after it."""
    (pid,) = (pid for pid in screener.workers() if Path(f"/proc/{pid}/comm").read_text().strip() == name)
    os.kill(pid, signal.SIGSTOP)
    try:
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(") ")[2][0] == "T", "the process to stand still")
        yield
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_early_talkers_do_not_pass(start: Start, mta: FakeMta) -> None:
    """Nor does a client that leaves; one that waited as it should does."""
    screener = start({"greet": {"wait": "3s"}})
    talkers = [screener.connect(f"127.1.0.{number}") for number in range(1, 21)]
    leavers = [screener.connect(f"127.1.1.{number}") for number in range(1, 6)]
    good = screener.connect("127.1.2.1")
    for client in (*talkers, *leavers, good):
        assert client.socket.recv(1000) == TEASER
    with stopped(screener, 3.2):
        assert not screener.lines("PASS|PREGREET|HANGUP")
        for client in talkers:
            client.send(b"EHLO bot\r\n")
        for client in leavers:
            client.socket.close()
    for client in talkers:
        screener.line(f"PREGREET 10 after .* from {client.pattern}")
        assert client.read().startswith(b"250-")
        client.socket.close()
    for client in leavers:
        screener.line(f"HANGUP after .* from {client.pattern} in tests before SMTP handshake")
    assert good.read() == FROM_MTA
    good.socket.close()
    assert [taken["client_address"] for taken in mta.taken] == ["127.1.2.1"]
    assert len(screener.lines("PASS NEW")) == 1


def test_command_that_came_in_time(start: Start) -> None:
    screener = start(DEEP, AT_ONCE, {"engine": {"command_time_limit": "3s"}})
    with screener.connect("127.1.0.1") as prompt, screener.connect("127.1.0.2") as silent:
        for client in (prompt, silent):
            assert client.read() == GREETING
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        with stopped(screener, 3.2):
            assert not screener.lines("TIME LIMIT")
            prompt.send(b"NOOP\r\n")
        assert prompt.read() == b"250 2.0.0 Ok\r\n"
        assert silent.read() == b"421 4.4.2 mx.example.test Error: timeout exceeded\r\n"


def test_answer_of_a_dns_list_that_came_in_time(start: Start, dns: FakeDns) -> None:
    dns.zones["a.test"] = listed("127.0.0.2", delay=1.0)
    lists = {"sites": ["a.test"], "resolvers": [dns.endpoint], "timeout": "2s", "action": "enforce", "threshold": 1}
    screener = start({"greet": {"wait": "3s"}, "dnsbl": lists})
    with screener.connect() as client:
        wait_until(lambda: dns.count("a.test") == 1, "the question")
        with stopped(screener, 3.2):
            assert not screener.lines("PASS|DNSBL rank")
        screener.line(f"DNSBL rank 1 for {client.pattern}")
        assert not screener.lines("warning|PASS")


def test_proxy_header_that_came_in_time(start: Start) -> None:
    port = {"addresses": ["127.9.0.9:0"], "trusted": ["127.60.0.0/16"], "timeout": "3s"}
    screener = start({"listen": {"addresses": [f"{ADDRESS}:0"], "proxy": [port]}})
    where = screener.lines(" daemon started ")[-1].rpartition("127.9.0.9:")[2]
    before = screener.descriptors()
    with Client(("127.9.0.9", int(where)), "127.60.0.1") as client:
        client.send(b"PROXY TCP4 192.0.2.9 ")
        wait_until(lambda: screener.descriptors() > before, "the connection to be accepted")
        with stopped(screener, 3.2):
            assert not screener.lines("time limit")
            client.send(b"198.51.100.7 5000 25\r\n")
        assert client.socket.recv(1000) == TEASER
    assert not screener.lines("time limit")


# Which of the two epoll sets the loop looks at first after a stall is chance: here it is the one with the timers.


def test_relayed_octets_that_came_in_time(tmp_path: Path) -> None:
    with ExitStack() as opened:
        mta = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        to = f"proxy:127.0.0.1:{mta.getsockname()[1]}"
        core = Core(tmp_path, opened, to=to, more=', relay_idle_limit = "1s"', known=True)
        client = core.connect(core.port)
        core.run_until(lambda: core.screener.relayed == 1, "the relay")
        inside = core.keep(mta.accept()[0])
        client.sendall(b"NOOP\r\n")
        time.sleep(1.2)
        core.screener.run()
        assert core.screener.relayed == 1
        inside.settimeout(5.0)
        assert inside.recv(1000).endswith(b"NOOP\r\n")


def test_what_an_mta_said_to_rcpt_in_time(tmp_path: Path) -> None:
    settings = 'greet = {wait = "1s", action = "enforce", banner = ""}\ndeep = {pipelining = "enforce"}\n'
    with ExitStack() as opened:
        mta = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        more = f', continue_to = ["proxy:127.0.0.1:{mta.getsockname()[1]}"], continue_time_limit = "4s"'
        core = Core(tmp_path, opened, settings, more=more)
        client = core.connect(core.port)
        for command in (b"EHLO me.example", b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@here.test>"):
            received(core, client, b"\n")
            client.sendall(command + b"\r\n")
        core.run_until(lambda: core.screener.relays == 1, "the MTA to be connected to")
        inside = core.keep(mta.accept()[0])
        for command, reply in (
            (b"", b"220 mta ESMTP\r\n"),
            (b"EHLO", ProxyMta.OFFER),
            (b"MAIL", b"250 2.1.0 Ok\r\n"),
            (b"RCPT", b"250 2.1.5 Ok\r\n"),
        ):
            received(core, inside, command)
            inside.sendall(reply)
        time.sleep(4.2)
        core.screener.run()
        assert received(core, client, b"\n") == b"250 2.1.5 Ok\r\n"


def received(core: Core, end: socket.socket, text: bytes) -> bytes:
    """What has come at this end, once the text is in it."""
    got = b""

    def came() -> bool:
        nonlocal got
        if select.select([end], [], [], 0)[0]:
            got += end.recv(65536)
        return bool(got) and text in got

    core.run_until(came, f"{text!r}")
    return got


def test_full_socket_that_has_room_again(start: Start, mta: FakeMta) -> None:
    """Clients wait for it for 10 s. The MTA came back while the worker stood still."""
    screener = start(KNOWN)
    fill(mta)
    with screener.connect("127.7.0.1") as client:
        screener.line("ALLOWLISTED")
        with stopped(screener, 10.2):
            mta.accept()
        assert client.read() == FROM_MTA


def test_handshake_that_began_in_time(start: Start, folder: Path) -> None:
    settings = {"level": "may", "certificates": certificates(folder), "handshake_time": "3s"}
    screener = start(DEEP, AT_ONCE, {"tls": settings})
    with screener.connect() as client:
        assert client.read() == GREETING
        begin(client)
        screener.line(rf"tlsproxy.*: CONNECT from {client.pattern}")
        hello = threading.Thread(target=secure, args=(client,))
        with stopped(screener, 3.2, "fastscreen-tls"):
            hello.start()
        hello.join()
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert not screener.lines("handshake failed")
