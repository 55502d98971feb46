"""What a recorded session still says about the evidence for its score."""

from __future__ import annotations

from typing import Any

import pytest
from historyfiles import SETTINGS, row

from fastscreen.core import SCORERS, history_read
from fastscreen.history.evidence import evidence_texts
from fastscreen.history.session import Session, named
from fastscreen.history.wording import details


def session(address: str = "192.0.2.1", **fields: Any) -> Session:
    found = history_read(*row(1, address, **fields)[:3])
    assert found is not None
    return named(found, SETTINGS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"evidence": ("helo_reserved",), "name": b"local\x1bhost"}, r"HELO name is reserved: local\033host"),
        ({"evidence": ("helo_ours",)}, "HELO name is ours"),
        ({"evidence": ("no_tls",)}, "TLS not used although it was announced"),
        ({"evidence": ("rcpt_many",), "recipients": 31}, "too many recipients: 31 recipients"),
        (
            {"evidence": ("rcpt_rejected",), "mta_refused": 3, "mta_recipients": 4},
            "the MTA rejected 3 of 4 recipients",
        ),
        ({"evidence": ("seen_address",)}, "its address had committed offenses"),
        ({"evidence": ("seen_network",)}, "enough neighbors in its /24 had committed offenses"),
        ({"evidence": ("seen_as",)}, "enough addresses of its AS had committed offenses"),
    ],
)
def test_text(fields: dict[str, Any], expected: str) -> None:
    assert list(evidence_texts(session(**fields)).values()) == [expected]


def test_ipv6_and_every_scorer() -> None:
    keys = tuple(scorer.key for scorer in SCORERS[1:])
    found = evidence_texts(session("2001:db8:1:2::3", evidence=keys))
    assert tuple(found) == keys
    assert all(found.values())
    assert found["seen_network"] == "enough neighbors in its /64 or /48 had committed offenses"


def test_each_part_has_a_line_in_the_history() -> None:
    lines = list(details(session(evidence=("helo_address", "seen_as"), score=2, name=b"[192.0.2.9]"), 3))
    assert "helo_address +2: HELO name is an address: [192.0.2.9]" in lines
    assert "seen_as: enough addresses of its AS had committed offenses" in lines  # its weight was 0
