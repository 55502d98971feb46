"""Feedback from the log of a real Postfix behind `pass:`: what the memory of offenses learns about its clients."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from robust.control import Control, Map

from peers import certificate, needs, postfix, processes, screener
from peers.namespace import Namespace
from peers.postfix import Postfix
from peers.screener import COMMAND, Screener

PORT = 2498
TO = f"inbox@{postfix.MAIL_DOMAIN}"
NOWHERE = "nobody@elsewhere.test"  # 554 5.7.1, relay access denied
CHECKS = (
    "pcre:{{/^Subject: .*forbidden/ REJECT no such subject}, {/^Subject: .*later/ DISCARD}, {/^Subject: .*held/ HOLD}}"
)
SPAM = r"rspamd\[\d+\]: spam, queue (?P<queue>[0-9A-Za-z]+)$"
EHLO = "EHLO mail.provider-host.se"
MAIL = "MAIL FROM:<a@provider-host.se>"
RCPT = f"RCPT TO:<{TO}>"
DATA = ("DATA", "Subject: {}\r\n\r\ntext\r\n.")
LEARN_SECONDS = 60.0  # with spam, accepted mail waits for a verdict
Settings = dict[str, Any]


class Front:
    """A screener that hands off to Postfix, and reads its log."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._stack = contextlib.ExitStack()
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            self.postfix = Postfix(self.namespace, folder / "postfix", [], certificate.make(folder))
            self._stack.callback(self.postfix.close)
            ports = "no" if kind == "without ports" else "yes"
            with (self.postfix.config / "main.cf").open("a") as main:
                main.write(f"smtpd_client_port_logging = {ports}\nheader_checks = {CHECKS}\n")
            postfix.settled(self.postfix.config / "main.cf")
            self.postfix.log.chmod(0o644)
            where = folder / "screener"
            self.control = where / "control"
            settings: Settings = {
                "greet": {"wait": "1s"},
                "score": {"memory": str(where / "offenses")},
                "control": {"path": str(self.control)},
                "feedback": {
                    "log": str(self.postfix.log),
                    "spam": SPAM if kind == "with spam" else "",
                },
            }
            self.screener = Screener(self.namespace, where, "feedback", PORT, settings, self.postfix.ours[1], 1)
            self._stack.callback(self.screener.close)
            self.screener.ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def talk(self, source: str, *lines: str) -> list[str]:
        """Send lines, each after the reply to the one before, and return the codes of the replies."""
        with self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.bind((source, 0))
            client.connect((screener.address(1), PORT))
            with client.makefile("rwb") as file:
                codes = [_code(file)]
                for line in lines:
                    file.write(line.encode("latin-1") + b"\r\n")
                    file.flush()
                    codes.append(_code(file))
                return codes

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a line of Postfix."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.postfix.log.read_text("latin-1"), re.MULTILINE)

        processes.wait_until(lambda: found() is not None, pattern)
        line = found()
        assert line
        return line

    def write(self, line: str) -> None:
        """Any program may write to the log."""
        with self.postfix.log.open("a", encoding="latin-1") as file:
            file.write(f"Nov 30 15:57:11 mx {line}\n")

    def _status(self) -> Map:
        with Control(self.control) as control:
            status: Map = control.ok("status")
            return status

    def outcomes(self) -> Counter[str]:
        """How often each outcome was learned."""
        status = self._status()["feedback"]
        return Counter({key: status[key] for key in ("accepted", "rejected", "spam", "other", "unknown", "foreign")})

    def faults(self) -> list[str]:
        """The conditions."""
        return [one["kind"] for one in self._status()["conditions"]]

    def conduct(self, source: str) -> tuple[float, float]:
        """What the memory has of an address: bad and good."""
        run = subprocess.run(
            [COMMAND, "reputation", "get", source, "--json", "--socket", str(self.control)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode in (0, 1), run.stderr
        found = json.loads(run.stdout) if run.stdout else None
        address = next((one for one in found["reputations"] if one["subject"] == source), None) if found else None
        return (address["bad"], address["good"]) if address else (0.0, 0.0)

    def learned(self, before: Counter[str], **more: int) -> None:
        """Wait until so much more was learned, and nothing else, and is in the memory."""
        wanted = before + Counter(more)
        processes.wait_until(lambda: self.outcomes() >= wanted, f"{more} more than {before}", LEARN_SECONDS)
        assert self.outcomes() == wanted
        time.sleep(2.5)  # of the writer's turn, and the last second of the status


def _code(file: Any) -> str:
    while (line := file.readline().decode())[3:4] == "-":
        pass
    return str(line[:3])


@pytest.fixture(scope="module", params=["with ports", "without ports"])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    needs.root("a private Postfix in a namespace")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-"))
    folder.chmod(0o755)
    try:
        made = Front(folder, request.param)
        yield made
        made.close()
    finally:
        shutil.rmtree(folder)


def test_accepted_and_rejected_clients(front: Front) -> None:
    before = front.outcomes()
    good, guesses, mistypes, forbidden, greets = (f"127.22.0.{number}" for number in range(1, 6))
    wrong = f"RCPT TO:<{NOWHERE}>"
    assert front.talk(good, EHLO, MAIL, RCPT, DATA[0], DATA[1].format("hello"), "QUIT")[-2:] == ["250", "221"]
    assert front.talk(guesses, EHLO, MAIL, RCPT, wrong, wrong, wrong, "QUIT")[3:7] == ["250", "554", "554", "554"]
    assert front.talk(mistypes, EHLO, MAIL, wrong, "QUIT")[3] == "554"
    assert front.talk(forbidden, EHLO, MAIL, RCPT, DATA[0], DATA[1].format("forbidden"), "QUIT")[5] == "550"
    assert front.talk(greets, EHLO, "QUIT")[-1] == "221"
    front.learned(before, accepted=1, rejected=3, other=1)
    assert front.conduct(good) == (0.0, 1.0)
    assert front.conduct(guesses) == (1.0, 0.0)
    assert front.conduct(mistypes) == front.conduct(forbidden) == (0.5, 0.0)
    assert front.conduct(greets) == (0.0, 0.0)


def test_mail_that_is_thrown_away_or_held_is_not_accepted_mail(front: Front) -> None:
    before = front.outcomes()
    for number, subject in enumerate(("later", "held")):
        source = f"127.22.1.{number}"
        assert front.talk(source, EHLO, MAIL, RCPT, DATA[0], DATA[1].format(subject), "QUIT")[-2] == "250"
    front.learned(before, other=2)
    assert front.conduct("127.22.1.0") == front.conduct("127.22.1.1") == (0.0, 0.0)


def test_chunks(front: Front) -> None:
    """BDAT: what qmgr says counts."""
    before = front.outcomes()
    source, text = "127.22.2.1", "Subject: x\r\n\r\ntext"
    assert front.talk(source, EHLO, MAIL, RCPT, f"BDAT {len(text) + 2} LAST\r\n{text}", "QUIT")[-2:] == ["250", "221"]
    front.learned(before, accepted=1)
    assert front.conduct(source) == (0.0, 1.0)


def test_text_of_a_client_harms_no_other_client(front: Front) -> None:
    """A client puts lines about another into its name, its addresses, commands and headers, while that one is there."""
    before = front.outcomes()
    victim = "127.22.3.1"
    with front.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.bind((victim, 0))
        client.connect((screener.address(1), PORT))
        with client.makefile("rwb") as file:
            assert _code(file) == "220"
            front.logged(rf"\]: connect from unknown\[{re.escape(victim)}\]")
            port = client.getsockname()[1]
            for number, shown in enumerate((f"unknown[{victim}]:{port}", f"unknown[{victim}]")):
                lie = f"disconnect from {shown} ehlo=1 mail=1 rcpt=0/3 data=0/1"
                head = f"Nov 30 15:57:11 mx handoff-fs1/smtpd[1]: {lie}"
                reject = f"NOQUEUE: reject: RCPT from {shown}: 554 5.7.1 no"
                assert front.talk(f"127.22.3.{10 + number}", reject)[-1] == "221"  # not a command of SMTP
                talk = [f"EHLO {lie}", f"HELO {lie}", EHLO, f'MAIL FROM:<"{lie}"@x.test>', f"RCPT TO:<{NOWHERE}>"]
                talk += [f'RCPT TO:<"{reject}"@elsewhere.test>', f'RCPT TO:<"{head}"@elsewhere.test>', RCPT]
                talk += [DATA[0], DATA[1].format(f"forbidden {lie}\r\nMessage-ID: <{head}>"), "QUIT"]
                assert front.talk(f"127.22.3.{20 + number}", *talk)[4:] == [
                    "250",
                    "554",
                    "554",
                    "554",
                    "250",
                    "354",
                    "550",
                    "221",
                ]
            for line in (EHLO, MAIL, RCPT, *DATA, "QUIT"):
                file.write(line.encode() + b"\r\n")
                file.flush()
                last = _code(file)
            assert last == "221"
    text = front.postfix.log.read_text("latin-1")
    assert len(re.findall(rf"disconnect from unknown\[{re.escape(victim)}\]", text)) > 10
    front.learned(before, accepted=1, rejected=2, other=2)
    assert front.conduct(victim) == (0.0, 1.0)
    assert front.conduct("127.22.3.20") == front.conduct("127.22.3.21") == (1.0, 0.0)


def test_lines_of_local_users(front: Front) -> None:
    """Whoever can write to the log says that a client, which is not there, delivers a thousand messages."""
    before = front.outcomes()
    for port in range(1000):
        front.write(f"postfix/smtpd[1]: disconnect from unknown[127.22.4.1]:{port + 1} ehlo=1 data=1 commands=2")
    front.learned(before, foreign=1000)
    assert front.conduct("127.22.4.1") == (0.0, 0.0)


@pytest.mark.parametrize("front", ["with spam"], indirect=True)
def test_spam_verdict(front: Front) -> None:
    before = front.outcomes()
    spammer, good = "127.22.5.1", "127.22.5.2"
    for source in (spammer, good):
        assert front.talk(source, EHLO, MAIL, RCPT, *DATA, "QUIT")[-2] == "250"
    queue = front.logged(rf"\]: (\w+): client=unknown\[{re.escape(spammer)}\]")[1]
    front.write(f"sshd[1]: Invalid user rspamd[1]: spam, queue {front.logged(rf': (.+): client=unknown.{good}.')[1]}")
    front.write(f"rspamd[77]: spam, queue {queue}")
    front.learned(before, spam=1, accepted=1)
    assert front.conduct(spammer) == (1.0, 0.0)
    assert front.conduct(good) == (0.0, 1.0)


def test_rotation(front: Front) -> None:
    """postlogd writes to the renamed file until it is told to reopen its log, and makes one that only root may read."""
    before = front.outcomes()
    front.postfix.log.rename(front.postfix.log.with_suffix(".1"))
    wrong = f"RCPT TO:<{NOWHERE}>"
    assert front.talk("127.22.6.1", EHLO, MAIL, wrong, "QUIT")[3] == "554"
    front.learned(before, rejected=1)
    assert front.conduct("127.22.6.1") == (0.5, 0.0)
    front.postfix.reload()
    assert front.talk("127.22.6.2", EHLO, MAIL, wrong, "QUIT")[3] == "554"
    processes.wait_until(lambda: "feedback" in front.faults(), "the condition")
    assert front.conduct("127.22.6.2") == (0.0, 0.0)
    front.postfix.log.chmod(0o644)
    front.learned(before, rejected=2)
    assert front.conduct("127.22.6.2") == (0.5, 0.0)
    assert front.faults() == []
