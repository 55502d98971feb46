"""Real mail servers and clients at the weights of docs/score.md: none is rejected, with a host name as it should be and
with or without TLS; and the history tells their programs apart."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scorepage import suggested

from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.filter import query
from fastscreen.history.session import Session
from peers import certificate, needs, postfix, processes, profiles, screener
from peers.namespace import Namespace
from peers.opensmtpd import OpenSmtpdSender
from peers.screener import Screener
from peers.senders import EximSender, PostfixSender

PORT = 2497
NAME = "mail.provider-host.se"
TO = f"inbox@{postfix.MAIL_DOMAIN}"
PROGRAMS = ("postfix", "exim", "opensmtpd", "swaks", "curl", "smtplib")
SOURCES = {"swaks": "127.21.0.1", "curl": "127.21.0.2", "smtplib": "127.21.0.3"}
TLS = range(4, 8)  # cases of Postfix and Exim
_SMTPLIB = """
import smtplib, ssl, sys
server, port, source, name, to, tls = sys.argv[1:]
with smtplib.SMTP(server, int(port), name, source_address=(source, 0)) as smtp:
    smtp.ehlo()
    if tls == "True":
        smtp.starttls(context=ssl._create_unverified_context())
        smtp.ehlo()
    smtp.mail("a@" + name)
    smtp.rcpt(to)
"""


class Front:
    """A screener with the weights and the threshold of the page, which rejects, offers TLS, and keeps a history."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = folder
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            key, chain = certificate.make(folder)
            (folder / "chain.pem").write_text(key.read_text() + chain.read_text())
            self.history = folder / "screener" / "history"
            page = suggested(memory=False)
            settings: profiles.Settings = {
                "greet": {"wait": "1s", "action": "enforce"},
                "score": page["score"] | {"action": "enforce"},
                "dnsbl": {"threshold": page["dnsbl"]["threshold"]},
                "tls": {"level": "may", "certificates": [str(folder / "chain.pem")]},
                "history": {"path": str(self.history)},
            }
            self.screener = Screener(self.namespace, folder / "screener", "score", PORT, settings, folder / "mta", 1)
            self._stack.callback(self.screener.close)
            self.screener.ready()
            self.senders: dict[str, PostfixSender | EximSender] = {}
            for make in (PostfixSender, EximSender):
                where = folder / f"sender-{make.name}"
                sender = make(self.namespace, where, screener.address(1), PORT, NAME, tls=TLS)
                self._stack.callback(sender.close)
                self.senders[make.name] = sender
            self.told: dict[tuple[str, bool], tuple[list[str], Session]] = {}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def talk(self, program: str, tls: bool) -> tuple[list[str], Session]:
        """Let this program send a message; return the log's lines about it and its session in the history."""
        if (program, tls) not in self.told:
            source = self._send(program, tls)
            self.told[program, tls] = self.lines(source), self.session(source)
        return self.told[program, tls]

    def _send(self, program: str, tls: bool) -> str:
        """Return the address that it sends from."""
        if program in self.senders:
            made = self.senders[program]
            case = TLS[0] if tls else 0
            found = made.send(case, [TO])
            assert {status for status, _ in found.values()} == {"deferred"}
            return made.source(case)
        if program == "opensmtpd":
            where = self.folder / f"smtpd-{tls}"
            sender = OpenSmtpdSender(self.namespace, where, screener.address(1), PORT, NAME, tls=tls)
            try:
                sender.send(f"a@{NAME}", TO)
                self.session(sender.source)
            finally:
                sender.close()
            return sender.source
        return self.client(program, tls)

    def client(self, program: str, tls: bool, name: str = NAME, source: str = "") -> str:
        """The same for those without a queue."""
        server = screener.address(1)
        source = source or SOURCES[program].replace("127.21.0.", f"127.21.{int(tls)}.")
        if program == "swaks":
            command = [needs.program("swaks"), "--server", server, "--port", str(PORT), "--local-interface", source]
            command += ["--helo", name, "--from", f"a@{name}", "--to", TO, *(["--tls"] if tls else [])]
        elif program == "curl":
            command = [needs.program("curl"), "-sS", f"smtp://{server}:{PORT}/{name}", "--interface", source]
            command += ["--mail-from", f"a@{name}", "--mail-rcpt", TO, "-T", str(self.screener.config)]
            command += ["--ssl-reqd", "--insecure"] if tls else []
        else:
            command = [sys.executable, "-c", _SMTPLIB, server, str(PORT), source, name, TO, str(tls)]
        subprocess.run([*self.namespace.inside, *command], capture_output=True, timeout=60)
        return source

    def lines(self, source: str) -> list[str]:
        """About a client, once it received a 450 or 550."""

        def told() -> bool:
            return any(f"reject: RCPT from [{source}]" in line for line in self._log())

        processes.wait_until(told, f"the recipient of {source}", 60)
        return [line for line in self._log() if f"[{source}]" in line]

    def _log(self) -> list[str]:
        return self.screener.log.read_text().splitlines()

    def session(self, source: str) -> Session:
        """The one session of a client in the history."""
        found: list[Session] = []

        def recorded() -> bool:
            with contextlib.suppress(ArchiveError):
                found[:] = [
                    session
                    for session in Archive(self.history).sessions(query("", time.time()))
                    if session.address == source
                ]
            return bool(found)

        processes.wait_until(recorded, f"the session of {source} in the history", 60)
        return found[0]


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


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_nobody_is_rejected(front: Front, program: str, tls: bool) -> None:
    lines, session = front.talk(program, tls)
    told = "450 4.3.2 Service currently unavailable; from=<"
    assert any(told in line and f"helo=<{NAME}>" in line for line in lines), lines
    scored = [line.split("]:", 2)[2] for line in lines if "SCORE" in line]
    assert [line.partition(": ")[2] for line in scored] == ([] if tls else ["no_tls +1: MAIL without TLS"])
    assert session.outcome == "deferred"
    assert "passed" in session.marks
    assert session.evidence == (() if tls else ("no_tls",))
    assert session.tls == ("1.3" if tls else "unused")


@pytest.mark.parametrize("tls", [False, True])
def test_programs_are_told_apart(front: Front, tls: bool) -> None:
    """Exim and curl say the same; but Exim uses TCP Fast Open."""
    found = {program: front.talk(program, tls)[1] for program in PROGRAMS}
    spoken = {program: session.dialect.rpartition(" ")[0] for program, session in found.items()}
    options = {program: session.syn.rpartition(" ")[2] for program, session in found.items()}
    middle = " starttls" if tls else ""
    assert spoken == {
        "postfix": f"EHLO upper size{middle} rset quit",
        "exim": f"EHLO upper size{middle} quit",
        "opensmtpd": f"EHLO upper{middle} rset quit",
        "swaks": f"EHLO upper{middle} quit",
        "curl": f"EHLO upper size{middle} quit",
        "smtplib": f"EHLO mixed{middle} quit",
    }
    assert {program for program, names in options.items() if "tfo" in names} == {"exim"}
    assert all(re.match(r"ttl 64 df win [0-9]+ mss [0-9]+ ws [0-9]+ mss,", session.syn) for session in found.values())


def test_a_bad_name_would_be_seen(front: Front) -> None:
    source = front.client("smtplib", True, postfix.HOSTNAME, "127.21.2.9")
    lines = front.lines(source)
    assert any(f": helo_ours +3: {postfix.HOSTNAME}" in line for line in lines), lines
    assert any("550 5.7.1 Service unavailable; client" in line for line in lines), lines
    assert front.session(source).outcome == "rejected"
