"""The log of a run: every line is whole, and every connection that was logged has an end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from soak.world import World

_LINE = re.compile(r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d mx postfix/(postscreen|dnsblog|tlsproxy)\[(\d+)\]: (.+)$")
_CLIENT = re.compile(r"\[127\.[\d.]+\]:\d+")
_ENDS = ("PASS", "DISCONNECT", "CONTINUE", "ALLOWLISTED", "DENYLISTED")
_LOST = re.compile(r"(\d+) log lines were lost")


class LogCheck(Struct):
    """connects, ends: lines. since_start: CONNECT lines of the workers since the last restart. open: connections
    without an end, by worker."""

    lines: int = 0
    torn: list[str] = []
    lost: int = 0
    connects: int = 0
    since_start: int = 0
    ends: int = 0
    orphans: list[str] = []
    open: dict[int, int] = {}


def check(world: World, passed: set[str]) -> LogCheck:
    """Read the log. passed: "[ip]:port" of the clients that were handed off: if the first session of a client has just
    passed, its other sessions are handed off without a log line, like by postscreen."""
    found = LogCheck()
    begun: dict[str, int] = {}
    ended: set[str] = set()
    for line in _lines(world.folder / "log"):
        found.lines += 1
        parts = _LINE.match(line)
        if parts is None:
            found.torn.append(line[:200])
            continue
        text, pid = parts[3], int(parts[2])
        if lost := _LOST.search(text):
            found.lost += int(lost[1])
        client = _CLIENT.search(text)
        if parts[1] != "postscreen" or client is None or text.startswith("warning"):
            continue
        if text.startswith("CONNECT from"):
            found.connects += 1
            found.since_start += pid not in world.former
            begun[client[0]] = pid
        elif text.startswith(_ENDS) and " failed: " not in text:
            if begun.pop(client[0], None) is not None:
                found.ends += 1
                ended.add(client[0])
            elif client[0] not in ended:
                found.orphans.append(line[:200])
    found.open = dict(Counter(pid for client, pid in begun.items() if client not in passed))
    return found


def _lines(folder: Path) -> Iterator[str]:
    """Of all log files of the run, the oldest first."""
    files = sorted(folder.glob("log.*"), key=lambda path: float(path.name[4:]))
    for path in [*files, folder / "log"]:
        if path.is_file():
            yield from filter(None, path.read_bytes().decode("latin-1").split("\n"))
