"""A real MTA refuses MAIL behind Continue; real MTAs send to it, with one recipient, two and fifty.

What a direct connection would have deferred must not be bounced.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers import certificate, needs, pages, postfix, processes, profiles, screener
from peers.namespace import Namespace
from peers.screener import Screener
from peers.senders import EximSender, PostfixSender
from peers.test_continue import PAGES, make_mta

PORT = 2496
RECIPIENTS = (1, 2, 50)
TEXTS = {0: "452 4.3.1", 1: "552 5.3.1"}  # the MTAs' answers to MAIL, for even cases and for odd ones

# The dialogue of a client that believes in its transaction; prints each reply's code and text as JSON.
DIALOGUE = """
import json, smtplib, sys
server, port, source, sender = sys.argv[1:]
said = []
with smtplib.SMTP(server, int(port), "client.test", source_address=(source, 0)) as smtp:
    for line in ("EHLO client.test", f"MAIL FROM:<{sender}>", "RCPT TO:<inbox@delivered.test>",
                 "RCPT TO:<b@delivered.test>", "RCPT TO:<c@delivered.test>", "DATA", "RSET",
                 "MAIL FROM:<good@client.test>", "RCPT TO:<inbox@delivered.test>"):
        said.append(smtp.docmd(line))
    said.append(smtp.data(b"Subject: after the refusal\\r\\n\\r\\nx\\r\\n"))
print(json.dumps([[code, text.decode()] for code, text in said]))
"""


class Behind:
    """A screener with a real MTA behind it, and real MTAs in front."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            self.mta = make_mta(kind, self.namespace, folder, certificate.make(folder))
            self._stack.callback(self.mta.close)
            settings = profiles.merge(pages.settings(PAGES[kind]), {"greet": {"wait": "1s", "action": "enforce"}})
            settings["handoff"].pop("to")
            self.screener = Screener(
                self.namespace, folder / "screener", "refused", PORT, settings, Path("/nowhere"), 1
            )
            self._stack.callback(self.screener.close)
            self.screener.ready()
            processes.wait_until(lambda: self.mta.asked in self.mta.log.read_text(), "the question to the MTA")
            self.senders: dict[str, PostfixSender | EximSender] = {}
            for make in (PostfixSender, EximSender):
                sender = make(self.namespace, folder / f"sender-{make.name}", screener.address(1), PORT)
                self._stack.callback(sender.close)
                self.senders[make.name] = sender
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module", params=["postfix", "exim"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    needs.root("a private MTA in a namespace")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-refused-"))
    try:
        folder.chmod(0o755)
        peers = Behind(request.param, folder)
        try:
            yield peers
        finally:
            peers.close()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("case", [0, 1], ids=["for now", "for good"])
@pytest.mark.parametrize("count", RECIPIENTS)
@pytest.mark.parametrize("sender", ["postfix", "exim"])
def test_every_recipient_fares_alike(behind: Behind, sender: str, count: int, case: int) -> None:
    """As the MTA replied to MAIL: temporary errors never cause a bounce, and permanent errors are not retried."""
    case += 2 * RECIPIENTS.index(count)
    recipients = [f"r{number}-{case}@{postfix.MAIL_DOMAIN}" for number in range(count)]
    found = behind.senders[sender].send(case, recipients)
    assert set(found) == set(recipients)
    for status, text in found.values():
        assert status == ("bounced" if case % 2 else "deferred"), text
        assert TEXTS[case % 2] in text
    source = behind.senders[sender].source(case)
    lines = [line for line in behind.screener.log.read_text().splitlines() if f"[{source}]" in line]
    assert len([line for line in lines if ": MAIL refused: " in line]) == 1, lines


@pytest.mark.parametrize("case", [0, 1], ids=["for now", "for good"])
def test_the_next_transaction_is_the_mtas(behind: Behind, case: int) -> None:
    """In the same session, up to a message in the mailbox."""
    sender = f"mail{5 if case else 4}@client.test"
    command = [sys.executable, "-c", DIALOGUE, screener.address(1), str(PORT), f"127.19.0.{1 + case}", sender]
    done = subprocess.run([*behind.namespace.inside, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [code for code, _ in said] == [250, 250, *[int(TEXTS[case][:3])] * 4, 250, 250, 250, 250], said
    assert {f"{code} {text}" for code, text in said[2:6]} == {f"{said[2][0]} {said[2][1]}"}

    def received() -> bool:
        return any(b"after the refusal" in path.read_bytes() for path in behind.mta.mailbox.glob("new/*"))

    processes.wait_until(received, "the message in the mailbox", 60)
