"""fastscreen explain."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from commands.conftest import Ask, Server
from fastscreen.cli.explain import OUTCOMES, VERDICTS
from fastscreen.control import verdict
from fastscreen.core import HISTORY_OUTCOMES

NOW = 1763848061.0
LISTED: dict[str, Any] = {
    "address": "192.0.2.1",
    "time": NOW,
    "verdict": "rejected",
    "reply": "550 5.7.1 Service unavailable; client [192.0.2.1] blocked using dq.example",
    "wait": 6,
    "tests": ["pregreet", "dnsbl"],
    "steps": [
        {"step": "access", "text": "access.list does not decide"},
        {"step": "cache", "text": "no longer valid: pregreet, dnsbl"},
        {"step": "greet", "text": "greet wait: 6 s of silence, 2 lists are queried"},
        {"step": "dnsbl", "text": "score 5 reaches dnsbl.threshold 3"},
        {"step": "dialogue", "text": "dummy SMTP engine: every recipient is rejected"},
    ],
    "cache": {
        "pregreet": {"until": NOW - 3600, "valid": False, "enabled": True},
        "dnsbl": {"until": "new", "valid": False, "enabled": True},
        "bare_newline": {"until": NOW + 3600, "valid": True, "enabled": False},
    },
    "lists": [
        {
            "list": "dq.example",
            "state": "listed",
            "answers": ["127.0.0.2"],
            "weight": 5,
            "seconds": 0.01,
            "cached": None,
        },
        {
            "list": "allow.example",
            "state": "failed",
            "answers": [],
            "weight": 0,
            "cached": {"state": "not_listed", "answers": []},
        },
    ],
    "score": 5,
}


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)


def test_in_the_order_of_decision(server: Server, ask: Ask) -> None:
    daemon = server({"explain": LISTED})
    code, printed, _ = ask("explain", "192.0.2.1")
    assert code == 0
    assert (
        printed
        == """\
192.0.2.1: rejected
  final reply: 550 5.7.1 Service unavailable; client [192.0.2.1] blocked using dq.example

access    access.list does not decide
cache     no longer valid: pregreet, dnsbl
          pregreet          expired 2025-11-22 20:47:41 (1 h ago)
          dnsbl             not passed yet
          bare_newline      passed, valid until 2025-11-22 22:47:41 (1 h more); the test is disabled
greet     greet wait: 6 s of silence, 2 lists are queried
dnsbl     score 5 reaches dnsbl.threshold 3
          dq.example                  listed 127.0.0.2, +5
          allow.example               failed; fastscreen uses the earlier answer: not listed
dialogue  dummy SMTP engine: every recipient is rejected
"""
    )
    assert daemon.asked == [{"do": "explain", "address": "192.0.2.1"}]


def test_a_list_that_is_out_is_told_as_that(server: Server, ask: Ask) -> None:
    """Else a score of 0 stands above a list that has the client."""
    out = {"list": "dq.example", "state": "listed", "answers": ["127.0.0.2"], "weight": 0, "counted": False}
    server({"explain": {**LISTED, "lists": [{**out, "cached": {"state": "not_listed", "answers": []}}]}})
    said = "listed 127.0.0.2; the list is disabled: it is not queried for clients, and ignored"
    assert f"          dq.example                  {said}\n" in ask("explain", "192.0.2.1")[1]


def test_a_suspect_list_is_told_as_that(server: Server, ask: Ask) -> None:
    suspect = {"list": "dq.example", "state": "listed", "answers": ["127.0.0.2"], "weight": 0, "counted": False}
    server({"explain": {**LISTED, "lists": [{**suspect, "suspect": True, "cached": None}]}})
    said = "listed 127.0.0.2; the list is suspect: clients that it lists are deferred until it has been probed"
    assert f"          dq.example                  {said}\n" in ask("explain", "192.0.2.1")[1]


def test_what_was_not_looked_at_is_told_as_that(server: Server, ask: Ask) -> None:
    steps = [{"step": "access", "text": "permit_mynetworks: permit"}, {"step": "handoff", "text": "handed off at once"}]
    server({"explain": {**LISTED, "verdict": "allowlisted", "reply": None, "steps": steps, "cache": None}})
    printed = ask("explain", "192.0.2.1")[1].splitlines()
    assert printed[0] == "192.0.2.1: handed off to the mail server at once, untested"
    assert printed[4] == "dnsbl     not used in this case; its content:"
    assert printed[5].endswith("listed 127.0.0.2, +5")
    assert not any(line.startswith("cache") for line in printed)


def test_what_the_cluster_knows(server: Server, ask: Ask) -> None:
    known = {
        "host": "mx2",
        "stored": NOW - 3600,
        "passed_until": {"pregreet": NOW + 3600, "dnsbl": NOW + 60, "pipelining": "disabled"},
        "problem": "",
    }
    steps = [
        {"step": "cache", "text": "no entry: a new client"},
        {"step": "cluster", "text": "known at mx2: handed off as soon as the cluster has answered (PASS OLD)"},
    ]
    server({"explain": {**LISTED, "verdict": "cached", "steps": steps, "cache": None, "lists": [], "cluster": known}})
    assert ask("explain", "192.0.2.1")[1].splitlines()[3:] == [
        "cache     no entry: a new client",
        "cluster   known at mx2: handed off as soon as the cluster has answered (PASS OLD)",
        "          known at mx2 since 2025-11-22 20:47:41",
        "          pregreet          passed, valid until 2025-11-22 22:47:41 (1 h more)",
        "          dnsbl             passed, valid until 2025-11-22 21:48:41 (1 min more)",
    ]


def test_what_the_cluster_does_not_know(server: Server, ask: Ask) -> None:
    """Its step says why; where it was not asked, nothing is to be said."""
    nothing: dict[str, Any] = {"host": "", "stored": None, "passed_until": {}, "problem": "not known to the cluster"}
    server({"explain": {**LISTED, "cluster": nothing}})
    assert "cluster" not in ask("explain", "192.0.2.1")[1]


def test_the_latest_recorded_sessions(server: Server, ask: Ask) -> None:
    sessions: list[dict[str, Any]] = [
        {"id": 3, "address": "192.0.2.1", "ended": NOW - 60, "outcome": "rejected", "verdict": 550, "score": 5,
         "parts": {"dnsbl": 3, "seen_network": 2}, "failed": ["dnsbl", "bare_newline"], "helo": b"x\x1b[2J"},
        {"id": 2, "address": "192.0.2.1", "ended": NOW - 3600, "outcome": "relayed", "mta_reply": 554, "weight": 10},
        {"id": 1, "address": "192.0.2.1", "ended": NOW - 86400, "outcome": "of tomorrow"},
    ]  # fmt: skip
    server({"explain": {**LISTED, "history": sessions}})
    printed = ask("explain", "192.0.2.1")[1].splitlines()
    at = printed.index("history   its latest recorded sessions:")
    assert printed[at + 1 :] == [
        "          2025-11-22 21:46:41  rejected with 550; score 5 (dnsbl +3, seen_network +2); failed dnsbl, bare "
        "newline; HELO name x\\033[2J",
        "          2025-11-22 20:47:41  relayed to the mail server; the mail server replied 554",
        "          2025-11-21 21:47:41  of tomorrow",
    ]
    json_of = json.loads(ask("explain", "192.0.2.1", "--json")[1])
    assert [each["id"] for each in json_of["history"]] == [3, 2, 1]


@pytest.mark.parametrize(("sessions", "shown"), [([], ["history   no session of this client is recorded"]), (None, [])])
def test_no_recorded_session(server: Server, ask: Ask, sessions: list[Any] | None, shown: list[str]) -> None:
    server({"explain": {**LISTED, "history": sessions}})
    assert [line for line in ask("explain", "192.0.2.1")[1].splitlines() if "history" in line] == shown


def test_every_outcome_has_words() -> None:
    assert set(OUTCOMES) <= set(HISTORY_OUTCOMES)
    assert set(HISTORY_OUTCOMES) - set(OUTCOMES) == {"rejected", "deferred"}, "these are words already"


def test_every_verdict_has_words() -> None:
    text = Path(verdict.__file__).read_text()
    kinds = set(re.findall(r'\bend\("(\w+)"', text)) | {
        name for pair in re.findall(r'kind = "(\w+)".* else "(\w+)"', text) for name in pair
    }
    assert {"ignored", "passed", "rejected", "deferred", "dropped"} <= kinds
    assert kinds == set(VERDICTS)


def test_the_name_is_shown_where_there_is_one(server: Server, ask: Ask) -> None:
    server({"explain": {**LISTED, "name": "mx.example.test"}})
    assert ask("explain", "192.0.2.1")[1].startswith("192.0.2.1 (mx.example.test): rejected\n")


def test_json_and_a_verdict_of_tomorrow(server: Server, ask: Ask) -> None:
    new = {**LISTED, "verdict": "sent to \x1b[2J"}
    server({"explain": new})
    assert json.loads(ask("explain", "192.0.2.1", "--json")[1]) == {**new, "verdict": "sent to \\033[2J"}
    assert ask("explain", "192.0.2.1")[1].startswith("192.0.2.1: sent to \\033[2J\n")


def test_an_address_is_wanted(ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("explain", "mx.example.test")
    assert stopped.value.code == 2
