"""A simulated daemon for the fake control server: clients come and go in simulated time.

Nothing here waits or reads the clock: `advance` lets the time pass, and the same seed gives the same events.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from typing import Any

Map = dict[str, Any]
START = 1763848000.0
LISTS: dict[str, tuple[int, float, float, str]] = {  # weight, p50, p95, state
    "zen.spamhaus.org": (3, 0.011, 0.048, "ok"),
    "bl.spamcop.net": (2, 0.018, 0.092, "ok"),
    "b.barracudacentral.org": (2, 0.034, 1.42, "slow"),
    "bl.mailspike.net": (2, 0.026, 0.110, "ok"),
    "psbl.surriel.com": (1, 0.041, 0.187, "ok"),
    "list.dnswl.org": (-4, 0.015, 0.071, "ok"),
    "dead.example.org": (1, 5.0, 5.0, "failing"),
}
BOT_NETS = ("203.0.113", "198.51.100", "192.0.2")
KNOWN = [f"198.18.{net}.{host}" for net in range(4) for host in (7, 11, 25, 26, 40)] + [
    "2001:db8:25::1a",
    "2001:db8:25::1b",
]
PROFILES = (
    ("known", 46),
    ("new", 9),
    ("pregreet", 16),
    ("http", 3),
    ("pipeline", 5),
    ("newline", 2),
    ("nonsmtp", 2),
    ("listed", 10),
    ("silent", 6),
    ("denied", 1),
)
PEERS = (("mx2", 3.0), ("mx3", 1.0), ("mx4", 252.0))  # name, s since it was seen
EHLO = ("ylmf-pc", "[192.168.1.4]", "WIN-0K2J", "localhost.localdomain", "User", "mx-out-3.example.net")


class World:
    """What a daemon would know."""

    def __init__(self, seed: int = 25, clients: float = 14.0, hostile: bytes | None = None) -> None:
        """clients: number per second. hostile: the text in every line that a client sends and in other outside text."""
        self.random = random.Random(seed)
        self.time = START
        self.started = START - 266_000.0
        self.clients = clients
        self.hostile = hostile
        self.bypass_until: float | None = None
        self.stress = False
        self.missing: list[int] = []
        self.conditions: list[Map] = []
        self.cluster: Map | None = None  # what differs from `cluster_status`; None: there is no cluster
        self.asked, self.found = 131_041, 120_422
        self.counts: Counter[str] = Counter({"connect": 3_812_004, "cached": 2_204_118, "passed": 301_544})
        self.counts.update(handed_off=2_460_377, pregreet=702_133, pipelining=21_877, non_smtp_command=9_120)
        self.counts.update(bare_newline=4_415, hangup=402_318, denylisted=18_224, allowlisted=12_001, listed=633_018)
        self.counts.update(rejected=924_317)
        self.events: list[Map] = []
        self.news: list[Map] = []  # those that were not sent to followers yet
        self.sessions: dict[int, Map] = {}
        self.lists: dict[str, Counter[str]] = {
            name: Counter(asked=700_000 + 13 * at, listed=90_000 // (at + 1), unique=7_000 // (at + 1))
            for at, name in enumerate(LISTS)
        }
        self.cache: dict[str, Map] = {
            address: {
                "pregreet": START + 5e4 + 977.0 * at,
                "dnsbl": START + 700.0 * at - 900.0,
                "pipelining": "disabled",
            }
            for at, address in enumerate(KNOWN)
        }
        self.warnings: list[Map] = [
            {"time": START - 90_000.0, "text": "dnsbl.resolvers: 127.0.0.53: no answer for 5 s, using the next one"},
            {"time": START - 412.0, "text": "dead.example.org: 20 questions in a row without an answer"},
            {"time": START - 31.0, "text": "b.barracudacentral.org: answers take longer than the greet wait"},
        ]
        if hostile is not None:
            self.warnings.append({"time": START, "text": self.bad})
            self.conditions.append({"kind": self.bad, "since": START, "text": self.bad, "remedy": self.bad})
            self.cluster = dict.fromkeys(("server", "role", "name", "problem"), self.bad)
            self.cluster |= {
                "ignored": {self.bad: 7},
                "peers": [{"name": self.bad, "seen": START, "version": self.bad}],
            }
        self._session = 0
        self._sequence: Counter[int] = Counter()
        self._due: list[tuple[float, int, Map]] = []
        self._order = 0

    @property
    def bad(self) -> str:
        """The hostile bytes as a text that the daemon decoded."""
        return (self.hostile or b"").decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()

    def said(self, text: str) -> bytes:
        return text.encode() if self.hostile is None else self.hostile

    def cluster_status(self) -> Map | None:
        """What the status says about the cluster."""
        if self.cluster is None:
            return None
        usual = {
            "running": True,
            "connected": True,
            "since": self.started + 61.0,
            "server": "192.0.2.9:6379",
            "role": "primary",
            "name": "mx1",
            "round_trip": 0.0004,
            "asked": self.asked,
            "found": self.found,
            "ended": self.found - 12,
            "late": 3,
            "stored": 301_544,
            "ignored": {"deleted": 4},
            "deletions": 2,
            "peers": [
                {"name": name, "seen": self.time - age, "version": "0.1.0", "away": age > 60} for name, age in PEERS
            ],
        }
        return {**usual, **self.cluster}

    def advance(self, seconds: float) -> None:
        """Let time pass; clients come, talk and go."""
        end = self.time + seconds
        while True:
            gap = self.random.expovariate(self.clients * (1.6 if int(self.time) % 40 < 12 else 0.7))
            if self.time + gap > end:
                break
            self.time += gap
            self._come()
            self._happen(self.time)
        self.time = end
        self._happen(end)
        self.events, self.news = self.events[-20_000:], self.news[-20_000:]

    def _come(self) -> None:
        names, weights = zip(*PROFILES, strict=True)
        profile = self.random.choices(names, weights)[0]
        if profile == "known":
            address = self.random.choice(KNOWN)
        else:
            net = self.random.choices(BOT_NETS, (6, 3, 1))[0]
            address = f"{net}.{int(self.random.triangular(2, 250, 40))}"
            if self.random.random() < 0.04:
                address = f"2001:db8:{self.random.randrange(9):x}:{self.random.randrange(0xFFFF):x}::25"
        self.visit(profile, address)

    def visit(self, profile: str, address: str) -> int:
        """A client connects; return its session."""
        self._session += 1
        chance = self.random
        session = {
            "worker": 1 + hash_of(address) % 2,
            "session": self._session,
            "address": address,
            "port": chance.randrange(32768, 60999),
            "stage": "greet",
            "failed": [],
            "score": None,
            "command": b"",
            "name": f"mx{self._session}.example.net" if profile == "known" else "",
            "begins": self.time,
        }
        if self.hostile is not None:
            session["name"] = self.bad
        self.sessions[self._session] = session

        def later(delay: float, kind: str, **what: Any) -> None:
            self._order += 1
            heapq.heappush(self._due, (self.time + delay, self._order, {"kind": kind, "of": self._session, **what}))

        hello = self.said(f"EHLO {chance.choice(EHLO)}\r\n")
        later(0, "connect", number=25)
        if profile == "known":
            later(0.0002, "cached", stage="queued")
            later(0.001, "handed_off", number=0.0008, stage="handoff")
            later(chance.uniform(2, 20), "disconnect", number=9.1)
            return self._session
        if profile == "denied":
            later(0.0002, "denylisted", failed="denylisted")
            later(0.0003, "reply", text=self.said("521 5.3.2 Service currently unavailable\r\n"))
            later(0.0004, "disconnect", number=0.0004)
            return self._session
        later(0.0003, "greet", number=6.0)
        listed = profile in ("listed", "pregreet", "pipeline") and chance.random() < 0.8
        score = 0
        for name, (weight, p50, _, state) in LISTS.items():
            if state == "failing":
                later(5.0, "list_failed", list=name, number="timeout")
            elif weight > 0 and listed and chance.random() < 0.55:
                score += weight
                later(p50, "listed", list=name, number=f"127.0.0.{chance.choice((2, 4, 10, 11))}")
        if profile == "silent":
            later(chance.uniform(1, 6), "hangup", number=3.2)
            later(6, "disconnect", number=6.0)
            return self._session
        if profile in ("pregreet", "http"):
            text = hello if profile == "pregreet" else self.said("GET / HTTP/1.1\r\nHost: 192.0.2.25\r\n")
            later(chance.uniform(0.05, 1.4), "pregreet", number=len(text), text=text, failed="pregreet")
        later(6.0, "rank", number=score, score=score, **({"failed": "dnsbl"} if score >= 3 else {}))
        if profile in ("pregreet", "http", "listed"):
            later(6.001, "reply", text=self.said(f"550 5.7.1 Service unavailable; client [{address}] blocked\r\n"))
            later(6.002, "disconnect", number=6.0)
            return self._session
        later(6.001, "dialogue", stage="dialogue")
        later(6.2, "command", text=hello)
        wait = 6.3 + chance.uniform(0.2, 25)
        if profile == "pipeline":
            later(wait, "pipelining", text=self.said("MAIL FROM:<a@example.com>\r\nRCPT TO:<"), failed="pipelining")
        elif profile == "newline":
            later(wait, "bare_newline", text=self.said("MAIL FROM:<bob@example.org>\n"), failed="bare_newline")
        elif profile == "nonsmtp":
            later(wait, "non_smtp_command", text=self.said("Subject: hi there\r\n"), failed="non_smtp_command")
        later(wait + 0.1, "command", text=self.said("MAIL FROM:<newsletter@example.net> SIZE=20731\r\n"))
        later(wait + 0.2, "command", text=self.said("RCPT TO:<postmaster@example.com>\r\n"))
        if profile == "new":
            later(wait + 0.2, "passed", number="new")
        later(wait + 0.3, "reply", text=self.said("450 4.3.2 Service currently unavailable\r\n"))
        later(wait + 0.9, "disconnect", number=wait + 0.9)
        return self._session

    def _happen(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            time, _, what = heapq.heappop(self._due)
            session = self.sessions.get(what["of"])
            if session is None:
                continue
            kind = what["kind"]
            self.counts[kind] += 1
            session["stage"] = what.get("stage", session["stage"])
            session["score"] = what.get("score", session["score"])
            if "failed" in what:
                session["failed"] = [*session["failed"], what["failed"]]
            if kind == "command":
                session["command"] = what["text"]
            if kind in ("listed", "list_failed"):
                self.lists[what["list"]]["listed" if kind == "listed" else "timed_out"] += 1
            if kind == "greet":
                self.asked += 1
                self.found += session["session"] % 3 > 0
                for counter in self.lists.values():
                    counter["asked"] += 1
            if kind == "passed":
                self.cache[session["address"]] = {"pregreet": time + 2_592_000.0, "dnsbl": time + 3600.0}
            worker = session["worker"]
            self._sequence[worker] += 1
            self.news.append(
                {
                    **{key: session[key] for key in ("worker", "session", "address", "port", "stage", "score")},
                    "failed": list(session["failed"]),
                    "sequence": self._sequence[worker],
                    "time": time,
                    "kind": kind,
                    "list": what.get("list"),
                    "number": what.get("number"),
                    "text": what.get("text"),
                }
            )
            self.events.append(self.news[-1])
            if kind == "disconnect":
                self.counts["rejected"] += bool(session["failed"])
                del self.sessions[what["of"]]


def hash_of(address: str) -> int:
    """The same in every process."""
    return sum(address.encode())
