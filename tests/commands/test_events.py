"""fastscreen events."""

import json
from typing import Any

import pytest

from commands.conftest import Ask, Server

EVENT: dict[str, Any] = {
    "worker": 1,
    "sequence": 991,
    "time": 1763848061.204,
    "kind": "pregreet",
    "session": 17,
    "address": "192.0.2.1",
    "port": 51234,
    "stage": "greet",
    "failed": ["pregreet"],
    "score": None,
    "list": None,
    "number": 11,
    "text": b"EHLO \x1b]0;x\x07[red]\r\n",
}


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_lines_and_marks_until_the_daemon_stops(server: Server, ask: Ask) -> None:
    listed = {**EVENT, "kind": "listed", "session": 0, "port": 0, "list": "dq.example", "number": None, "failed": []}
    daemon = server(batches=[([EVENT], 0), ([{**listed, "text": b"127.0.0.2"}], 1700)])
    code, printed, said = ask("events", "--filter=192.0.2.0/24", "--recent", "5")
    assert printed.splitlines() == [
        '21:47:41.204 192.0.2.1:51234       pregreet         11 bytes "EHLO \\033]0;x\\a[red]\\r\\n" [pregreet]',
        "--- 1,700 events lost ---",
        '21:47:41.204 192.0.2.1             listed           dq.example "127.0.0.2"',
    ]
    assert code == 1
    assert "closed the connection" in said
    assert daemon.asked == [{"do": "events", "filter": "192.0.2.0/24", "rate": 2000, "recent": 5}]


def test_json_lines(server: Server, ask: Ask) -> None:
    server(batches=[([EVENT], 3)])
    lines = [json.loads(line) for line in ask("events", "--json")[1].splitlines()]
    assert lines == [{"lost": 3}, {**EVENT, "text": "EHLO \\033]0;x\\a[red]\\r\\n"}]


def test_it_ends_after_so_many(server: Server, ask: Ask) -> None:
    server(batches=[([EVENT, EVENT], 0), ([EVENT, EVENT], 0)])
    code, printed, said = ask("events", "--count", "3")
    assert (code, len(printed.splitlines()), said) == (0, 3, "")


@pytest.mark.parametrize("kind", ["greet", "handed_off", "hangup", "disconnect"])
def test_durations(kind: str, server: Server, ask: Ask) -> None:
    server(batches=[([{**EVENT, "kind": kind, "number": 2.3456, "text": b"", "failed": []}], 0)])
    assert ask("events", "--count", "1")[1].endswith(f" {kind:<16} 2.35 s\n")


@pytest.mark.parametrize(
    ("change", "particulars"),
    [
        (
            {"kind": "list_failed", "session": 0, "port": 0, "list": "dq.example", "number": "timeout"},
            "timeout dq.example",
        ),
        ({"kind": "passed", "number": "old"}, "old"),
        ({"kind": "command_limit", "number": "time"}, "time"),
        ({"kind": "handed_off", "number": 0.00042}, "0.4 ms"),
        ({"kind": "rank", "number": 5}, "5"),
        ({"kind": "score", "number": 5, "text": b"dnsbl 3, seen_network 2"}, '5 "dnsbl 3, seen_network 2"'),
        ({"kind": "score_deferred", "number": 2, "text": b"no_tls 2"}, '2 "no_tls 2"'),
        ({"kind": "doubtful", "number": 1, "text": b"127.0.0.1:2626"}, '1 "127.0.0.1:2626"'),
        ({"kind": "slowed", "number": 1}, "1"),
        ({"kind": "relayed", "number": 110, "text": b"53"}, "110 bytes in, 53 out"),
        ({"kind": "evidence", "number": 2, "text": b"seen_network: 192.0.2.0/24"}, '+2 "seen_network: 192.0.2.0/24"'),
        ({"kind": "stress_on", "session": 0, "port": 0, "address": "", "stage": None, "number": 117}, "117"),
        ({"kind": "command", "number": None, "text": b"QUIT\r"}, '"QUIT\\r"'),
        ({"kind": "connect", "number": 25}, ""),
        ({"kind": "dialogue", "number": None}, ""),
    ],
)
def test_what_each_kind_tells(change: dict[str, Any], particulars: str, server: Server, ask: Ask) -> None:
    server(batches=[([{**EVENT, "text": None, "failed": [], **change}], 0)])
    code, printed, _ = ask("events", "--count", "1")
    assert code == 0
    assert printed.rstrip("\n")[52:].strip() == particulars


def test_events_that_are_none(server: Server, ask: Ask) -> None:
    server(batches=[([{"time": [], "kind": b"\x1b"}], 0)])
    code, printed, said = ask("events")
    assert (code, printed) == (1, "")
    assert "not fastscreen's protocol" in said


@pytest.mark.parametrize("count", ["0", "-3", "x", "9999999"])
def test_a_count_that_is_none(count: str, ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("events", f"--count={count}")
    assert stopped.value.code == 2
