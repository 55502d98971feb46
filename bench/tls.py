"""Clients under test in TLS: CPU per handshake, compared with postscreen and tlsproxy, and per relayed MB."""

import contextlib
import subprocess
import time
from functools import partial
from pathlib import Path

from bench import clients, compared, mta, tlsclients
from bench.compared import Result, Sample
from bench.fastscreen import Fastscreen
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import FASTSCREEN, PLAINTEXT, TLS, Tls
from bench.screener import Screener, Settings

_WARM_CLIENTS = 50
_POSTSCREEN = "postscreen"


def run(row: Tls, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one row: both screeners' handshakes; or fastscreen's relay with TLS and without."""
    result = Result(row)
    try:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(mta.running(programs["mta"])) if row.size else 0
            files = certificate(folder / f"{row.name}-certificate")
            settings = Settings(greet_test=False, deep=True, tls=files, continue_to=port)
            servers: dict[str, Screener] = {
                TLS if row.size else FASTSCREEN: Fastscreen(folder / f"{row.name}-fastscreen", settings)
            }
            if row.size:
                servers[PLAINTEXT] = Fastscreen(folder / f"{row.name}-plaintext", settings)
            else:
                servers[_POSTSCREEN] = Postscreen(folder / f"{row.name}-postscreen", settings)
            for name, server in servers.items():
                stack.enter_context(compared.ready(server))
                stack.enter_context(clients.receiver(programs["receiver"], server.mta_socket))
                _load(row, name, server, min(_WARM_CLIENTS, row.clients))
            time.sleep(compared.SETTLE_SECONDS)
            sides = {name: partial(_sample, row, name, server) for name, server in servers.items()}
            compared.take(result, rounds, sides)
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def _load(row: Tls, name: str, server: Screener, count: int) -> float:
    group = clients.new(server, "", count, row.concurrent, 0)
    return tlsclients.load(server, group.first, count, row.concurrent, row.size, secure=name != PLAINTEXT)


def _sample(row: Tls, name: str, server: Screener) -> Sample:
    units = row.clients * row.size / 1e6 if row.size else row.clients
    return compared.counted(server, lambda: _load(row, name, server, row.clients), row.clients, units)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A P-256 key and a self-signed certificate, readable for every user."""
    folder.mkdir()
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=mx.example.test", "-days", "30", "-keyout", str(key), "-out", str(chain)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise BenchError("cannot create a certificate: install Debian's package openssl") from None
    key.chmod(0o644)
    return key, chain
