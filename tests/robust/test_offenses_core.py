"""When the core asks the memory of offenses, and what it makes of the answer: once, and only for clients it tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fastscreen.core import TESTS, OffenseRules, offense_keys, write_record
from fastscreen.offenses.store import learn
from robust.historycore import Client, Core

CLIENT = "127.1.0.1"
PACKED = bytes([127, 1, 0, 1])
RCPT = (b"EHLO mail.provider-host.se", b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>")
POOR = f"550 5.7.1 Service unavailable; client [{CLIENT}] blocked: poor reputation\r\n".encode()
LATER = b"450 4.3.2 Service currently unavailable\r\n"
OURS = {"seen_network": 3, "seen_address": 2}


class Memory:
    """Records in a dictionary, and who has asked for them."""

    def __init__(self) -> None:
        self.records: dict[bytes, Any] = {}
        self.get = self.records.get
        self.asked: list[bytes] = []
        self.batches = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def record(self, key: bytes) -> Any:
        self.asked.append(key)
        found = self.records.get(key)
        if isinstance(found, Exception):
            raise found
        return found

    def end_batch(self) -> None:
        self.batches += 1

    def offend(self, *last: int) -> None:
        found = {bytes([127, 1, 0, number]): (256, 0) for number in last}
        learn(self, found, int(time.time()) // 86400, OffenseRules())


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def core_with(folder: Path, opened: ExitStack, memory: Memory, **score: int) -> Core:
    weights = {"memory": "/var/lib/fastscreen/offenses", **(score or OURS)}
    core = Core(folder, opened, {"score": {"action": "enforce", **weights}, "dnsbl": {"threshold": 3}})
    core.screener.use_memory(memory)
    return core


def recipient(client: Client) -> bytes:
    """The reply to a recipient."""
    client.until(lambda got: b"220 mx.test" in got)
    return client.ask(*RCPT)


def test_new_client_is_looked_up_once(folder: Path, opened: ExitStack) -> None:
    memory = Memory()
    core = core_with(folder, opened, memory)
    memory.offend(2, 3, 4)
    client = core.connect()
    assert recipient(client) == POOR
    assert client.ask(b"RSET", *RCPT[1:]) == POOR
    client.ask(b"QUIT")
    client.hang_up()
    assert memory.asked == [offense_keys(PACKED)[0][0]]
    row = core.row()
    assert (row["evidence"], row["score"], row["outcome"]) == (("seen_network",), 3, "rejected")


def test_weights_are_added(folder: Path, opened: ExitStack) -> None:
    memory = Memory()
    core = core_with(folder, opened, memory, seen_network=1, seen_address=1, helo_reserved=1)
    memory.offend(1, 2, 3, 4)
    client = core.connect()
    client.until(lambda got: b"220 mx.test" in got)
    assert client.ask(b"EHLO localhost", *RCPT[1:]).startswith(b"550 5.7.1")
    client.hang_up()
    row = core.row()
    assert (row["evidence"], row["score"]) == (("helo_reserved", "seen_address", "seen_network"), 3)


def test_scorers_without_a_weight_do_not_speak(folder: Path, opened: ExitStack) -> None:
    memory = Memory()
    core = core_with(folder, opened, memory, seen_address=2)
    memory.offend(1, 2, 3, 4)
    client = core.connect()
    assert recipient(client) == LATER
    client.hang_up()
    row = core.row()
    assert (row["evidence"], row["score"]) == (("seen_address",), 2)


@pytest.mark.parametrize("why", ["allow list", "pass", "no weight", "other weight"])
def test_nobody_is_asked(folder: Path, opened: ExitStack, why: str) -> None:
    memory = Memory()
    weights = {"no weight": {"seen_min": 1}, "other weight": {"helo_reserved": 1}}.get(why, OURS)
    core = core_with(folder, opened, memory, **weights)
    memory.offend(2, 3, 4)
    if why == "pass":
        core.stored[PACKED] = write_record([int(time.time()) + 1000] * len(TESTS))
    client = core.connect("127.8.0.1" if why == "allow list" else CLIENT)
    if why == "other weight":
        recipient(client)
    elif why == "no weight":
        client.until(lambda got: b"220 mx.test" in got)  # from the dummy engine, because there is no MTA
    else:
        client.rest()
    client.hang_up()
    core.end()
    assert memory.asked == []


def test_a_pass_of_the_score_test_wins_while_another_test_is_due(folder: Path, opened: ExitStack) -> None:
    memory = Memory()
    score = {"action": "enforce", "memory": "/var/lib/fastscreen/offenses", **OURS}
    core = Core(folder, opened, {"score": score, "dnsbl": {"threshold": 3}, "deep": {"pipelining": "enforce"}})
    core.screener.use_memory(memory)
    memory.offend(1, 2, 3, 4)
    later = int(time.time()) + 1000
    core.stored[PACKED] = write_record([1 if test.key == "pipelining" else later for test in TESTS])
    client = core.connect()
    assert recipient(client) == LATER
    client.hang_up()
    assert "evidence" not in core.row()
    assert memory.asked == []


@pytest.mark.parametrize("bad", [RuntimeError("broken"), "text", 7, b"", b"\x01", b"\x01\x01\xff\xff", b"\xff" * 3000])
def test_memory_that_fails_costs_no_client(folder: Path, opened: ExitStack, bad: Any) -> None:
    memory = Memory()
    core = core_with(folder, opened, memory)
    memory.records[offense_keys(PACKED)[0][0]] = bad
    client = core.connect()
    assert recipient(client) == LATER
    client.hang_up()
    assert "evidence" not in core.row()


def test_batches_are_ended(folder: Path, opened: ExitStack) -> None:
    memory = Memory()
    core = core_with(folder, opened, memory)
    core.run()
    assert memory.batches > 0
    core.screener.use_memory(None)
    before = memory.batches
    core.run()
    assert memory.batches == before
