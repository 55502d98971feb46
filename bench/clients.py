"""The load generator and the receiver of hand-offs, as processes of one row."""

import contextlib
import ipaddress
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.programs import BenchError
from bench.server import Server

KNOWN_FIRST = "127.1.0.1"
_NEW_FIRST = ipaddress.IPv4Address("127.16.0.1")
_HELD_FIRST = ipaddress.IPv4Address("127.8.0.1")
_HOLD_SECONDS = 900


@dataclass(frozen=True)
class ClientGroup:
    """Clients of one kind: `count` in total, `concurrent` open at a time, `rate` started per second (0: no limit).

    Clients that send mail send `messages` of `size` bytes each.
    """

    kind: str
    count: int
    concurrent: int
    rate: int = 0
    sources: int = 200
    first: str = KNOWN_FIRST
    seconds: int = 120
    size: int = 0
    messages: int = 0


def new(screener: Server, kind: str, count: int, concurrent: int, rate: int) -> ClientGroup:
    """Clients with addresses that the screener has not seen before."""
    first = str(_NEW_FIRST + screener.new)
    screener.new += count
    return ClientGroup(kind, count, concurrent, rate, sources=count, first=first)


def held(kind: str, count: int, before: int = 0) -> ClientGroup:
    """Clients that stay, each with its own address; no more connect at a time than a listen queue can hold.

    before: how many are held already, by other groups.
    """
    first = str(_HELD_FIRST + before)
    return ClientGroup(kind, count, 64 if kind == "silent" else count, 4000, sources=count, first=first)


def load(group: ClientGroup, screener: Server, program: Path) -> dict[str, Any]:
    """Run the clients until all have ended or time is over; return what was counted. BenchError: it failed."""
    try:
        result = subprocess.run(
            _command(group, screener, program, hold=0),
            capture_output=True,
            text=True,
            check=False,
            timeout=group.seconds + 30,
        )
    except subprocess.TimeoutExpired:
        raise BenchError("load generator: no result in time") from None
    if result.returncode != 0:
        raise BenchError(f"load generator: {result.stderr.strip()}")
    outcome: dict[str, Any] = json.loads(result.stdout)
    return outcome


def check(outcome: dict[str, Any], screener: Server, refused: int = 0) -> None:
    """BenchError unless every client had the conversation that its kind is for, and `refused` of them a 5xx."""
    count = outcome["count"]
    for bad in ("busy", "failed"):
        if outcome[bad]:
            raise BenchError(f"{screener.name}: {outcome[bad]} of {count} clients: {bad}")
    if outcome["complete"] != count:
        raise BenchError(f"{screener.name}: {outcome['complete']} of {count} clients had their conversation")
    if outcome["refused"] != refused:
        raise BenchError(f"{screener.name}: {outcome['refused']} of {count} clients were refused, not {refused}")


@contextlib.contextmanager
def holding(group: ClientGroup, screener: Server, program: Path) -> Iterator[None]:
    """Hold the clients. BenchError: not all got as far as they should, or some had left at the end."""
    command = _command(group, screener, program, hold=_HOLD_SECONDS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said:
                raise BenchError(f"load generator: ended with {process.wait()}")
            check(json.loads(said), screener)
            yield
            process.stdin.close()
            said = process.stdout.readline()
            if not said or json.loads(said)["left"]:
                raise BenchError(f"{screener.name}: the held clients did not stay: {said.strip() or 'load ended'}")
        finally:
            process.kill()


@contextlib.contextmanager
def receiver(program: Path, path: Path) -> Iterator[None]:
    """Receive hand-offs. BenchError: a hand-off was malformed, or its client had left before it was greeted."""
    process = subprocess.Popen([program, path], stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 5
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the receiver of the hand-off does not listen on {path}")
            time.sleep(0.01)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        taken = json.loads(process.communicate(timeout=10)[0])
        path.unlink(missing_ok=True)
    if taken["bad"]:
        raise BenchError(f"{taken['bad']} hand-offs were malformed")


def _command(group: ClientGroup, screener: Server, program: Path, *, hold: int) -> list[str]:
    values = {
        "port": screener.port,
        "kind": group.kind,
        "count": group.count,
        "concurrent": group.concurrent,
        "first": group.first,
        "sources": group.sources,
        "rate": group.rate,
        "seconds": group.seconds,
        "hold": hold,
        "size": group.size,
        "messages": group.messages,
    }
    return [str(program), *(f"{name}={value}" for name, value in values.items())]
