"""Traffic of random clients against cores with random settings, and what the judge of the history says about it.

What a client does depends on its script and on nothing else: the same clients can meet another core.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from fastscreen.core import HISTORY_FIELDS, TESTS, HistoryJudge, history_read
from fastscreen.history.day import COUNT_BITS
from fastscreen.history.settings import decode, number
from fastscreen.tune.settings import description
from robust import historycore
from robust.fakedns import Behaviour, FakeDns, failing, listed, not_listed, silent
from robust.historycore import Core, Settings

GREET_WAIT = 0.4  # s
PATIENCE = 0.8
"""s that a client waits for a reply: longer than the greet wait. Then it goes on all the same."""
IMPATIENCE = 0.2
"""s after which some clients leave: in the greet wait, when the lists have answered."""
SLOW = 0.05
"""s that an allow list takes: until early clients have talked."""
ACTIONS = ("ignore", "enforce", "drop", "shadow")
DEEP = tuple(test.key for test in TESTS if test.stage == "dialogue" and not test.own)
NAMES = (b"mail.a-host.se", b"localhost", b"user-pc", b"[192.0.2.1]", b"mx.test", b"host-%s.isp.se")
KINDS = ("polite", "polite", "polite", "early", "early", "leaves", "pipelines", "bare", "http", "label", "shy", "late",
         "again", "lost", "two")  # fmt: skip
Row = tuple[int, bytes, bytes]


class Step(NamedTuple):
    """data: to send. wait: for a line that begins like this, or None: not at all."""

    data: bytes
    wait: bytes | None = b""


Script = tuple[Step, ...]


def script(rng: random.Random, address: str) -> Script:
    """What a client does in one visit."""
    name = rng.choice(NAMES)
    name = name % address.replace(".", "-").encode() if b"%s" in name else name
    mail = [Step(b"EHLO " + name + b"\r\n"), Step(b"MAIL FROM:<a@b.test>\r\n"), Step(b"RCPT TO:<c@d.test>\r\n")]
    greeted = Step(b"", b"220 ")
    kind = rng.choice(KINDS)
    quit_ = [Step(b"QUIT\r\n")]
    if kind == "polite":
        return (greeted, *mail, *quit_)
    if kind == "early":
        return (*mail, *(quit_ if rng.random() < 0.5 else ()))
    if kind == "leaves":
        return ()
    if kind == "pipelines":
        return (greeted, Step(b"".join(step.data for step in mail)), *quit_)
    if kind == "bare":
        return (greeted, *(Step(step.data.replace(b"\r\n", b"\n")) for step in mail), *quit_)
    if kind == "http":
        return (greeted, Step(b"GET / HTTP/1.1\r\n"), *mail)
    if kind == "label":
        return (greeted, Step(b"Subject: hello\r\n"), *mail, *quit_)
    if kind == "shy":
        return (greeted, mail[0], *quit_)
    if kind == "late":  # fails after its recipient
        return (greeted, *mail, Step(b"RSET\r\nNOOP\r\n"), *quit_)
    if kind == "again":  # and is told so
        return (greeted, *mail, Step(b"RSET\r\nNOOP\r\n"), *mail[1:], *quit_)
    if kind == "lost":
        return (greeted, mail[2], mail[0], *quit_)
    return (greeted, mail[0], Step(b"EHLO mail.another.se\r\n"), *mail[1:], mail[2], *quit_)


def settings(rng: random.Random) -> Settings:
    """A configuration."""
    sites = [site for site in ("a.test*2", "b.test=127.0.0.[2..4]*1", "b.test=127.0.0.9*3", "w.test*-4", "s.test*-1",
                               "f.test*1") if rng.random() < 0.75]  # fmt: skip
    made: Settings = {
        "mode": "shadow" if rng.random() < 0.1 else "screen",
        "access": {
            "list": ["inline:{ { 127.1.0.1 = reject }, { 127.1.0.2 = reject }, { 127.1.0.3 = permit } }"],
            "denylist_action": rng.choice(ACTIONS),
        },
        "greet": {"action": rng.choice(ACTIONS)} | ({"banner": ""} if rng.random() < 0.1 else {}),
        "dnsbl": {
            "sites": sites,
            "threshold": rng.randint(1, 4),
            "allowlist_threshold": rng.choice((0, 0, -3)),
            "action": rng.choice(ACTIONS),
            "min_ttl": "60s",
        },
        "deep": {},
        "score": {
            "helo_address": rng.choice((0, 0, 2)),
            "helo_reserved": rng.choice((0, 0, 3)),
            "helo_not_qualified": rng.choice((0, 0, 1)),
            "helo_ours": rng.choice((0, 0, 4)),
            "helo_client_address": rng.choice((0, 0, 2)),
            "action": rng.choice(ACTIONS),
        },
        "engine": {"soft_bounce": rng.random() < 0.2},
        "cache": {"prefix_ipv4": rng.choice((32, 32, 32, 24))},
    }
    for test in DEEP:
        made["deep"][test] = rng.choice((*ACTIONS, "off"))
        made["deep"][f"{test}_after_fail"] = rng.choice(ACTIONS)
    return made


def other(rng: random.Random, before: Settings) -> Settings:
    """The same with some keys of other settings."""
    drawn = settings(rng)
    made: Settings = json.loads(json.dumps(before))
    keys = [(table, key) for table, value in drawn.items() if isinstance(value, dict) for key in value]
    keys += [("mode", "")]
    for table, key in rng.sample(keys, rng.randint(1, 4)):
        if not key:
            made[table] = drawn[table]
        elif key not in ("list", "min_ttl"):
            made[table][key] = drawn[table][key]
    if not any(key == "banner" for _, key in keys):
        made["greet"].pop("banner", None) if rng.random() < 0.1 else None
    return made


def zones(rng: random.Random, addresses: list[str]) -> dict[str, Behaviour]:
    """What the lists say about the clients."""
    found: dict[str, Behaviour] = {
        "s.test": silent if rng.random() < 0.3 else not_listed(),
        "f.test": failing() if rng.random() < 0.3 else not_listed(),
    }
    for address in addresses:
        backwards = ".".join(reversed(address.split(".")))
        if rng.random() < 0.3:
            found[f"{backwards}.a.test"] = listed("127.0.0.2")
        if rng.random() < 0.3:
            found[f"{backwards}.b.test"] = listed(
                *rng.sample(("127.0.0.3", "127.0.0.9", "127.0.0.20"), rng.randint(1, 2))
            )
        if rng.random() < 0.15:
            found[f"{backwards}.w.test"] = listed("127.0.0.2", delay=SLOW)
    return found


class Visit(NamedTuple):
    address: str
    script: Script


def visits(rng: random.Random, clients: int, rounds: int, *, apart: bool) -> list[list[Visit]]:
    """Rounds, in which each client visits once, all together.

    apart: clients of one network do not come together: what they leave in the cache would depend on who is first.
    """
    made = []
    for _ in range(rounds):
        for some in [range(last, last + 1) for last in range(1, 6)] if apart else [range(1, 6)]:
            addresses = [f"127.1.{network}.{last}" for network in range(clients // 5) for last in some]
            made.append([Visit(address, script(rng, address)) for address in addresses])
    return made


def apart(*wanted: Settings) -> bool:
    """Whether the clients of a network share passes."""
    return any(each["cache"]["prefix_ipv4"] != 32 for each in wanted)


class _Client:
    def __init__(self, core: Core, visit: Visit) -> None:
        self._socket = core.opened.enter_context(socket.socket())
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((visit.address, 0))
        self._socket.connect(core.port.getsockname())
        self._socket.setblocking(False)
        self._steps = self._run(visit.script)
        self._got = b""
        self.over = False

    def go(self) -> None:
        if not self.over:
            self.over = next(self._steps, "over") == "over"
            if self.over:
                self._socket.close()

    def _run(self, steps: Script) -> Iterator[str]:
        if not steps:
            end = time.monotonic() + IMPATIENCE
            while time.monotonic() < end:
                yield ""
            return
        for step in steps:
            if step.data:
                try:
                    self._socket.sendall(step.data)
                except OSError:
                    return
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and not self._heard(step.wait or b""):
                if self._closed():
                    return
                yield ""

    def _closed(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                return True
            self._got += data
            return not data
        return False

    def _heard(self, wanted: bytes) -> bool:
        """Whether the last line of a reply has come; then all is forgotten that has come before."""
        for line in self._got.split(b"\n")[:-1]:
            if line[3:4] == b" " and line.startswith(wanted):
                self._got = b""
                return True
        return False


class Seen(NamedTuple):
    """What a core has recorded: by round and address; and its settings."""

    rows: list[dict[str, Row]]
    description: bytes


def play(folder: Path, wanted: Settings, dns: FakeDns, rounds: list[list[Visit]]) -> Seen:
    """Have the clients visit a core with these settings."""
    found: list[dict[str, Row]] = []
    with ExitStack() as opened, mock.patch.object(historycore, "GREET_WAIT", GREET_WAIT):
        core = Core(folder, opened, wanted, dns=dns)
        for visitors in rounds:
            clients = [_Client(core, visit) for visit in visitors]
            while not all(client.over for client in clients):
                core.run()
                for client in clients:
                    client.go()
            core.end()
            rows, lost = core.reader.read(10 * len(visitors))
            core.reader.done()
            assert lost == 0
            found.append({
                socket.inet_ntoa(client): ((ended << COUNT_BITS) + at, client, packed)
                for at, (ended, client, packed, _, _) in enumerate(rows)
            })  # fmt: skip
            time.sleep(0.01)
        description_of = core.built.description
    return Seen(found, description_of)


def disturbed(seen: Seen) -> set[str]:
    """Clients for which a list did not answer in time that should have: the machine was busy."""
    found = set()
    settings_of = decode(seen.description)
    slow = sum(1 << at for at, name in enumerate(settings_of.lists) if name in ("a.test", "b.test", "w.test"))
    for visitors in seen.rows:
        for address, row in visitors.items():
            fields = history_read(row[0] >> COUNT_BITS, row[1], row[2])
            assert fields is not None
            if fields[HISTORY_FIELDS.index("silent")] & slow:
                found.add(address)
    return found


def judged(seen: Seen, by: bytes) -> list[dict[str, tuple[str, str, int, str]]]:
    """Of each round, by address: what happened, what the judge says, the reply, and the reason."""
    judge = HistoryJudge(description(decode(by)), "mx.test", COUNT_BITS, detail=True)
    judge.add_settings(number(seen.description), description(decode(seen.description)))
    rows = sorted(row for visitors in seen.rows for row in visitors.values())
    judge.feed(rows)
    judge.finish()
    assert judge.detail is not None
    results: dict[int, Any] = {row: (happened, would, reply, why) for row, happened, would, reply, why in judge.detail}
    return [{address: results[row[0]] for address, row in visitors.items()} for visitors in seen.rows]
