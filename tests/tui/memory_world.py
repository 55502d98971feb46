"""What a simulated daemon remembers of offenses: networks with their addresses, the same in every run."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator

from tui.world import START, Map

DAY = 86_400
TODAY = START // DAY * DAY
SEEN_MIN = 3
ENTRIES = 48_211
FEEDBACK: Map = {
    "log": "/var/log/mail.log", "running": True, "lines": 402_113, "accepted": 20_417, "rejected": 310, "spam": 42,
    "unknown": 512, "waiting": 3,
}  # fmt: skip
"""Of a daemon that reads the MTA's log."""


class Remembered:
    """hostile: a text in place of every subject."""

    def __init__(self, hostile: str = "", networks: int = 260) -> None:
        self.hostile = hostile
        self.members: dict[str, list[Map]] = {}
        """By network."""
        self.more = False  # the search goes on
        self.problem = ""  # why nothing is written
        chance = random.Random(18)
        for at in range(networks):
            bad, good = max(1, 40 - at // 4), chance.randrange(12) if at % 3 else chance.randrange(3)
            network = f"198.{51 + at // 200}.{at % 200}.0/24"
            self.members[network] = list(_members(chance, network.removesuffix("0/24"), bad, good))
        self.members["2001:db8:77:5::/64"] = [
            {**each, "subject": f"#{0x5EED0000 + at:08x}"} for at, each in enumerate(_members(chance, "", 9, 1))
        ]
        self.members["2001:db8:77::/48"] = [
            {**each, "subject": f"2001:db8:77:{at + 5:x}::/64"} for at, each in enumerate(_members(chance, "", 7, 2))
        ]

    def status(self) -> Map:
        return {
            "running": True, "problem": self.problem, "entries": ENTRIES, "max_entries": 1_000_000,
            "bytes": 14_200_000, "bad": 3_120, "good": 20_417, "dropped": 0, "lost": 0, "systems": 481_000,
        }  # fmt: skip

    def listed(self, request: Map) -> Map:
        found = self._systems() if request["kind"] == "as" else [self._network(each) for each in self.members]
        if within := request["within"]:
            found = [each for each in found if _is_within(each, within)]
        keys = {
            "worst": lambda each: (each["is_bad"], each["bad_members"]),
            "share": lambda each: (each["bad_members"] >= SEEN_MIN, each["bad_members"] / each["known_members"]),
            "recent": lambda each: (each["last_bad"], each["bad_members"]),
        }
        found.sort(key=keys[request["sort"]], reverse=True)
        page = found[request["start"] : request["start"] + request["limit"]]
        return self._answer(page) | {"found": len(found), "more": self.more}

    def known(self, request: Map) -> Map:
        subject = request["subject"]
        found = [self._network(each) | {"members": self.members[each]} for each in self.members if each == subject]
        return self._answer(found or [each for each in self._systems() if each["subject"] == subject])

    def of_address(self, address: str) -> list[Map]:
        """For `story`."""
        for network, members in self.members.items():
            own = [{**each, "kind": "address"} for each in members if each["subject"] == address]
            if own:
                return [*own, self._network(network)]
        return []

    def delete(self, request: Map) -> Map:
        subject = request["subject"]
        gone = int(self.members.pop(subject, None) is not None)
        for members in self.members.values():
            left = [each for each in members if each["subject"] != subject]
            gone += len(left) < len(members)
            members[:] = left
        return {"deleted": gone}

    def _answer(self, found: list[Map]) -> Map:
        if self.hostile:
            found = [each | {"subject": self.hostile} for each in found]
        return {"reputations": found, "days": 28, "time": START}

    def _network(self, subject: str) -> Map:
        members = self.members[subject]
        bad = sum(each["is_bad"] for each in members)
        return {
            "subject": subject, "kind": "network", "bad_members": bad, "known_members": len(members),
            "is_bad": bad >= SEEN_MIN and 2 * bad >= len(members), "system": _system(subject),
            "last_bad": max((each["last_bad"] for each in members), default=0.0),
            "last_good": max((each["last_good"] for each in members), default=0.0),
        }  # fmt: skip

    def _systems(self) -> list[Map]:
        found: dict[int, Map] = {}
        for subject in self.members:
            network = self._network(subject)
            number = network["system"]
            usual = {"subject": f"AS{number}", "kind": "as", "bad_members": 0, "known_members": 0, "last_bad": 0.0}
            one = found.setdefault(number, usual)
            one["bad_members"] += network["bad_members"]
            one["known_members"] += network["known_members"]
            one["last_bad"] = max(one["last_bad"], network["last_bad"])
        for one in found.values():
            one["is_bad"] = one["bad_members"] >= 10 * SEEN_MIN and 2 * one["bad_members"] >= one["known_members"]
        return list(found.values())


def _members(chance: random.Random, prefix: str, bad: int, good: int) -> Iterator[Map]:
    for at in range(bad + good):
        is_bad = at < bad
        yield {
            "subject": f"{prefix}{at + 2}",
            "bad": round(chance.uniform(1, 5), 2) if is_bad else 0.0,
            "good": 0.25 if is_bad and at % 5 == 0 else 0.0 if is_bad else float(chance.randrange(1, 4)),
            "is_bad": is_bad,
            "last_bad": TODAY - DAY * chance.randrange(20) if is_bad else 0.0,
            "last_good": TODAY - DAY * chance.randrange(20) if not is_bad or at % 5 == 0 else 0.0,
        }


def _system(subject: str) -> int:
    return 64_500 + sum(subject.encode()) % 7


def _is_within(each: Map, within: str) -> bool:
    if within.upper().startswith("AS"):
        return bool(each["system"] == int(within[2:]))
    own, network = ipaddress.ip_network(each["subject"]), ipaddress.ip_network(within)
    return own.version == network.version and own.overlaps(network)
