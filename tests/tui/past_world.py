"""What a simulated daemon has recorded: sessions of every minute of three days, the same in every run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

from tui.world import BOT_NETS, EHLO, KNOWN, START, Map

MINUTE = 60
FIRST = int(START) // MINUTE * MINUTE - 3 * 86_400
WAVE = int(START) // MINUTE * MINUTE - 2 * 3600 - 13 * MINUTE
"""A minute with very many rejected clients, and the one after it."""
BOT = "192.0.2.77"
"""Comes in the first minute of the wave, and has come twice before."""
COUNT_BITS = 12


class Recorded:
    """hostile: the HELO name of every client. `end` is the time until which sessions are recorded."""

    def __init__(self, hostile: bytes | None = None) -> None:
        self.hostile = hostile
        self.minute = cache(self._minute)

    def sums(self, since: float, until: float, step: int, end: float) -> list[Map]:
        """For `history.minutes`."""
        found: dict[int, Map] = {}
        for at in minutes(since, until, end):
            time = at - (at - int(since)) % step
            sums = found.setdefault(time, {"time": float(time), "outcomes": Counter(), "cached": 0})
            for session in self.minute(at):
                sums["outcomes"][session["outcome"]] += 1
                sums["cached"] += "cached" in session["marks"]
        return [{**each, "outcomes": dict(each["outcomes"])} for each in found.values() if each["outcomes"]]

    def sessions(self, since: float, until: float, end: float, match: Callable[[Map], bool]) -> Iterator[Map]:
        """The newest first."""
        for at in reversed(minutes(since, until, end)):
            yield from (each for each in reversed(self.minute(at)) if match(each))

    def _minute(self, at: int) -> list[Map]:
        chance = random.Random(at)
        usual = 9 + at // 3600 % 24 // 3
        rows = [self._session(chance, at) for _ in range(chance.randrange(usual // 2, usual * 2))]
        if at in (WAVE, WAVE + MINUTE):
            rows += [self._bot(chance, at, f"{BOT_NETS[0]}.{chance.randrange(2, 250)}") for _ in range(130)]
        if at in (WAVE, WAVE - 3600, WAVE - 90_000):
            rows.append(self._bot(chance, at, BOT))
        rows.sort(key=lambda row: row["ended"])
        for number, row in enumerate(rows):
            row["id"] = (int(row["ended"] * 1e6) << COUNT_BITS) + number
        return rows

    def _session(self, chance: random.Random, at: int) -> Map:
        kind = chance.choices(("known", "bot", "new", "left", "relayed"), (50, 22, 12, 8, 8))[0]
        if kind == "bot":
            return self._bot(chance, at, f"{chance.choice(BOT_NETS)}.{chance.randrange(2, 250)}")
        address = chance.choice(KNOWN) if kind in ("known", "relayed") else f"198.51.100.{chance.randrange(2, 250)}"
        row = self._row(chance, at, address, chance.uniform(0.01, 9.0))
        match kind:
            case "known":
                row |= {"outcome": "handed_off", "stage": "handoff", "marks": ["cached", "passed"]}
            case "relayed":
                accepted = chance.random() < 0.9
                row |= {
                    "outcome": "relayed", "stage": "relay", "marks": ["cached", "passed", "esmtp"], "tls": "1.3",
                    "mta_reply": 250 if accepted else 554, "mta_accepted": int(accepted),
                    "mta_rejected": int(not accepted), "recipients": 1,
                }  # fmt: skip
            case "new":
                row |= {
                    "outcome": "deferred", "stage": "dialogue", "verdict": 450, "reply": 221, "score": 0,
                    "needed": ["pregreet", "dnsbl"], "made": ["pregreet", "dnsbl"], "marks": ["new", "passed", "esmtp"],
                    "commands": 4, "recipients": 1, "tls": "unused",
                }  # fmt: skip
            case _:
                row |= {"outcome": "left", "needed": ["pregreet", "dnsbl"], "made": ["pregreet"], "marks": ["hung_up"]}
        return row

    def _bot(self, chance: random.Random, at: int, address: str) -> Map:
        weight = chance.choice((3, 5, 8))
        row = self._row(chance, at, address, 6.0 + chance.random())
        return row | {
            "outcome": "rejected", "stage": "dialogue", "verdict": 550, "reply": 550, "tls": "none",
            "needed": ["pregreet", "dnsbl", "score"], "made": ["pregreet", "dnsbl", "score"],
            "found": ["pregreet", "dnsbl"], "failed": ["dnsbl"], "marks": ["lists_judged", "turned_away"],
            "evidence": ["helo_not_qualified", "seen_network"], "score": weight + 3, "threshold": 3,
            "parts": {"dnsbl": weight, "helo_not_qualified": 1, "seen_network": 2},
            "texts": {
                "helo_not_qualified": f"HELO name is not fully qualified: {row['helo'].decode(errors='replace')}",
                "seen_network": "enough neighbors in its /24 had committed offenses",
            },
            "commands": 3, "recipients": 1,
            "lists": [
                {"list": "zen.spamhaus.org", "state": "listed", "answers": ["127.0.0.4"], "weight": 3},
                {"list": "bl.spamcop.net", "state": "listed", "answers": ["127.0.0.2"], "weight": weight - 3},
                {"list": "dead.example.org", "state": "silent", "answers": [], "weight": 0},
            ],
        }  # fmt: skip

    def _row(self, chance: random.Random, at: int, address: str, lasted: float) -> Map:
        ended = at + chance.randrange(60_000) / 1000
        helo = chance.choice(EHLO).encode() if self.hostile is None else self.hostile
        return {
            "address": address, "began": ended - lasted, "ended": ended, "lasted": lasted, "port": 51234,
            "server": "2001:db8:1::1" if ":" in address else "198.51.100.2", "server_port": 25, "worker": 1,
            "stage": "greet", "helo": helo, "marks": [], "tls": "none",
        }  # fmt: skip


def minutes(since: float, until: float, end: float) -> range:
    """The minutes of a span that are recorded."""
    last = min(until, end)
    return range(max(int(since), FIRST) // MINUTE * MINUTE, max(int(last), 0), MINUTE)
