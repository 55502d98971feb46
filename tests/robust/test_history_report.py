"""A day of the demo's clients: the history, the report from the log and a plain count of the log's lines agree."""

import csv
import io
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastscreen.control.client import ask
from fastscreen.control.messages import StatusRequest
from fastscreen.demo import settings
from fastscreen.demo.processes import Processes
from robust.harness import COMMAND, wait_until

SECONDS = 30.0  # of traffic: there is a wave of bots, and senders come back
UNKNOWN = {"no_rcpt", "relay_limit", "tls_failed", "stress", "cleanup", "warning", "other"}
LINE = re.compile(r".{15} \S+ \S+\[\d+\]: (.*)")
BEGINS: dict[str, str | tuple[str, ...]] = {
    "connect": "CONNECT from ",
    "disconnect": "DISCONNECT ",
    "pass_new": "PASS NEW ",
    "pass_old": "PASS OLD ",
    "allowlisted": "ALLOWLISTED ",
    "denylisted": "DENYLISTED ",
    "pregreet": "PREGREET ",
    "dnsbl": "DNSBL ",
    "pipelining": "COMMAND PIPELINING ",
    "non_smtp_command": "NON-SMTP COMMAND ",
    "bare_newline": "BARE NEWLINE ",
    "count_limit": "COMMAND COUNT LIMIT ",
    "time_limit": "COMMAND TIME LIMIT ",
    "hangup": "HANGUP ",
    "reject_rcpt": "NOQUEUE: reject: RCPT ",
    "reject_connect": ("NOQUEUE: reject: CONNECT ", "reject: connect "),
    "continue": "CONTINUE ",
    "evidence": "SCORE from ",
    "listed": "addr ",
}


@pytest.fixture(scope="module")
def traffic() -> Iterator[tuple[Path, Path]]:
    """The log and the history of a demo that is running, once all its sessions have ended."""
    with Processes() as demo:
        demo.watch(SECONDS)
        assert demo._load.stdin is not None
        demo._load.stdin.close()  # which ends the clients
        demo._load.wait()

        def over() -> bool:
            return all(not sum(worker.stages.values()) for worker in ask(demo.control, StatusRequest()).workers)

        wait_until(over, "all sessions to end")
        time.sleep(1.5)  # the recorder is at most a second behind
        yield demo.folder / settings.LOG, demo.folder / "history"


def command(*words: object) -> Any:
    told = subprocess.run([str(COMMAND), *map(str, words)], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    return told.stdout


def test_all_totals_agree(traffic: tuple[Path, Path]) -> None:
    log, history = traffic
    names = ("-c", log.with_name("fastscreen.toml"))  # of the lists
    logged, recorded = (
        json.loads(command("report", "--json", *names, *words)) for words in ((log,), ("--history", history))
    )
    assert recorded["totals"]["connect"] > 400
    assert {kind: count for kind, count in logged["totals"].items() if count and kind not in UNKNOWN} == {
        kind: count for kind, count in recorded["totals"].items() if count
    }
    for key in (
        "rejected", "failed_but_handed_off", "hours", "days", "ranks", "evidence", "clients", "networks",
        "reject_codes", "shadow", "suspect_counts",
    ):  # fmt: skip
        assert recorded[key] == logged[key], key
    del logged["outcomes"]["continue_failed"]  # which a history does not know
    assert recorded["outcomes"] == logged["outcomes"]
    for mine, theirs in zip(recorded["lists"], logged["lists"], strict=True):
        assert mine == theirs
    both = [{network["name"]: network for network in each["top_networks"]} for each in (logged, recorded)]
    assert both[0] == both[1]
    deferred = logged["deferred"]
    for key in ("deferrals", "returned", "median", "delays", "same_network", "same_network_delays"):
        assert recorded["deferred"][key] == deferred[key], key
    assert recorded["deferred"]["never_returned"] == deferred["never_returned"] + deferred["other_network"]
    assert min(logged["outcomes"][key] for key in ("handed_off", "deferred", "rejected", "hung_up")) > 0


def test_a_plain_count_agrees(traffic: tuple[Path, Path]) -> None:
    """Of the lines of the log, by how they begin; and of the sessions that `history` prints."""
    log, history = traffic
    counted: Counter[str] = Counter()
    clients: set[str] = set()
    for line in log.read_text().splitlines():
        found = LINE.fullmatch(line)
        text = found[1] if found is not None else ""
        counted.update(kind for kind, begin in BEGINS.items() if text.startswith(begin))
        if text.startswith("CONNECT from "):
            clients.add(text.split("[")[1].split("]")[0])
    recorded = json.loads(command("report", "--json", "--history", history))
    assert {kind: count for kind, count in recorded["totals"].items() if kind in BEGINS and count} == dict(counted)
    sessions = [json.loads(line) for line in command("history", "--path", history, "--json").splitlines()]
    assert len(sessions) == counted["connect"]
    assert {session["address"] for session in sessions} == clients
    of = Counter(session["outcome"] for session in sessions)
    marks = Counter(mark for session in sessions for mark in session["marks"])
    found_by = Counter(test for session in sessions for test in session["found"])
    assert of["handed_off"] + of["relayed"] + of["continued"] == counted["connect"] - counted["disconnect"]
    old = sum("passed" in session["marks"] and "new" not in session["marks"] for session in sessions)
    assert old == counted["pass_old"]
    assert (marks["new"], marks["allowlisted"], marks["denylisted"], marks["hung_up"]) == (
        counted["pass_new"], counted["allowlisted"], counted["denylisted"], counted["hangup"],
    )  # fmt: skip
    for test in ("pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline"):
        assert found_by[test] == counted[test] > 0, test
    assert of["busy"] == counted["reject_connect"]


def test_each_way_to_read_it_agrees(traffic: tuple[Path, Path]) -> None:
    _, history = traffic
    lines = [json.loads(line) for line in command("history", "--path", history, "--json").splitlines()]
    exported = command("history", "--path", history, "export", "--format", "jsonl")
    assert [json.loads(line) for line in exported.splitlines()] == lines
    rows = list(csv.DictReader(io.StringIO(command("history", "--path", history, "--csv"))))
    assert [row["address"] for row in rows] == [line["address"] for line in lines]
    outcomes = Counter(line["outcome"] for line in lines)
    for outcome, count in outcomes.items():
        found = command("history", "--path", history, f"outcome:{outcome}", "--json").splitlines()
        assert len(found) == count
    busiest = Counter(line["address"] for line in lines).most_common(1)[0]
    life = command("history", "--path", history, busiest[0])
    assert life.splitlines()[-1].startswith(f"{busiest[1]} sessions from ")
