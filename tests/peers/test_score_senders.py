"""Real mail servers and clients, with a host name as it should be, show no evidence at the weights of docs/score.md."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import needs, postfix, processes, profiles, screener
from peers.namespace import Namespace
from peers.opensmtpd import OpenSmtpdSender
from peers.screener import Screener
from peers.senders import EximSender, PostfixSender

PORT = 2497
NAME = "mail.provider-host.se"
PAGE = Path(__file__).resolve().parents[2] / "docs/score.md"
TO = f"inbox@{postfix.MAIL_DOMAIN}"
_SMTPLIB = """
import smtplib, sys
server, port, source, name, to = sys.argv[1:]
with smtplib.SMTP(server, int(port), name, source_address=(source, 0)) as smtp:
    smtp.ehlo()
    smtp.mail("a@" + name)
    smtp.rcpt(to)
"""


def suggested() -> dict[str, Any]:
    """The configuration of the page."""
    block = re.search(r"```toml\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert block
    return tomllib.loads(block[1])


class Front:
    """A screener with the weights of the page, and a threshold that any of them reaches."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            settings: profiles.Settings = {
                "greet": {"wait": "1s", "action": "enforce"},
                "score": suggested()["score"],
                "dnsbl": {"threshold": 1, "action": "enforce"},
            }
            self.screener = Screener(self.namespace, folder / "screener", "score", PORT, settings, folder / "mta", 1)
            self._stack.callback(self.screener.close)
            self.screener.ready()
            self.senders: dict[str, PostfixSender | EximSender] = {}
            for make in (PostfixSender, EximSender):
                sender = make(self.namespace, folder / f"sender-{make.name}", screener.address(1), PORT, NAME)
                self._stack.callback(sender.close)
                self.senders[make.name] = sender
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def lines(self, source: str) -> list[str]:
        """About a client, once it received a 450 or 550."""

        def told() -> bool:
            return any(f"reject: RCPT from [{source}]" in line for line in self._log())

        processes.wait_until(told, f"the recipient of {source}", 60)
        return [line for line in self._log() if f"[{source}]" in line]

    def _log(self) -> list[str]:
        return self.screener.log.read_text().splitlines()


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    needs.root("private MTAs in a namespace")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-score-"))
    try:
        folder.chmod(0o755)
        peers = Front(folder)
        try:
            yield peers
        finally:
            peers.close()
    finally:
        shutil.rmtree(folder)


def greeted_as(lines: list[str], name: str) -> bool:
    return any("450 4.3.2 Service currently unavailable; from=<" in line and f"helo=<{name}>" in line for line in lines)


@pytest.mark.parametrize("sender", ["postfix", "exim"])
def test_mail_servers(front: Front, sender: str) -> None:
    made = front.senders[sender]
    found = made.send(0, [TO])
    assert {status for status, _ in found.values()} == {"deferred"}
    lines = front.lines(made.source(0))
    assert greeted_as(lines, NAME), lines
    assert not [line for line in lines if "SCORE" in line]


def test_opensmtpd(front: Front) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-opensmtpd-"))
    folder.chmod(0o755)
    try:
        sender = OpenSmtpdSender(front.namespace, folder / "smtpd", screener.address(1), PORT, NAME)
        try:
            sender.send(f"a@{NAME}", TO)
            lines = front.lines(sender.source)
        finally:
            sender.close()
    finally:
        shutil.rmtree(folder)
    assert greeted_as(lines, NAME), lines
    assert not [line for line in lines if "SCORE" in line]


@pytest.mark.parametrize("client", ["swaks", "curl", "smtplib"])
def test_clients(front: Front, client: str) -> None:
    server = screener.address(1)
    source = {"swaks": "127.21.0.1", "curl": "127.21.0.2", "smtplib": "127.21.0.3"}[client]
    if client == "swaks":
        command = [needs.program("swaks"), "--server", server, "--port", str(PORT), "--local-interface", source]
        command += ["--helo", NAME, "--from", f"a@{NAME}", "--to", TO]
    elif client == "curl":
        command = [needs.program("curl"), "-sS", f"smtp://{server}:{PORT}/{NAME}", "--interface", source]
        command += ["--mail-from", f"a@{NAME}", "--mail-rcpt", TO, "-T", str(front.screener.config)]
    else:
        command = [sys.executable, "-c", _SMTPLIB, server, str(PORT), source, NAME, TO]
    subprocess.run([*front.namespace.inside, *command], capture_output=True, timeout=60)
    lines = front.lines(source)
    assert greeted_as(lines, NAME), lines
    assert not [line for line in lines if "SCORE" in line]


def test_a_bad_name_would_be_seen(front: Front) -> None:
    source = "127.21.0.9"
    command = [sys.executable, "-c", _SMTPLIB, screener.address(1), str(PORT), source, "localhost", TO]
    subprocess.run([*front.namespace.inside, *command], capture_output=True, timeout=60)
    lines = front.lines(source)
    assert any(": helo_reserved +1: localhost" in line for line in lines), lines
    assert any("550 5.7.1 Service unavailable; client" in line for line in lines), lines
