"""`handoff.doubtful_to`, a second and stricter smtpd of a real Postfix, gets doubtful new clients and nobody else."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers import certificate, nameserver, needs, postfix, processes, profiles, screener
from peers.nameserver import NameServer
from peers.namespace import Namespace
from peers.postfix import Postfix
from peers.rbldnsd import Rbldnsd
from peers.screener import Screener
from peers.senders import PostfixSender

PASSING, CONTINUING = 2494, 2495  # ports of the screeners
TO = f"inbox@{postfix.MAIL_DOMAIN}"
USUAL, STRICT, PROXIED = postfix.smtpd_of_ours(1), "strict", "postfix"  # names of the smtpds in the log
STRICT_PORT = "127.0.0.1:10026"
ANSWER = "450 4.7.1 <inbox@delivered.test>: Recipient address rejected: come again"
_STRICT = f"""\
{STRICT_PORT} inet n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy
{{options}}
{STRICT} pass - - n - - smtpd
{{options}}
"""
_OPTIONS = f"""\
  -o syslog_name={STRICT}
  -o {{ smtpd_recipient_restrictions = check_recipient_access static:{{450 4.7.1 come again}} }}"""
FULL_NAME, RESERVED_NAME = "mail.provider-host.se", "client.test"


class Front:
    """Two screeners in front of a Postfix: one hands off after early tests, and the sessions of the other continue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text(f"nameserver {nameserver.ADDRESS}\noptions timeout:5 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            self._stack.callback(Rbldnsd(self.namespace, folder / "rbldnsd").close)
            self._stack.callback(NameServer(self.namespace).close)
            self.postfix = Postfix(self.namespace, folder / "postfix", [], certificate.make(folder))
            self._stack.callback(self.postfix.close)
            with (self.postfix.config / "master.cf").open("a") as master:
                master.write(_STRICT.format(options=_OPTIONS))
            self.postfix.reload()
            strict = self.postfix.queue / "private" / STRICT
            processes.wait_until(strict.exists, "the strict smtpd")
            lists = {"sites": ["bl1.rbl.test*2"], "threshold": 3, "action": "enforce"}
            score = {"action": "enforce", "doubtful_from": 2}
            passing = {"dnsbl": lists, "score": score, "handoff": {"doubtful_to": f"pass:{strict}"}}
            continuing = {
                "dnsbl": {"threshold": 3},
                "score": score | {"helo_reserved": 2},
                "handoff": {"continue_to": f"proxy:{postfix.PROXIED}", "doubtful_to": f"proxy:{STRICT_PORT}"},
            }
            for name, port, settings in (("passing", PASSING, passing), ("continuing", CONTINUING, continuing)):
                self._screener(name, port, settings).ready()
            processes.wait_until(
                lambda: self.postfix.log.read_text().count(self.postfix.asked) >= 2, "the questions to both ports"
            )
        except BaseException:
            self.close()
            raise

    def _screener(self, name: str, port: int, settings: profiles.Settings) -> Screener:
        settings = profiles.merge(settings, {"greet": {"wait": "1s", "action": "enforce"}})
        made = Screener(self.namespace, self.folder / name, name, port, settings, self.postfix.ours[1], 1)
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()

    def swaks(self, port: int, source: str, name: str = FULL_NAME) -> tuple[int, str]:
        """Send a message; return swaks' exit status and what it printed."""
        command = [needs.program("swaks"), "--server", screener.address(1), "--port", str(port), "--to", TO]
        command += ["--local-interface", source, "--helo", name, "--from", f"a@{FULL_NAME}"]
        done = subprocess.run([*self.namespace.inside, *command], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    def served(self, source: str, sessions: int) -> list[str]:
        """The log names of the smtpds that had a client, once it had so many sessions."""

        def found() -> list[str]:
            text = self.postfix.log.read_text("latin-1")
            return re.findall(rf" (\S+)/smtpd\[\d+\]: connect from unknown\[{re.escape(source)}\]", text)

        processes.wait_until(lambda: len(found()) >= sessions, f"{sessions} sessions of {source}")
        return found()


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    needs.root("a private Postfix in a namespace")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-doubtful-"))
    try:
        folder.chmod(0o755)
        peers = Front(folder)
        try:
            yield peers
        finally:
            peers.close()
    finally:
        shutil.rmtree(folder)


def test_clients_that_are_handed_off(front: Front) -> None:
    """One that is listed with a score below the threshold, and one that is not."""
    listed, other = "127.20.0.1", "127.10.0.1"
    status, printed = front.swaks(PASSING, listed)
    assert ANSWER in printed
    assert status == 24  # no recipient was accepted
    for _ in range(2):  # known now, and as much on the list as before
        status, printed = front.swaks(PASSING, listed)
        assert status == 0, printed
    assert front.served(listed, 3) == [STRICT, USUAL, USUAL]
    for _ in range(2):
        status, printed = front.swaks(PASSING, other)
        assert status == 0, printed
    assert front.served(other, 2) == [USUAL, USUAL]


def test_sessions_that_continue(front: Front) -> None:
    doubtful, other = "127.20.1.1", "127.10.1.1"
    status, printed = front.swaks(CONTINUING, doubtful, RESERVED_NAME)
    assert ANSWER in printed
    assert status == 24
    status, printed = front.swaks(CONTINUING, doubtful, RESERVED_NAME)
    assert status == 0, printed
    assert front.served(doubtful, 2) == [STRICT, USUAL]
    for _ in range(2):
        status, printed = front.swaks(CONTINUING, other)
        assert status == 0, printed
    assert front.served(other, 2) == [PROXIED, USUAL]


def test_a_mail_server_loses_no_mail(front: Front) -> None:
    """A Postfix whose first message the strict smtpd defers: the next ones are accepted."""
    sender = PostfixSender(front.namespace, front.folder / "sender", screener.address(1), CONTINUING, RESERVED_NAME)
    try:
        ((status, text),) = sender.send(0, [TO]).values()
        assert status == "deferred"
        assert ANSWER in text
        ((status, text),) = sender.send(0, [f"next@{postfix.MAIL_DOMAIN}"]).values()
        assert status == "sent", text
    finally:
        sender.close()
    assert front.served(sender.source(0), 2) == [STRICT, USUAL]
