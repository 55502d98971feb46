"""STARTTLS with a real daemon: a TLS process makes the handshake, and the session continues inside TLS."""

import contextlib
import os
import pwd
import random
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import certificate, needs

from robust import harness
from robust.conftest import Start
from robust.control import conditions
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import GREETING, TEASER, USER, Client, Screener, merge, wait_until
from robust.reachable import wrap
from robust.test_control import connected, eventually
from robust.tlsclient import begin, certificates, context, secure

DEEP = {"deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}}
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
AT_ONCE = {"greet": {"banner": ""}}


@pytest.fixture
def tls(folder: Path) -> dict[str, Any]:
    """Settings with a certificate that the user can read."""
    return merge(DEEP, AT_ONCE, {"tls": {"level": "may", "certificates": certificates(folder)}})


def greeted(screener: Screener, source: str = "127.1.0.1") -> Client:
    client = screener.connect(source)
    assert client.read() == GREETING
    return client


def secured(screener: Screener, source: str = "127.1.0.1", **settings: Any) -> Client:
    client = greeted(screener, source)
    begin(client)
    secure(client, **settings)
    return client


def shown(client: Client) -> bytes:
    """The certificate that a client in TLS was shown."""
    assert isinstance(client.socket, ssl.SSLSocket)
    return client.socket.getpeercert(binary_form=True) or b""


def processes(screener: Screener) -> dict[int, str]:
    """The daemon's processes by pid, as ps names them."""
    return {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in screener.workers()}


def tls_pids(screener: Screener) -> list[int]:
    return [pid for pid, name in processes(screener).items() if name == "fastscreen-tls"]


# ---- what it does


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_goes_on_in_tls(start: Start, tls: dict[str, Any], version: ssl.TLSVersion) -> None:
    """Behind the greet wait; both processes log under the names that Postfix's have."""
    screener = start(tls, {"greet": {"banner": "$banner"}, "tls": {"log_level": 1}})
    client = screener.connect()
    assert client.read() == TEASER + GREETING
    begin(client)
    wrapped = secure(client, minimum_version=version, maximum_version=version)
    name = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    assert wrapped.version() == name
    said = client.ask(b"EHLO me.example")
    assert said.startswith(b"250-mx.example.test\r\n")
    assert b"STARTTLS" not in said
    assert client.ask(b"STARTTLS") == b"554 5.5.1 Error: TLS already active\r\n"
    assert client.ask(b"MAIL FROM:<a@example.test>") == b"250 2.1.0 Ok\r\n"
    assert client.ask(b"RCPT TO:<b@example.test>") == b"450 4.3.2 Service currently unavailable\r\n"
    client.send(b"QUIT\r\n")
    assert client.read_all() == b"221 2.0.0 Bye\r\n"
    screener.line(rf"postfix/postscreen\[\d+\]: PASS NEW {client.pattern}")
    screener.line(rf"postfix/postscreen\[\d+\]: DISCONNECT {client.pattern}")
    screener.line(rf"postfix/tlsproxy\[\d+\]: CONNECT from {client.pattern}$")
    screener.line(rf"postfix/tlsproxy\[\d+\]: Anonymous TLS connection established from {client.pattern}: {name} with ")
    screener.line(rf"postfix/tlsproxy\[\d+\]: DISCONNECT {client.pattern}$")


def test_old_versions_and_foreign_ciphers(start: Start, tls: dict[str, Any]) -> None:
    screener = start(tls, {"tls": {"protocols": "<=TLSv1.2", "ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}})
    with secured(screener) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == "TLSv1.2"
        assert (client.socket.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with greeted(screener) as client:
        begin(client)
        with pytest.raises(ssl.SSLError):
            secure(client, minimum_version=ssl.TLSVersion.TLSv1_3)
        screener.line(f"TLS handshake failed for service=smtpd peer={client.pattern}$")


def test_no_client_certificate_is_asked_for(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """One that a client has all the same is not looked at."""
    key, chain = certificate.make(folder, "client")
    screener = start(tls)
    with greeted(screener) as client:
        begin(client)
        own = context()
        own.load_cert_chain(chain, key)
        client.socket = own.wrap_socket(client.socket)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_two_kinds_of_certificate(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """P-256 for who can, RSA for who cannot."""
    key, chain = certificate.make(folder, "rsa", "rsa")
    screener = start(tls, {"tls": {"certificates": [*tls["tls"]["certificates"], str(key), str(chain)]}})
    found = set()
    for ciphers in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"):
        with greeted(screener) as client:
            begin(client)
            old = context(maximum_version=ssl.TLSVersion.TLSv1_2)
            old.set_ciphers(ciphers)
            client.socket = old.wrap_socket(client.socket)
            found.add(shown(client))
    assert len(found) == 2


def test_sessions_are_resumed(start: Start, tls: dict[str, Any]) -> None:
    """There is a ticket, as Nagle clients want it."""
    screener = start(tls)
    again = context()
    with greeted(screener) as client:
        begin(client)
        first = again.wrap_socket(client.socket)
        client.socket = first
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        session = first.session
        assert session is not None and session.has_ticket
    with greeted(screener) as client:
        begin(client)
        second = again.wrap_socket(client.socket, session=session)
        client.socket = second
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        assert second.session_reused


def test_explain_and_status(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    path = folder / "run" / "control"
    screener = start(tls, {"tls": {"level": "encrypt"}, "control": {"path": str(path)}})
    with connected(path) as control:
        explained = control.ok("explain", address="127.1.0.9")
        assert explained["verdict"] == "reconnect"
        assert "STARTTLS is required" in explained["steps"][-2]["text"]
        with secured(screener) as client:
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
            assert eventually(control, "status", lambda answer: answer["workers"][0]["tls"] == 1)
            screener.reload(merge(screener.settings, {"tls": {"level": "may"}}))
            steps = control.ok("explain", address="127.1.0.9")["steps"]
            assert "STARTTLS" not in str(steps)
        assert eventually(control, "status", lambda answer: answer["workers"][0]["tls"] == 0)


# ---- real clients


def test_openssl(start: Start, tls: dict[str, Any]) -> None:
    """s_client; and a renegotiation is refused."""
    screener = start(tls)
    command = [needs.program("openssl"), "s_client", "-starttls", "smtp", "-connect", "{}:{}".format(*screener.address)]
    done = subprocess.run([*command, "-quiet", "-crlf"], input=b"NOOP\nQUIT\n", capture_output=True, timeout=20)
    assert done.stdout.endswith(b"250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n")
    done = subprocess.run([*command, "-tls1_2"], input=b"R\n", capture_output=True, timeout=20)
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stdout + done.stderr


def test_swaks(start: Start, tls: dict[str, Any]) -> None:
    screener = start(tls, {"tls": {"level": "encrypt"}})
    host, port = screener.address
    command = [needs.program("swaks"), "--server", host, "--port", str(port), "--from", "a@b.test", "--to", "c@d.test"]
    done = subprocess.run([*command, "--tls", "--quit-after", "RCPT"], capture_output=True, text=True, timeout=30)
    assert "=== TLS started with cipher TLSv1.3" in done.stdout
    assert "<~* 450 4.3.2 Service currently unavailable" in done.stdout
    done = subprocess.run([*command, "--quit-after", "RCPT"], capture_output=True, text=True, timeout=30)
    assert "<** 530 5.7.0 Must issue a STARTTLS command first" in done.stdout


def test_smtplib(start: Start, tls: dict[str, Any]) -> None:
    screener = start(tls)
    host, port = screener.address
    with smtplib.SMTP(host, port, "me.example", timeout=20) as client:
        client.starttls(context=context())
        assert client.ehlo()[0] == 250
        assert client.docmd("MAIL FROM:<a@b.test>")[0] == 250
        assert client.docmd("RCPT TO:<c@d.test>")[0] == 450


# ---- hostile ones


def test_garbage_for_a_handshake(start: Start, tls: dict[str, Any]) -> None:
    """Ended, logged, and nothing else happens."""
    screener = start(tls)
    random_ = random.Random(5)
    hello = _hello()
    names = []
    for number in range(30):
        with greeted(screener, f"127.1.1.{number + 1}") as client:
            begin(client)
            cut = random_.randrange(len(hello))
            client.send(hello[:cut] + random_.randbytes(random_.randrange(1, 3000)))
            client.half_close()
            client.read_all()
            names.append(client.pattern)
    for name in names:
        screener.line(f"TLS handshake failed for service=smtpd peer={name}$")
        screener.line(rf"tlsproxy\[\d+\]: DISCONNECT {name}$")
        screener.line(rf"postscreen\[\d+\]: DISCONNECT {name}$")
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert screener.lines("warning") == []


def _hello() -> bytes:
    """What a client's handshake begins with."""
    outgoing = ssl.MemoryBIO()
    tls = context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_does_not_like_the_certificate(
    start: Start, tls: dict[str, Any], version: ssl.TLSVersion
) -> None:
    """Its alert is why."""
    screener = start(tls, {"tls": {"log_level": 1}})
    with greeted(screener) as client:
        begin(client)
        with pytest.raises(ssl.SSLCertVerificationError):
            picky = context(minimum_version=version, maximum_version=version, verify_mode=ssl.CERT_REQUIRED)
            client.socket = picky.wrap_socket(client.socket)
        screener.line(rf"SSL_accept error from {client.pattern}: tlsv1 alert unknown ca$")
        screener.line(f"TLS handshake failed for service=smtpd peer={client.pattern}$")
        screener.line(rf"HANGUP after \S+ from {client.pattern} in tests after SMTP handshake$")


def test_silence_for_a_handshake(start: Start, tls: dict[str, Any]) -> None:
    """Neither who sends nothing nor who sends half of it stays longer than handshake_time."""
    screener = start(tls, {"tls": {"handshake_time": "1s", "handshakes": 1}})
    with greeted(screener, "127.1.0.1") as silent, greeted(screener, "127.1.0.2") as half:
        for client in (silent, half):
            begin(client)
        half.send(_hello()[:60])
        for client in (silent, half):
            assert client.read() == b""
            screener.line(f"TLS handshake failed for service=smtpd peer={client.pattern}$")
            screener.line(rf"HANGUP after \S+ from {client.pattern} in tests after SMTP handshake$")


def test_handshakes_octet_by_octet(start: Start, tls: dict[str, Any]) -> None:
    """As many as there are places, none of them silent for long: others do not wait for their end."""
    screener = start(tls, {"tls": {"handshakes": 3, "handshake_time": "1h"}})
    hello = _hello()
    slow = [greeted(screener, f"127.1.1.{number + 1}") for number in range(3)]
    for client in slow:
        begin(client)
    stop = threading.Event()
    sent = [0]

    def drip() -> None:
        while not stop.wait(0.05):
            for client in slow:
                client.send(hello[sent[0] : sent[0] + 1])
            sent[0] += 1

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        wait_until(lambda: sent[0] > 1, "handshakes that have begun")
        with secured(screener) as client:
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        assert sent[0] < len(hello)
    finally:
        stop.set()
        thread.join()
    for client in slow:
        client.send(hello[sent[0] :])
        assert client.socket.recv(1)  # of a ServerHello: a client that has lost its place continues
        client.socket.close()


def test_limit_of_sessions(start: Start, tls: dict[str, Any]) -> None:
    """Beyond it 454, and the session goes on in plaintext; who leaves makes room."""
    screener = start(tls, {"tls": {"sessions": 2}})
    first = secured(screener, "127.1.0.1")
    with secured(screener, "127.1.0.2"), greeted(screener, "127.1.0.3") as third:
        third.ask(b"EHLO me")
        assert third.ask(b"STARTTLS") == b"454 4.7.0 TLS not available due to local problem\r\n"
        assert third.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        screener.line("warning: STARTTLS: as many sessions as tls.sessions allows have TLS: answered 454$")
        first.socket.close()
        screener.line(f"DISCONNECT {first.pattern}", 2)
        begin(third)
        secure(third)
        assert third.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert len(screener.lines("warning")) == 1


def test_full_socket(start: Start, tls: dict[str, Any]) -> None:
    """TLS processes that take nobody any more: 454, and those in the socket are served when they do again."""
    screener = start(tls, KNOWN, {"limits": {"client_connection_count": 0}})
    (pid,) = tls_pids(screener)
    os.kill(pid, signal.SIGSTOP)
    clients: list[Client] = []
    try:
        while True:
            client = greeted(screener)
            client.ask(b"EHLO me")
            clients.append(client)
            if client.ask(b"STARTTLS").startswith(b"454"):
                break
            assert len(clients) < 900
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        screener.line("warning: STARTTLS: the TLS processes do not keep up: answered 454$")
        with screener.connect("127.7.0.1") as known:
            assert known.read() == FROM_MTA
    finally:
        os.kill(pid, signal.SIGCONT)
    for client in clients[:-1]:
        secure(client)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.socket.close()
    clients[-1].socket.close()


def test_flood_of_handshakes_beside_known_clients(start: Start, tls: dict[str, Any]) -> None:
    """Unfinished handshakes, and others at the maximum rate: clients without TLS are served during that time."""
    screener = start(tls, KNOWN, {"tls": {"handshakes": 5}, "limits": {"client_connection_count": 0}})
    stalled = []
    for _ in range(60):
        client = greeted(screener)
        begin(client)
        client.send(_hello()[:100])
        stalled.append(client)
    stop = threading.Event()
    made = [0, 0, 0]

    def flood(number: int) -> None:
        while not stop.is_set():
            with secured(screener, f"127.1.2.{number + 1}"):
                made[number] += 1

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(len(made))]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            with screener.connect(f"127.7.1.{number + 1}") as known:
                assert known.read() == FROM_MTA
            with greeted(screener, f"127.1.3.{number + 1}") as plain:
                assert plain.ask(b"EHLO me.example").startswith(b"250-")
                assert plain.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"
        wait_until(lambda: min(made) > 3, "handshakes among the stalled ones")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for client in stalled:
        client.socket.close()
    assert screener.lines("warning") == []


def test_last_word_of_a_dropped_client(start: Start, tls: dict[str, Any]) -> None:
    """Inside TLS, with more of the client's behind it that nobody reads."""
    screener = start(tls, {"deep": {"pipelining": "drop"}})
    with secured(screener) as client:
        client.send(b"NOOP\r\n" * 1000)
        assert client.read_all() == b"521 5.5.1 Protocol error\r\n"


class Raw:
    """TLS whose records the test puts on the wire itself."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context().wrap_bio(self.incoming, self.outgoing)

    def shake_hands(self) -> bytes:
        """All but the last flight, which is returned."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.client.send(self.outgoing.read())
                self.incoming.write(self.client.socket.recv(65536))
            else:
                return self.outgoing.read()

    def records(self, *lines: bytes) -> list[bytes]:
        made = []
        for line in lines:
            self.tls.write(line)
            made.append(self.outgoing.read())
        return made

    def line(self) -> bytes:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return self.tls.read(65536)
            self.incoming.write(self.client.socket.recv(65536))


def test_pipelining_is_found_across_records(start: Start, tls: dict[str, Any]) -> None:
    """Two commands that come together are that in two records, too; also behind the handshake's last word."""
    screener = start(tls, {"deep": {"pipelining": "drop"}})
    for together in (False, True):
        with greeted(screener) as client:
            begin(client)
            raw = Raw(client)
            last = raw.shake_hands()
            if not together:
                client.send(last)
                last = b""
            client.send(last + b"".join(raw.records(b"EHLO me\r\n", b"NOOP\r\n")))
            assert raw.line() == b"521 5.5.1 Protocol error\r\n"
            screener.line(rf"COMMAND PIPELINING from {client.pattern} after EHLO: NOOP")


def test_one_command_in_many_records(start: Start, tls: dict[str, Any]) -> None:
    """One byte per record, all at once, the first one right after the handshake: lines are still recognized."""
    screener = start(tls)
    with greeted(screener) as client:
        begin(client)
        raw = Raw(client)
        last = raw.shake_hands()
        client.send(last + b"".join(raw.records(*(bytes([octet]) for octet in b"NOOP\r\n"))))
        assert raw.line() == b"250 2.0.0 Ok\r\n"
    assert screener.lines("PIPELINING|BARE NEWLINE") == []


# ---- the TLS process and the keys


def test_killed(start: Start, tls: dict[str, Any]) -> None:
    """Who was in TLS, or on the way there, is cut off; all others notice nothing."""
    screener = start(tls)
    with (
        secured(screener, "127.1.0.1") as inside,
        greeted(screener, "127.1.0.2") as outside,
        greeted(screener, "127.1.0.3") as half,
    ):
        begin(half)
        half.send(_hello())
        assert half.socket.recv(1)
        (pid,) = tls_pids(screener)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            inside.socket.recv(100)
            raise ConnectionError
        half.read_all()
        for client in (inside, half):
            screener.line(rf"HANGUP after \S+ from {client.pattern}")
        screener.line(rf"warning: tls \(process {pid}\) was killed by SIGKILL: it is started again$")
        screener.line(r": tls is process \d+ now$")
        begin(outside)
        secure(outside)
        assert outside.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_missing(start: Start, tls: dict[str, Any]) -> None:
    """Without a TLS process, STARTTLS gets 454 and mail still works; later STARTTLS works again."""
    screener = start(tls)
    client = greeted(screener)
    client.ask(b"EHLO me")
    for _ in range(6):  # it is started at once, then after 1, 2, 4 s ...
        for pid in tls_pids(screener):
            os.kill(pid, signal.SIGKILL)
            screener.line(rf"warning: tls \(process {pid}\) was killed by SIGKILL")
        answer = client.ask(b"STARTTLS")
        if answer.startswith(b"454"):
            break
        client.socket.close()
        client = greeted(screener)
        client.ask(b"EHLO me")
    assert answer == b"454 4.7.0 TLS not available due to local problem\r\n"
    screener.line("warning: STARTTLS: no TLS process is ready: answered 454$")
    assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    wait_until(lambda: bool(tls_pids(screener)), "a TLS process")
    screener.line(rf": tls is process {tls_pids(screener)[0]} now$")
    begin(client)
    secure(client)
    client.socket.close()


def test_keys_are_where_they_are_used(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """Neither a worker nor the control server has them. As root, a key that only root may read is used."""
    needs.root("looks into other users' processes")
    key, chain = certificate.make(folder, "roots")
    screener = start(
        tls, {"tls": {"certificates": [str(key), str(chain)]}, "control": {"path": str(folder / "control")}}
    )
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    expected = ["fastscreen", "fastscreen-ctl", "fastscreen-keys", "fastscreen-tls"]
    wait_until(lambda: sorted(processes(screener).values()) == expected, "the control server")
    names = processes(screener)
    secret = key.read_bytes().splitlines()[1]
    for pid in (screener.pid, *names):
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        has = any("fastscreen certificates" in link for link in links)
        assert has == (pid == screener.pid or names[pid] == "fastscreen-tls"), names.get(pid)
        assert pid in tls_pids(screener) or secret not in memory(pid)
    # Another process of the same user, such as a worker that somebody broke into, does not get there.
    (reader,) = (pid for pid, name in names.items() if name == "fastscreen-keys")
    for pid in (screener.pid, reader, *tls_pids(screener)):
        look = subprocess.run(["ls", f"/proc/{pid}/fd"], user=USER, capture_output=True, text=True, check=False)
        assert "Permission denied" in look.stderr


def test_a_tls_process_has_no_sockets_of_workers(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """Nor of the control server: no listening socket, no inbox, no channel."""
    needs.root("looks into other users' processes")
    screener = start(tls, {"listen": {"workers": 2}, "control": {"path": str(folder / "control")}})
    wait_until(lambda: "fastscreen-ctl" in processes(screener).values(), "the control server")

    def sockets(pid: int) -> set[str]:
        links = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        return {link for link in links if link.startswith("socket:")}

    (own,) = tls_pids(screener)
    for pid, name in processes(screener).items():
        assert pid == own or not sockets(own) & sockets(pid), name


def memory(pid: int) -> bytes:
    """What a process can write to."""
    held = b""
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, mode, *_ = line.split()
            if mode.startswith("rw"):
                first, last = (int(part, 16) for part in where.split("-"))
                file.seek(first)
                held += file.read(last - first)
    return held


def test_renewed_at_sighup(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """New handshakes use the new certificate and existing sessions continue; a restarted process uses it as well."""
    screener = start(tls)
    with secured(screener, "127.1.0.1") as before:
        old = shown(before)
        certificates(folder)
        screener.reload()
        assert before.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        with secured(screener, "127.1.0.2") as after:
            new = shown(after)
    assert old != new
    os.kill(tls_pids(screener)[0], signal.SIGKILL)
    screener.line(r": tls is process \d+ now$")
    with secured(screener, "127.1.0.3") as client:
        assert shown(client) == new


@pytest.mark.parametrize("what", ["mismatch", "missing", "unreadable", "empty"])
def test_not_renewed_at_sighup(start: Start, folder: Path, tls: dict[str, Any], what: str) -> None:
    """One log line, and the old certificates stay in use, also after a restart of the process."""
    screener = start(tls)
    with secured(screener) as client:
        old = shown(client)
    _, chain = certificate.make(folder, "other")
    target = folder / "mx.pem"
    if what == "mismatch":
        why = f"{target}: private key and certificate do not belong together"
        if USER:
            shutil.chown(chain, USER)
        chain.replace(target)
    elif what == "missing":
        target.unlink()
        why = f"{target}: No such file or directory"
    elif what == "unreadable":
        needs.root("a file that only root may read")
        chain.chmod(0o600)
        target.unlink()
        target.symlink_to(chain)  # in the user's folder: nobody follows it with root's rights
        why = f"{target}: Permission denied"
    else:
        target.write_bytes(b"")
        why = f"{target}: neither a key nor a certificate; expected PEM"
    screener.reload()
    screener.line(rf"warning: \[tls\] not taken over: .*{why}: the previous settings stay in use$")
    assert len(screener.lines("warning")) == 1
    for number in range(2):
        with secured(screener) as client:
            assert shown(client) == old
        if not number:
            os.kill(tls_pids(screener)[0], signal.SIGKILL)
            screener.line(r": tls is process \d+ now$")


def test_rotation_is_silent_about_roots_keys(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """SIGHUP comes every night. Other settings are taken over with the certificates that are in use."""
    needs.root("a file that only root may read")
    files = [str(path) for path in certificate.make(folder, "roots")]
    screener = start(tls, {"tls": {"certificates": files}})
    with secured(screener) as client:
        old = shown(client)
    screener.reload(merge(screener.settings, {"tls": {"protocols": "<=TLSv1.2"}}))
    with secured(screener) as client:
        assert shown(client) == old
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == "TLSv1.2"
    assert screener.lines("warning") == []


@pytest.fixture
def roots() -> Iterator[Path]:
    """A folder that only root may look into, as certbot's."""
    needs.root("files that only root may read")
    made = Path(tempfile.mkdtemp(prefix="fastscreen-keys-"))
    yield made
    shutil.rmtree(made)


def reader_of(screener: Screener) -> int:
    (pid,) = (pid for pid, name in processes(screener).items() if name == "fastscreen-keys")
    return pid


def test_roots_keys_are_renewed_at_sighup(start: Start, folder: Path, tls: dict[str, Any], roots: Path) -> None:
    """As certbot leaves them: links into another folder of root's, which point to new files after a renewal. What goes
    wrong is shown until it is mended."""
    control = folder / "control"
    files = [roots / "privkey.pem", roots / "fullchain.pem"]

    def renewed(name: str, first: int = 0) -> None:
        made = certificate.make(roots, name)
        for file, target in list(zip(files, made, strict=True))[first:]:
            file.unlink(missing_ok=True)
            file.symlink_to(target.name)

    renewed("one")
    screener = start(tls, {"tls": {"certificates": [str(file) for file in files]}, "control": {"path": str(control)}})
    with secured(screener) as client:
        old = shown(client)
    renewed("two", 1)
    screener.reload()
    problem = screener.line(r"\[tls\] not taken over: .* do not belong together: the previous settings stay in use$")
    wait_until(lambda: conditions(control).get("certificates", "") in problem, "the condition")
    assert conditions(control)["certificates"]
    renewed("two")
    screener.reload()
    wait_until(lambda: conditions(control) == {}, "the end of the condition")
    with secured(screener) as client:
        new = shown(client)
        assert old != new
    os.kill(tls_pids(screener)[0], signal.SIGKILL)
    screener.line(r": tls is process \d+ now$")
    with secured(screener) as client:
        assert shown(client) == new
    assert len(screener.lines("warning")) == 2


def test_keys_that_cannot_be_read_for_now(start: Start, folder: Path, tls: dict[str, Any], roots: Path) -> None:
    """A FIFO or a folder instead of a key, none, or one that is much too long: nothing waits, nothing changes."""
    key, chain = certificate.make(roots, "mx")
    aside = key.rename(roots / "aside")
    key.symlink_to(aside)
    screener = start(tls, {"tls": {"certificates": [str(key), str(chain)]}})
    with secured(screener) as client:
        old = shown(client)
    for spoil, why in (
        (lambda: os.mkfifo(key), "not a file"),
        (key.mkdir, "not a file"),
        (lambda: None, "No such file or directory"),
        (lambda: key.write_bytes(bytes(1 << 21)), "larger than 1048576 bytes"),
    ):
        if key.is_dir():
            key.rmdir()
        key.unlink(missing_ok=True)
        spoil()
        screener.reload()
        assert screener.lines("warning")[-1].endswith(
            f"warning: [tls] not taken over: tls.certificates: {key}: {why}: the previous settings stay in use"
        )
    key.unlink()
    aside.rename(key)
    with secured(screener) as client:
        assert shown(client) == old
    screener.reload()
    assert len(screener.lines("warning")) == 4


def test_the_process_that_reads_roots_keys(
    start: Start, folder: Path, tls: dict[str, Any], roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the user, with one capability and one socket. It can be killed, and that is shown, after a restart too."""
    monkeypatch.setattr(harness, "COMMAND", wrap(harness.COMMAND, folder))  # the user can execute it
    control = folder / "control"
    files = [str(path) for path in certificate.make(roots, "mx")]
    screener = start(tls, {"tls": {"certificates": files}, "control": {"path": str(control)}})
    pid = reader_of(screener)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(pwd.getpwnam(USER).pw_uid)}
    assert 0 not in map(int, status["Groups"].split())
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16)) == (1 << 2, 1 << 2)
    assert status["NoNewPrivs"] == "1"
    open_files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert sum(link.startswith("socket:") for link in open_files) == 1
    assert {link for link in open_files if not link.startswith("socket:")} == {"/dev/null"}
    (own,) = sockets_of(pid)
    listed = subprocess.run([needs.program("ss"), "-xnH"], capture_output=True, text=True, check=True).stdout
    (other_end,) = re.findall(rf"\* {own} +\* (\d+)", listed)
    assert other_end in sockets_of(screener.pid)

    def alone() -> bool:
        """Nobody else can ask it, as soon as it has begun its own work."""
        return not any(other_end in sockets_of(other) for other in processes(screener))

    wait_until(lambda: "fastscreen-ctl" in processes(screener).values() and alone(), "the others to let go")
    new = [str(path) for path in certificate.make(roots, "new")]
    screener.reload(merge(screener.settings, {"tls": {"certificates": new}}))
    screener.line(
        rf"not taken over: tls.certificates: {new[0]}: only root may read it, and it was not named at the start"
    )
    os.kill(pid, signal.SIGKILL)
    said = "warning: tls.certificates: the process that reads root's keys was killed by SIGKILL: "
    screener.line(said + rf"to renew {files[0]}, stop and start fastscreen \(fastscreen restart is not enough\)")
    wait_until(lambda: "killed" in conditions(control).get("certificates", ""), "the condition")
    screener.reload(merge(screener.settings, {"tls": {"certificates": files}}))
    screener.signal(signal.SIGUSR2)
    screener.line(" daemon restarted -- ")
    screener.line(r"warning: tls.certificates: .*stay in use; to renew them, stop and start fastscreen$")
    screener.line(r": tls is process \d+ now$")
    wait_until(lambda: "stop and start" in conditions(control).get("certificates", ""), "the condition, again")
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("missing", ["-dac_read_search", "-dac_read_search,-dac_override"])
def test_root_without_the_capability_to_read(
    start: Start, folder: Path, tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Containers: the next one does; without both, root's own files can be read by root that can do nothing else."""
    needs.root("files that only root may read")
    with tempfile.TemporaryDirectory(prefix="fastscreen-keys-") as roots:
        key, chain = certificate.make(Path(roots), "mx")
        program = folder / "less"
        setpriv = needs.program("setpriv")
        program.write_text(f'#!/bin/sh\nexec {setpriv} --bounding-set {missing} {harness.COMMAND} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(harness, "COMMAND", program)
        screener = start(tls, {"tls": {"certificates": [str(key), str(chain)]}})
        status = Path(f"/proc/{reader_of(screener)}/status").read_text()
        kept = 0 if "override" in missing else 1 << 1
        assert re.findall(r"Cap(?:Prm|Eff):\t(\w+)", status) == [f"{kept:016x}"] * 2
        with secured(screener) as client:
            old = shown(client)
        certificate.make(Path(roots), "mx")
        screener.reload()
        with secured(screener) as client:
            assert shown(client) != old
        assert screener.lines("warning") == []


def sockets_of(pid: int) -> set[str]:
    """Their inodes."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:")}


def test_settings_that_openssl_does_not_know_at_sighup(start: Start, tls: dict[str, Any]) -> None:
    """The certificates in use stay, also after a restart of the process."""
    screener = start(tls)
    screener.reload(merge(screener.settings, {"tls": {"ciphers": "NONSENSE"}}))
    screener.line(r"\[tls\] not taken over: tls.ciphers: OpenSSL knows no cipher in 'NONSENSE': the previous settings")
    os.kill(tls_pids(screener)[0], signal.SIGKILL)
    screener.line(r": tls is process \d+ now$")
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_turned_on_at_sighup_with_keys_that_cannot_be_read(start: Start, folder: Path, tls: dict[str, Any]) -> None:
    """There never were others: 454, and the log says why."""
    needs.root("a file that only root may read")
    files = [str(path) for path in certificate.make(folder, "roots")]
    screener = start(tls, {"tls": {"level": "none", "certificates": []}})
    screener.reload(merge(screener.settings, {"tls": {"level": "may", "certificates": files}}))
    screener.line(rf"\[tls\] not taken over: tls.certificates: {files[0]}: Permission denied: TLS is disabled$")
    with greeted(screener) as client:
        client.ask(b"EHLO me")
        assert client.ask(b"STARTTLS") == b"454 4.7.0 TLS not available due to local problem\r\n"


@pytest.mark.parametrize("when", ["turned on", "dead"])
def test_certificates_that_fit_not_with_no_process_there(
    start: Start, folder: Path, tls: dict[str, Any], when: str
) -> None:
    """They are rejected as with a TLS process: the next one uses the old certificates, or TLS stays disabled."""
    _, other = certificates(folder, "other")
    key, chain = tls["tls"]["certificates"]
    wrong = {"level": "may", "certificates": [key, other]}
    if when == "turned on":
        screener = start(tls, {"tls": {"level": "none", "certificates": []}})
        rest = "TLS is disabled"
    else:
        screener = start(tls)
        for number in range(4):  # the next one comes after 4 s
            wait_until(lambda: bool(tls_pids(screener)), "a TLS process")
            if number:
                screener.line(r": tls is process \d+ now$", number)
            os.kill(tls_pids(screener)[0], signal.SIGKILL)
            screener.line(r"warning: tls \(process \d+\) was killed by SIGKILL", number + 1)
        rest = "the previous settings stay in use"
    screener.reload(merge(screener.settings, {"tls": wrong}))
    screener.line(
        rf"warning: \[tls\] not taken over: tls.certificates: {key} and {other}: private key and certificate do not "
        rf"belong together: {rest}$"
    )
    if when == "dead":
        screener.line(r": tls is process \d+ now$", 4)
        with secured(screener) as client:
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert len([line for line in screener.lines("warning") if "killed by SIGKILL" not in line]) == 1
    screener.reload(merge(screener.settings, {"tls": {"level": "may", "certificates": [key, chain]}}))
    screener.line(r": tls is process \d+ now$")
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_more_clients_than_descriptors(start: Start, tls: dict[str, Any]) -> None:
    """Those beyond wait for their turn: nobody is let go."""
    screener = start(tls, {"limits": {"pre_queue": 140, "post_queue": 5}}, descriptors=250)
    clients = [greeted(screener, f"127.1.4.{number + 1}") for number in range(120)]
    for client in clients:
        begin(client)
    for client in clients[:40]:
        secure(client)
        client.socket.close()
    for client in clients[40:]:
        secure(client)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.socket.close()
    assert screener.lines("warning") == []


def test_turned_on_and_off_at_sighup(start: Start, tls: dict[str, Any]) -> None:
    """Sessions in TLS go on when it is turned off."""
    screener = start(tls, {"tls": {"level": "none"}})
    assert tls_pids(screener) == []
    with greeted(screener) as client:
        assert b"STARTTLS" not in client.ask(b"EHLO me")
        assert client.ask(b"STARTTLS") == b"502 5.5.1 Error: command not implemented\r\n"
    screener.reload(merge(screener.settings, {"tls": {"level": "may"}}))
    screener.line(r": tls is process \d+ now$")
    with secured(screener, "127.1.0.1") as inside:
        screener.reload(merge(screener.settings, {"tls": {"level": "none"}}))
        with greeted(screener, "127.1.0.2") as client:
            assert b"STARTTLS" not in client.ask(b"EHLO me")
        assert inside.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    screener.reload(merge(screener.settings, {"tls": {"level": "encrypt"}}))
    with secured(screener, "127.1.0.3") as client:
        assert client.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"


@pytest.mark.parametrize(
    ("own", "what"),
    [
        ({"certificates": []}, "tls.certificates: the list is empty, but tls.level is may"),
        ({"certificates": ["/nonexistent/mx.pem"]}, "tls.certificates: /nonexistent/mx.pem: No such file"),
        ({"ciphers": "NONSENSE"}, "tls.ciphers: OpenSSL knows no cipher in 'NONSENSE'"),
        (
            {"certificates": ["{folder}/mx.pem"]},
            "tls.certificates: {folder}/mx.pem: missing private key; expected a key",
        ),
    ],
)
def test_start_that_fails(folder: Path, tls: dict[str, Any], own: dict[str, Any], what: str) -> None:
    if "certificates" in own:
        own = {"certificates": [path.replace("{folder}", str(folder)) for path in own["certificates"]]}
    screener = Screener(folder, merge(tls, {"tls": own}))
    with pytest.raises(AssertionError, match="fastscreen ended") as caught:
        screener.start()
    said = str(caught.value).partition(": ")[2]
    assert what.replace("{folder}", str(folder)) in said
    assert said.startswith("fastscreen: ")
    assert said.count("\n") == 1
    assert screener.wait() in (1, 2)


@pytest.mark.parametrize(("days", "word"), [(2, "expires"), (-1, "expired")])
def test_end_of_a_certificate_is_told(start: Start, folder: Path, tls: dict[str, Any], days: int, word: str) -> None:
    """Mail clients hardly look at it: TLS goes on with one that has expired."""
    key, chain = certificate.make(folder, "soon", days=days)
    screener = start(tls, {"tls": {"certificates": [str(key), str(chain)]}})
    screener.line(
        rf"postfix/tlsproxy\[\d+\]: warning: tls.certificates: {key} and {chain}: {word} on 20\d\d-\d\d-\d\d$"
    )
    with secured(screener) as client:
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"


# ---- several processes, and the end


def test_several_processes_and_workers(start: Start, tls: dict[str, Any]) -> None:
    """One of two TLS processes stands still: the other serves all."""
    screener = start(tls, {"tls": {"processes": 2}, "listen": {"workers": 2}})
    assert len(tls_pids(screener)) == 2
    stopped = tls_pids(screener)[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        for number in range(20):
            with secured(screener, f"127.1.3.{number + 1}") as client:
                assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    finally:
        os.kill(stopped, signal.SIGCONT)


@pytest.mark.usefixtures("impatient")
def test_a_tls_process_that_hangs_is_replaced(start: Start, tls: dict[str, Any]) -> None:
    """Who was on the way to it is served by its successor."""
    screener = start(tls)
    screener.may_lose_workers = True
    (pid,) = tls_pids(screener)
    os.kill(pid, signal.SIGSTOP)
    with greeted(screener) as client:
        begin(client)
        screener.line(rf"warning: tls \(process {pid}\) hangs: killed$")
        secure(client)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert pid not in tls_pids(screener)


def test_client_in_tls_may_finish(start: Start, tls: dict[str, Any]) -> None:
    """SIGTERM: the TLS process stays until the last client's last word."""
    screener = start(tls)
    with secured(screener) as client:
        screener.signal(signal.SIGTERM)
        screener.line(": stopping: clients in hand may finish$")
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.send(b"QUIT\r\n")
        assert client.read_all() == b"221 2.0.0 Bye\r\n"
    assert screener.wait() == 0
    assert [line for line in screener.lines(f"DISCONNECT {client.pattern}") if "tlsproxy" in line]
