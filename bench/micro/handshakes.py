"""What a TLS handshake costs a TLS process, by kind of key: `python -m bench.micro.handshakes`.

One TLS process as the daemon has it, given real connections one after the other; each client makes its handshake,
says NOOP, hears an answer and leaves. Counted is the CPU time of the TLS process alone, in the quietest of some rounds.
"""

import os
import select
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.figures import Figure
from fastscreen.config import Config, LogFile, default
from fastscreen.process import conditions, ipc
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Ready
from fastscreen.process.log_output import LogTarget
from fastscreen.tls import certificates
from fastscreen.tls.process import TlsArgs, TlsProcess

HANDSHAKES = 100  # a round
ROUNDS = 10
KEYS = {"P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "RSA 2048": ["rsa:2048"]}
VERSIONS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2}


@dataclass(frozen=True)
class Cost:
    """cpu: s per handshake. memory: bytes per open session."""

    cpu: float
    memory: float


def figures(folder: Path, handshakes: int = HANDSHAKES) -> list[Figure]:
    """Measure each kind of key with each version, new sessions and (P-256) resumed ones."""
    made = []
    for key, how in KEYS.items():
        paths = _certificate(folder, key.replace(" ", "-"), how)
        for version, number in VERSIONS.items():
            for resumed in (False, True) if key == "P-256" else (False,):
                cost = _measured(folder, paths, number, resumed, handshakes)
                name = f"tls-{key}-{version}{'-resumed' if resumed else ''}".lower().replace(" ", "-")
                title = f"TLS: one handshake, {key}, {version}{', resumed' if resumed else ''}"
                detail = f"{1 / cost.cpu:,.0f} per second and core; an open session takes {cost.memory / 1000:.0f} kB"
                made.append(Figure(name, title, cost.cpu * 1e6, "µs", "", None, detail))
    return made


def _certificate(folder: Path, name: str, how: list[str]) -> list[str]:
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    files = ["-keyout", str(key), "-out", str(chain), "-subj", "/CN=mx.example.test"]
    subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", *how, *files], check=True, capture_output=True)
    return [str(key), str(chain)]


def _measured(folder: Path, paths: list[str], version: ssl.TLSVersion, resumed: bool, handshakes: int) -> Cost:
    config = default()
    log = replace(config.log, to=LogFile(str(folder / "log")), ident="postfix/postscreen")
    config = replace(config, log=log, tls=replace(config.tls, level="may", certificates=tuple(paths)))
    clients, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, orders = ipc.pair()
    pid = os.fork()
    if not pid:
        ours.close()
        clients.close()
        _serve(config, orders, theirs)
    with clients, ours:
        orders.close()
        theirs.close()
        try:
            if not select.select([ours], [], [], 20.0)[0] or not isinstance(ipc.receive_report(ours), Ready):
                raise OSError("the TLS process does not start")
            return _load(pid, clients, version, resumed, handshakes)
        finally:
            ours.close()  # this ends it
            os.waitpid(pid, 0)


def _serve(config: Config, orders: socket.socket, clients: socket.socket) -> None:
    code = 1
    try:
        found = certificates.read(config.tls.certificates)
        args = TlsArgs(
            0,
            orders,
            clients,
            memoryview(bytearray(1)),
            found,
            memoryview(bytearray(1)),
            Conditions(memoryview(bytearray(conditions.SIZE))),
        )
        code = TlsProcess(config, LogTarget(config), args).run()
    finally:
        os._exit(code)


def _load(pid: int, clients: socket.socket, version: ssl.TLSVersion, resumed: bool, handshakes: int) -> Cost:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    session: Any = None
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def connection() -> tuple[ssl.SSLSocket, socket.socket]:
            client = socket.create_connection(listener.getsockname())
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server, _ = listener.accept()
            screener, plain = socket.socketpair()
            with server, plain:
                socket.send_fds(clients, [b"[127.0.0.1]:1"], [server.fileno(), plain.fileno()])
            secured = context.wrap_socket(client, session=session)
            secured.sendall(b"NOOP\r\n")
            screener.recv(100)
            screener.sendall(b"250 2.0.0 Ok\r\n")
            secured.recv(100)
            return secured, screener

        for at in range(20):  # so that nothing is done for the first time
            secured, screener = connection()
            session = secured.session if resumed else None
            assert not resumed or not at or secured.session_reused
            secured.close()
            screener.close()
        memory = _memory(pid, connection, 4 * handshakes)
        rounds = []
        for _ in range(ROUNDS):
            before = _cpu(pid)
            for _ in range(handshakes):
                secured, screener = connection()
                secured.close()
                screener.close()
            rounds.append((_cpu(pid) - before) / handshakes)
        return Cost(min(rounds), memory)


def _memory(pid: int, connection: Callable[[], tuple[ssl.SSLSocket, socket.socket]], count: int) -> float:
    """The memory that an open session takes."""
    staying = []
    before = _own(pid)
    for _ in range(count):
        staying.append(connection())
    held = _own(pid) - before
    for ends in staying:
        for end in ends:
            end.close()
    return held / count


def _cpu(pid: int) -> float:
    """s, as the scheduler counts it: in ns."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _own(pid: int) -> int:
    """Bytes that a process has written to; memory that it still shares with its parent is not included."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for figure in figures(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else HANDSHAKES):
            print(f"{figure.title:<48} {figure.value:7.0f} {figure.unit}   {figure.detail}")
