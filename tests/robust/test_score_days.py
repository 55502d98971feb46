"""A month of the memory of offenses in a daemon whose clock is moved by a day at a time: good and bad senders share
networks, and no good one is rejected at the weights of docs/score.md."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import shlex
import smtplib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers import needs
from scorepage import suggested

from robust import harness
from robust.conftest import Start
from robust.harness import TIMEOUT, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_control import connected
from robust.tlsclient import certificates, context

DAYS = 32
SEED = 18
LEARNED = 7  # days, after which the memory has seen the bad networks
PORTS = 100  # sessions at the same time
UNKNOWN = b"5.1.1 nobody of that name"


@dataclass(frozen=True)
class Sender:
    """One address. good: its operator means well. talks_early: fails the pregreet test. spam: the MTA rejects its mail.
    first, every: the days on which it sends."""

    address: str
    name: str
    good: bool
    tls: bool = True
    talks_early: bool = False
    spam: bool = False
    first: int = 0
    every: int = 1

    def sends_on(self, day: int) -> bool:
        return day >= self.first and (day - self.first) % self.every == 0


def good(network: int, host: int, **more: object) -> Sender:
    return Sender(f"127.64.{network}.{host}", f"mail{host}.host{network}.se", good=True, **more)  # type: ignore[arg-type]


def bad(network: int, host: int, *, talks_early: bool) -> Sender:
    name = "localhost" if talks_early else f"{network}-{host}.dyn.host.se"
    return Sender(f"127.64.{network}.{host}", name, good=False, tls=False, talks_early=talks_early, spam=True)


def population() -> list[Sender]:
    """Hosters where as many senders are bad as good, and a new customer begins each week; networks with bad senders
    only, which get a new one each week; networks of good ones, one of which does without TLS; one address that is both;
    and one sender that behaves for three weeks."""
    senders: list[Sender] = []
    for network in (1, 2):
        senders += [good(network, host, every=1 + host % 3) for host in range(1, 7)]
        senders += [bad(network, 100 + host, talks_early=host % 2 == 0) for host in range(8)]
        senders += [good(network, 50 + week, first=7 * week + network) for week in range(1, DAYS // 7)]
    for network in (3, 4):
        senders += [bad(network, 100 + host, talks_early=host % 2 == 0) for host in range(6)]
        late = [bad(network, 200 + week, talks_early=False) for week in range(1, DAYS // 7)]
        senders += [Sender(**{**vars(each), "first": 7 * at + network}) for at, each in enumerate(late, 1)]
    rented = [bad(8, host, talks_early=False) for host in range(100, 128)]  # of the same AS, each for a day
    senders += [Sender(**{**vars(each), "every": DAYS}) for each in rented]
    senders += [good(5, host, every=2, tls=host != 3) for host in range(1, 6)]
    senders += [good(6, 1), bad(6, 1, talks_early=True)]
    senders += [good(7, 1), Sender("127.64.7.1", "mail1.host7.se", good=False, spam=True, first=21)]
    return senders


def mta_session(connection: Connection, _: int) -> None:
    """An MTA that rejects recipients with `nobody` in their name."""
    connection.send(b"220 mta\r\n")
    with contextlib.suppress(EOFError, OSError):
        while line := connection.line():
            verb = line[:4].upper()
            if verb == b"DATA":
                connection.send(b"354 go\r\n")
                while connection.line() != b".":
                    pass
                connection.send(b"250 queued\r\n")
            elif verb == b"QUIT":
                connection.send(b"221 bye\r\n")
                return
            else:
                connection.send(b"550 %b\r\n" % UNKNOWN if b"nobody" in line else b"250 ok\r\n")


def send(address: tuple[str, int], sender: Sender) -> tuple[int, bytes]:
    """One message, with one more attempt after a 4xx. Return the last reply: 250, or the rejection."""
    code, text = attempt(address, sender)
    return attempt(address, sender) if 400 <= code < 500 else (code, text)


def attempt(address: tuple[str, int], sender: Sender) -> tuple[int, bytes]:
    recipients = [f"nobody{at}@here.test" if sender.spam else f"inbox{at}@here.test" for at in range(3)]
    if sender.talks_early:
        with socket.create_connection(address, TIMEOUT, source_address=(sender.address, 0)) as early:
            early.sendall(b"EHLO localhost\r\nQUIT\r\n")
            reply = b""
            with contextlib.suppress(ConnectionResetError):
                while got := early.recv(4096):
                    reply += got
        return max((int(code), text) for code, text in re.findall(rb"^(\d{3}) (.*)", reply, re.MULTILINE))
    try:
        with smtplib.SMTP(*address, sender.name, TIMEOUT, source_address=(sender.address, 0)) as smtp:
            smtp.ehlo()
            if sender.tls and smtp.has_extn("starttls"):
                smtp.starttls(context=context(minimum_version=ssl.TLSVersion.TLSv1_2))
                smtp.ehlo()
            smtp.sendmail(f"a@{sender.name}", recipients, b"Subject: mail\r\n\r\nbody\r\n")
            return 250, b""
    except smtplib.SMTPRecipientsRefused as refused:
        return max(refused.recipients.values())
    except smtplib.SMTPResponseException as error:
        return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()


class Clock:
    """The screener's wall clock, which libfaketime moves. Its timers are not affected."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        needs.program("faketime")
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = folder / "clock"
        self.move(0)
        program = folder / "moved"
        variables = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        program.write_text(f'#!/bin/sh\nexec env {shlex.join([*words, str(harness.COMMAND)])} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(harness, "COMMAND", program)

    def move(self, days: int) -> None:
        """So many days later than it is."""
        new = self._file.with_suffix(".new")
        new.write_text(f"+{days}d\n")
        new.chmod(0o644)
        new.replace(self._file)


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(folder, monkeypatch)


@pytest.fixture
def proxy_mta() -> Iterator[ProxyMta]:
    with ProxyMta(mta_session) as made:
        yield made


def learned(folder: Path) -> int:
    """How often the memory has learned something bad or good about a client."""
    with connected(folder / "control") as control:
        memory = control.ok("status")["memory"]
    return int(memory["bad"] + memory["good"])


def has_learned(folder: Path, due: int) -> bool:
    return learned(folder) >= due


def test_no_good_sender_is_rejected(start: Start, folder: Path, clock: Clock, proxy_mta: ProxyMta) -> None:
    page = suggested(memory=True)
    systems = folder / "as.csv"
    numbers = {1: 64500, 2: 64500, 3: 64501, 4: 64501, 5: 64500, 6: 64500, 7: 64500, 8: 64501}
    systems.write_text("".join(f"127.64.{network}.0/24,{number}\n" for network, number in numbers.items()))
    files = {"memory": str(folder / "offenses"), "as_file": str(systems)}
    screener = start(
        {"score": {**page["score"], **files, "action": "enforce"}},
        {"dnsbl": {"threshold": page["dnsbl"]["threshold"]}, "greet": {"action": "drop"}},
        {"deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}},
        {"handoff": {"to": proxy_mta.target, "continue_to": [proxy_mta.target]}},
        {"cache": {"path": str(folder / "cache")}, "control": {"path": str(folder / "control")}},
        {"tls": {"level": "may", "certificates": certificates(folder)}, "listen": {"workers": 2}},
    )
    senders = population()
    chance = random.Random(SEED)
    wrong: list[tuple[int, str, int, bytes]] = []
    mail: Counter[str] = Counter()  # of good senders, and of bad ones whose network is known
    teachers: set[str] = set()  # of a day: clients that the memory learns something about
    with ThreadPoolExecutor(PORTS) as pool:
        for day in range(DAYS):
            clock.move(day)
            today = [sender for sender in senders if sender.sends_on(day)]
            chance.shuffle(today)
            due = learned(folder)
            teachers.clear()
            replies = pool.map(lambda each: send(screener.address, each), today)
            for sender, (code, text) in zip(today, replies, strict=True):
                if code == 250 or sender.talks_early or UNKNOWN in text:
                    teachers.add(sender.address)
                if sender.good:
                    mail["good"] += 1
                    if code != 250:
                        wrong.append((day, sender.address, code, text))
                elif day >= LEARNED and sender.address.startswith(("127.64.3.", "127.64.4.")):
                    mail["bad"] += 1
                    mail["kept out"] += UNKNOWN not in text
            due += len(teachers)
            wait_until(functools.partial(has_learned, folder, due), "the memory to learn")
    assert wrong == []
    assert mail["good"] > 10 * DAYS
    assert mail["kept out"] > mail["bad"] // 2 > 50
    parts = "no_tls 1, seen_network 1, seen_as 1"
    assert screener.lines(rf"SCORE rank 3 for \[127\.64\.[34]\.20\d\]:\d+: {parts}$"), "its AS never counted"
    newcomer = r"SCORE from \[127\.64\.[12]\.5\d\]:\d+: seen_network"
    assert screener.lines(newcomer), "the neighbors of good senders never counted"
