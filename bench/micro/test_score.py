"""Scorers of the session, and what the history notes about a client's program and system."""

import struct
from pathlib import Path

import pytest

from bench.micro.conftest import Measure
from fastscreen.config import load
from fastscreen.core import Policy, dialect_of, evidence_in, syn_in
from fastscreen.screening import policy

COUNT = 100_000
PEER, SERVER = "192.0.2.1", "198.51.100.7"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    file = tmp_path_factory.mktemp("score") / "fastscreen.toml"
    file.write_text('hostname = "mx1.provider-host.se"\n')
    return policy.build(load(Path(file)), "/nowhere", print).policy


def test_helo(measure: Measure, settings: Policy) -> None:
    name = b"host-192-0-2-1.dyn.provider-host.se"
    found = measure(
        "scorers of a HELO name",
        COUNT,
        lambda: evidence_in("hello", name, PEER, SERVER, settings, times=COUNT),
        aim=3.3e6,
    )
    assert found == ["helo_client_address"]


def test_no_tls(measure: Measure, settings: Policy) -> None:
    found = measure(
        "scorer no_tls", COUNT, lambda: evidence_in("mail", b"", PEER, SERVER, settings, announced=True, times=COUNT),
        aim=3.3e6,
    )  # fmt: skip
    assert found == ["no_tls"]


def test_rcpt_many(measure: Measure, settings: Policy) -> None:
    found = measure(
        "scorer rcpt_many", COUNT,
        lambda: evidence_in("recipients", b"", PEER, SERVER, settings, recipients=20, times=COUNT), aim=3.3e6,
    )  # fmt: skip
    assert found == ["rcpt_many"]


def test_rcpt_rejected(measure: Measure, settings: Policy) -> None:
    found = measure(
        "scorer rcpt_rejected", COUNT,
        lambda: evidence_in("replies", b"", PEER, SERVER, settings, answered=4, refused=2, times=COUNT), aim=3.3e6,
    )  # fmt: skip
    assert found == ["rcpt_rejected"]


def test_dialect(measure: Measure) -> None:
    lines = [
        (1500, False, line)
        for line in (
            b"EHLO mail.provider-host.se",
            b"MAIL FROM:<sender@provider-host.se> SIZE=12345 BODY=8BITMIME",
            b"RCPT TO:<recipient@our-domain.se>",
            b"QUIT",
        )
    ]
    number = measure("dialect: a command", 4 * COUNT, lambda: dialect_of(lines, COUNT), aim=3.3e6)
    assert number


def test_syn(measure: Measure) -> None:
    """Without the system call."""
    options = b"\2\4\5\xb4\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7"
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 60, 1, 0x4000, 64, 6, 0) + bytes(8)
    packet += struct.pack("!HHIIBBHHH", 40000, 25, 1, 0, 0xA0, 2, 64240, 0, 0) + options
    found = measure("SYN packet: read headers and options", COUNT, lambda: syn_in(packet, COUNT), aim=1e6)
    assert found[0]
