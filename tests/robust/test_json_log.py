"""The log as JSON, of a real fastscreen that hostile clients talk to."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robust.fakemta import FakeMta
from robust.harness import ADDRESS, COMMAND, GREETING, TEASER, Screener, wait_until

HOSTILE = b'\xff"\\\x00\x1b[31m\xe2\x80\xa8\xe2\x80\xae\xc3(","event":"pass_new","client":"192.0.2.1'
HOSTILE += bytes(range(14, 256))


@pytest.fixture
def screener(folder: Path, mta: FakeMta) -> Iterator[Screener]:
    """Started without the harness, which waits for lines of the text format."""
    deep = {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}
    made = Screener(folder, {"log": {"format": "json"}, "deep": deep})
    with made.output.open("ab") as sink:
        made.process = subprocess.Popen([str(COMMAND), "run", "-c", str(made.config)], stdout=sink, stderr=sink)
    wait_until(lambda: any(one["message"].startswith("daemon started") for one in objects(made)), "fastscreen to start")
    started = next(one["message"] for one in objects(made) if one["message"].startswith("daemon started"))
    made.address = (ADDRESS, int(started.rpartition(":")[2]))
    yield made
    made.process.terminate()
    assert made.process.wait(20) == 0


def objects(screener: Screener) -> list[dict[str, Any]]:
    """Every complete line so far. Raises ValueError if one is not valid JSON or UTF-8."""
    return [json.loads(line.decode("utf-8")) for line in screener.text().split(b"\n")[:-1]]


def test_whatever_clients_say(screener: Screener) -> None:
    with screener.connect("127.1.0.1") as early:
        early.send(b"EHLO " + HOSTILE + b"\r\n")
        early.read()
    with screener.connect("127.1.0.2") as client:
        assert client.read() == TEASER + GREETING
        client.send(b"EHLO x\r\n")
        client.read()
        client.send(b"GET " + HOSTILE + b"\r\n")
        client.read()
    wanted = {("127.1.0.1", "pregreet"), ("127.1.0.2", "non_smtp_command"), ("127.1.0.2", "disconnect")}

    def seen() -> set[tuple[str, str]]:
        return {(one["client"], one["event"]) for one in objects(screener) if "event" in one}

    wait_until(lambda: wanted <= seen(), lambda: str(objects(screener)))
    assert {client for client, _ in seen()} == {"127.1.0.1", "127.1.0.2"}
    for one in objects(screener):
        assert one["message"].isprintable(), one
