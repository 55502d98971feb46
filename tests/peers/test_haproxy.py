"""HAProxy's health checks of a fastscreen behind it, with the lines of docs/proxy.md."""

import csv
import io
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from robust.conftest import Start, dns, folder, mta, start
from robust.harness import Screener, wait_until
from robust.proxymta import Connection, ProxyMta

from peers import needs, pages, processes

__all__ = ["dns", "folder", "mta", "start"]

PAGE = "proxy.md"
PLAIN = "server mx1 10.0.0.1:10025 send-proxy-v2 check\n"
SMTPCHK = pages.block(PAGE, "option smtpchk ")
TCP_CHECK = pages.block(PAGE, "option tcp-check\n")
GREET = {"greet": {"wait": "2s", "action": "enforce"}}


def behind() -> dict[str, Any]:
    return {"listen": {"addresses": [], "proxy": [{"addresses": ["127.60.0.1:0"], "trusted": ["127.0.0.0/8"]}]}}


def answering(connection: Connection, _: int) -> None:
    """An MTA, for a check that is handed to it."""
    connection.send(b"220 mta ESMTP\r\n")
    while (line := connection.line()) != b"QUIT":
        connection.send(b"250 ok to " + line + b"\r\n")
    connection.send(b"221 bye\r\n")


@contextmanager
def balancer(folder: Path, screener: Screener, lines: str) -> Iterator[Path]:
    """A running HAProxy with these lines in its `listen` section; its socket."""
    needs.program("haproxy")
    own = folder / "haproxy"
    own.mkdir()
    path = own / "stats"
    lines = lines.rstrip().replace("10.0.0.1:10025", "{}:{}".format(*screener.address)) + " inter 200ms"
    (own / "haproxy.cfg").write_text(
        f"global\n    stats socket {path}\n"
        "defaults\n    timeout connect 5s\n    timeout client 9s\n    timeout server 9s\n    timeout check 5s\n"
        f"listen smtp\n    mode tcp\n    bind unix@{own}/clients\n" + textwrap.indent(lines, "    ") + "\n"
    )
    process = processes.start([needs.program("haproxy"), "-f", str(own / "haproxy.cfg"), "-db"], own / "output")
    try:
        yield path
    finally:
        processes.stop(process)


def status(path: Path) -> tuple[str, str]:
    """The server's state, and what its last check was."""
    with socket.socket(socket.AF_UNIX) as control:
        try:
            control.connect(str(path))
        except OSError:
            return "", ""
        control.sendall(b"show stat\n")
        text = b""
        while got := control.recv(65536):
            text += got
    (found,) = (row for row in csv.DictReader(io.StringIO(text.decode().removeprefix("# "))) if row["svname"] == "mx1")
    return found["status"], f"{found['check_status']} {found['last_chk']}"


@pytest.mark.parametrize(
    ("lines", "state", "told"),
    [
        (PLAIN, "UP", "L4OK"),
        (TCP_CHECK, "UP", "L7OK"),
        (SMTPCHK, "DOWN", "L7RSP 220-"),
    ],
)
def test_checks(start: Start, folder: Path, lines: str, state: str, told: str) -> None:
    """By TCP and by the first line of the greeting it is up; smtpchk does not read the teaser. None leaves a line."""
    screener = start(behind(), GREET)
    with balancer(folder, screener, lines) as path:
        wait_until(lambda: status(path)[0] == state and told in status(path)[1], lambda: f"{state}: {status(path)}")
    if state == "UP":
        assert screener.lines("CONNECT") == []


def test_smtpchk_of_the_mta(start: Start, folder: Path) -> None:
    """A balancer that is permitted gets the MTA's greeting, and so sees an MTA that is gone."""
    permitted = {"access": {"mynetworks": ["127.0.0.0/8"]}}
    with ProxyMta(answering) as answers:
        screener = start(behind(), GREET, permitted, {"handoff": {"to": [answers.target]}})
        with balancer(folder, screener, SMTPCHK) as path:
            wait_until(lambda: "L7OK" in status(path)[1] and status(path)[0] == "UP", lambda: f"UP: {status(path)}")
            answers.stop()
            wait_until(lambda: status(path)[0] == "DOWN", lambda: f"DOWN: {status(path)}")
