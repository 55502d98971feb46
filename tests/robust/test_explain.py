"""`explain` agrees with what the screener then does: generated situations, each explained, then connected."""

import itertools
import random
import threading
import time
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.control import Map
from robust.fakedns import Behaviour, FakeDns, failing, listed, not_listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, HOSTNAME, Screener, merge
from robust.test_control import connected

CLIENTS = 12
"""Addresses for each configuration."""

TESTS = ("pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline")
CONFIGURATIONS: list[Map] = [
    {"access": {"denylist_action": "drop"}, "dnsbl": {"action": "enforce"}},
    {"access": {"denylist_action": "enforce"}, "dnsbl": {"action": "drop"}},
    {"access": {"denylist_action": "ignore"}, "dnsbl": {"action": "ignore"}, "deep": {"pipelining": "enforce"}},
    {"access": {"denylist_action": "enforce"}, "dnsbl": {"action": "enforce"}, "deep": {"bare_newline": "enforce"}},
    {"greet": {"banner": ""}, "dnsbl": {"action": "drop", "allowlist_threshold": -2}, "engine": {"soft_bounce": True}},
    {"dnsbl": {"action": "enforce", "threshold": 5}, "deep": {"non_smtp_command": "enforce"}, "bypass": True},
    {"dnsbl": {"sites": []}, "greet": {"banner": ""}, "access": {"denylist_action": "drop"}},
    {"access": {"denylist_action": "enforce", "allowlist_interfaces": ["::/0"]}, "dnsbl": {"action": "enforce"}},
    {
        "access": {"allowlist_interfaces": ["!127.9.0.1", "0.0.0.0/0"]},
        "dnsbl": {"action": "drop"},
        "greet": {"banner": ""},
    },
    {
        "mode": "shadow",
        "access": {"denylist_action": "drop"},
        "dnsbl": {"action": "enforce"},
        "deep": {"pipelining": "enforce"},
    },
    {"access": {"denylist_action": "shadow"}, "dnsbl": {"action": "shadow"}, "deep": {"bare_newline": "shadow"}},
]

VERDICTS: list[set[str]] = [
    {"allowlisted", "cached", "deferred", "denylisted", "passed", "rejected"},
    {"allowlisted", "cached", "deferred", "passed", "rejected"},
    {"allowlisted", "cached", "deep", "ignored", "passed"},
    {"allowlisted", "cached", "deep", "deferred", "rejected"},
    {"allowlisted", "dropped", "passed"},
    {"allowlisted", "bypassed", "deep"},
    {"allowlisted", "cached", "denylisted", "untested"},
    {"allowlisted", "deferred", "rejected", "vetoed"},
    {"allowlisted", "cached", "deferred", "vetoed"},
    {"allowlisted", "cached", "ignored", "passed"},
    {"allowlisted", "cached", "deep", "passed"},
]
"""What the situations of each configuration come to; their chance is always the same."""


def settings_of(configuration: Map, path: Path, folder: Path, resolver: str, network: int) -> Map:
    """A cidr-like table with permit, reject and dunno for some clients of 127.1.NETWORK.x."""
    table = "".join(
        f"{{ 127.1.{network}.{host} = {result} }}, " for host, result in ((1, "permit"), (2, "reject"), (3, "dunno"))
    )
    own = {
        "control": {"path": str(path)},
        "cache": {"path": str(folder / "cache")},
        "listen": {"addresses": ["127.9.0.1:0"], "workers": 1 + network % 2},
        "access": {"list": [f"inline:{{ {table.rstrip(', ')} }}"]},
        "dnsbl": {
            "sites": ["bl1.test*3", "bl2.test=127.0.0.[4..9]*2", "wl.test*-4"],
            "threshold": 3,
            "allowlist_threshold": -3,
            "resolvers": [resolver],
        },
    }
    return merge(own, {key: value for key, value in configuration.items() if key != "bypass"})


def answers(chance: random.Random, zone: str) -> Behaviour:
    """What a list says of one client."""
    if zone == "bl1.test":
        return chance.choice([listed("127.0.0.2"), listed("127.0.0.3", "127.0.0.4"), not_listed()])
    if zone == "bl2.test":
        return chance.choice([listed("127.0.0.4"), listed("127.0.0.2"), listed("127.255.255.254"), not_listed()])
    return chance.choice([listed("127.0.5.1"), not_listed(), failing()])


def stamps(chance: random.Random) -> Map | None:
    """A record of the cache: None, all valid, or some of it expired, never passed or disabled."""
    now = time.time()
    if chance.random() < 0.5:
        return None
    if chance.random() < 0.25:
        return dict.fromkeys(TESTS, now + 3600)
    return {test: chance.choice([now + 3600, now + 3600, now - 100, "never", "disabled"]) for test in TESTS}


def connect_once(screener: Screener, source: str) -> tuple[str, bytes]:
    """Behave; return what has become of it, and the last reply."""
    with screener.connect(source) as client:
        reply = b""
        while not reply.endswith((GREETING, FROM_MTA)):
            got = client.read()
            if not got:
                return "ended", reply
            reply += got
            last = got.splitlines(keepends=True)[-1]
            if last.startswith((b"4", b"5")):
                return "ended", last
        if reply.endswith(FROM_MTA):
            return "handed", b""
        assert client.ask(b"EHLO client.example").startswith(b"250-" + HOSTNAME.encode())
        assert client.ask(b"MAIL FROM:<a@b.example>").startswith(b"250 ")
        return "told", client.ask(b"RCPT TO:<c@d.example>")


HANDED = {"allowlisted": "ALLOWLISTED", "bypassed": "BYPASSED", "cached": "PASS OLD", "passed": "PASS (NEW|OLD)"}


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_agrees(start: Start, folder: Path, dns: FakeDns, mta: FakeMta, number: int) -> None:
    chance = random.Random(1000 + number)
    configuration = CONFIGURATIONS[number]
    sources = [f"127.1.{number}.{host}" for host in range(1, CLIENTS + 1)]
    for source, zone in itertools.product(sources, ("bl1.test", "bl2.test", "wl.test")):
        reversed_name = ".".join(reversed(source.split(".")))
        dns.zones[f"{reversed_name}.{zone}"] = answers(chance, zone)
    path = folder / "run" / "control"
    screener = start(settings_of(configuration, path, folder, dns.endpoint, number))
    with connected(path) as control:
        records = [
            {"address": source, "stamps": record} for source in sources if (record := stamps(chance)) is not None
        ]
        assert control.ok("cache.import", entries=records) == {"stored": len(records)}
        if configuration.get("bypass"):
            control.ok("bypass", seconds=600)
        explained = {source: control.ok("explain", address=source) for source in sources}
    expected = VERDICTS[number]
    assert {one["verdict"] for one in explained.values()} == expected, "other situations than this test is about"
    outcomes: dict[str, tuple[str, bytes]] = {}

    def one(source: str) -> None:
        outcomes[source] = connect_once(screener, source)

    threads = [threading.Thread(target=one, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for source in sources:
        disagreement = compare(screener, source, explained[source], *outcomes[source])
        assert not disagreement, (disagreement, explained[source], outcomes[source])


def compare(screener: Screener, source: str, explained: Map, outcome: str, reply: bytes) -> str:
    """What `explain` got wrong, or nothing."""
    verdict = explained["verdict"]
    if (explained["reply"] is None) != (outcome == "handed"):
        return "who has the client in the end"
    if explained["reply"] is not None and reply != explained["reply"].encode() + b"\r\n":
        return "what it is told"
    where = rf" \[{source}\]:\d+$"
    if verdict in HANDED and not screener.lines(HANDED[verdict] + where):
        return "why it is handed off"
    if verdict in ("untested", "ignored") and screener.lines("(PASS NEW|PASS OLD|LISTED)" + where):
        return "that it is handed off and has not passed"
    if verdict in ("denylisted", "dropped") and outcome != "ended":
        return "that it is hung up on"
    if verdict == "vetoed" and not screener.lines("ALLOWLIST VETO" + where):
        return "that it came in where nobody passes"
    if verdict in ("rejected", "deep", "vetoed") and outcome != "told":
        return "that the dummy engine talks to it"
    if ("dnsbl" in explained["tests"]) != asked(screener, source, explained):
        return "whether lists are asked"
    return ""


def asked(screener: Screener, source: str, explained: Map) -> bool:
    """Whether a list's answer stands in the log, as it does when one lists the client and it is asked."""
    if not any(one["state"] == "listed" for one in explained["lists"]):
        return "dnsbl" in explained["tests"]
    return bool(screener.lines(rf"addr {source} listed by domain"))


def test_situations_are_many() -> None:
    assert len(CONFIGURATIONS) * CLIENTS >= 50
