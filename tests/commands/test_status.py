"""fastscreen status."""

import io
import json
import time
from typing import Any

import msgspec
import pytest

from commands.conftest import Ask, Server
from fastscreen import format
from fastscreen.cli import status
from fastscreen.control.messages import Status

WORKER = {
    "number": 1,
    "pid": 4712,
    "sessions": 80,
    "handoffs": 3,
    "tls": 2,
    "clients": 70,
    "accepted": 12345,
    "handed_off": 9000,
    "stress": False,
    "accepting": True,
    "stages": {"greet": 50, "dialogue": 20, "queued": 7, "handoff": 3},
    "dns": {"queries": 640, "answers": 600, "timeouts": 30, "ignored_packets": 1, "in_flight": 10, "cached": 5},
    "log_lines_lost": 0,
    "rss": 25_000_000,
    "cpu": 12.5,
}
STATUS: dict[str, Any] = {
    "time": 1763851600.0,
    "started": 1763848000.0,
    "version": "0.1.0",
    "hostname": "mx.example.test",
    "pid": 4711,
    "bypass_until": None,
    "limits": {"pre_queue": 1000, "post_queue": 100, "client_connection_count": 50},
    "counts": {"connect": 24690, "cached": 17000, "pregreet": 1234, "passed": 400, "handed_off": 18000}
    | {"rejected": 1931, "rank": 500, "listed": 1300},
    "workers": [WORKER, {**WORKER, "number": 2, "pid": 4713}],
    "cache": {"path": "/var/lib/fastscreen/cache", "entries": 55000, "size": 9_000_000, "hits": 170, "misses": 30},
    "lists": 8,
    "a key of tomorrow": 1,
}


def test_it_is_readable_in_80_columns(server: Server, ask: Ask) -> None:
    server({"status": STATUS})
    code, printed, _ = ask("status")
    assert code == 0
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
    assert "mx.example.test  fastscreen 0.1.0, process 4711, up 1 h, 2 workers" in printed
    assert "rejected 1,931" in printed
    assert "160 sessions   greet 100   dialogue 40   queued 14   handoff 6" in printed
    assert "in TLS 4" in printed
    assert "connect 24,690   cached 17,000" in printed
    assert "clients scored 500   listings 1,300" in printed
    assert "8 lists   queries 1,280   in flight 20" in printed
    assert "55,000 entries   9.0 MB   hits 85.0 %" in printed
    assert "     1     4712       80           3     12,345       9,000     12.5  25.0 MB" in printed
    assert "\x1b" not in printed


def test_responses_to_a_score() -> None:
    """Only if there were any."""
    now = msgspec.convert(STATUS, Status)
    assert "slowed" not in "".join(status.lines(now))
    now.counts.update(score_deferred=1200, slowed=3)
    assert "score    deferred once 1,200   doubtful 0   slowed 3" in status.lines(now)


def test_large_figures_still_fit() -> None:
    rows = (*status._ROWS, ("score", status._RESPONSES))
    counts = {kind: 12_345_678_901 for _, kinds in rows for kind in kinds}
    now = msgspec.convert({**STATUS, "counts": counts, "hostname": "m" * 70}, Status)
    before = msgspec.convert({**STATUS, "time": STATUS["time"] - 2, "counts": {}}, Status)
    assert max(map(len, status.lines(now, before))) <= 80


def test_json_is_the_answer(server: Server, ask: Ask) -> None:
    server({"status": {**STATUS, "odd": b"\x1b]0;x\x07\xff", "text": "\u202e"}})
    code, printed, _ = ask("status", "--json")
    found = json.loads(printed)
    assert code == 0
    assert found.pop("odd") == "\\033]0;x\\a\\377"
    assert found.pop("text") == "\\342\\200\\256"
    assert found == STATUS


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            {"bypass_until": 1763852500.0},
            "BYPASS: every client is handed off untested until 2025-11-22 23:01:40 (15 min more)",
        ),
        ({"missing_workers": [2]}, "NO ANSWER: worker 2"),
        ({"workers": [{**WORKER, "stress": True}]}, "STRESS MODE: worker 1"),
        ({"missing_workers": [1, 2]}, "NO ANSWER: workers 1, 2"),
        ({"lists_unhealthy": ["a.test"]}, "DNSBL disabled or suspect: a.test"),
        ({"workers": [{**WORKER, "accepting": False}]}, "NOT ACCEPTING: worker 1"),
        ({"workers": [{**WORKER, "log_lines_lost": 1200}]}, "LOG: 1,200 lines lost"),
    ],
)
def test_what_must_not_be_overlooked(
    change: dict[str, Any], warning: str, monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    server({"status": {**STATUS, **change}})
    _, printed, _ = ask("status")
    assert sum(line.startswith(warning) for line in printed.splitlines()) == 1


def test_the_last_reload_and_what_still_needs_a_restart(
    monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    text = "configuration reloaded; a restart of fastscreen is needed to apply cache.path, cache.prefix_ipv4"
    outcome = {"begun": 1, "finished": 1, "ok": True, "text": text, "time": 1763851600.0}
    server({"status": {**STATUS, "reload": outcome}})
    _, printed, _ = ask("status")
    assert "reload   2025-11-22 22:46:40: configuration reloaded; a restart" in printed
    assert text in " ".join(printed.split())
    assert all(len(line) <= 80 for line in printed.splitlines())


CLUSTER: dict[str, Any] = {
    "running": True,
    "connected": True,
    "since": 1763848000.0,
    "server": "192.0.2.53:6379",
    "role": "primary",
    "name": "mx1.example.test",
    "round_trip": 0.00034,
    "asked": 1200,
    "found": 300,
    "ended": 290,
    "late": 3,
    "unanswered": 4,
    "stored": 1500,
    "queue": 2,
    "queue_bytes": 1200,
    "queue_age": 61.0,
    "queue_dropped": 5,
    "ignored": {"bad_mac": 6, "newer": 0, "expired": 7},
    "peers": [
        {"name": "mx2.example.test", "seen": 1763851599.0, "version": "0.1.0"},
        {"name": "mx3.example.test", "seen": 1763848000.0, "away": True},
    ],
}


def cluster_lines(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask, **changes: Any) -> list[str]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    conditions = changes.pop("conditions", [])
    server({"status": {**STATUS, "cluster": {**CLUSTER, **changes}, "conditions": conditions}})
    _, printed, _ = ask("status")
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
    lines = printed.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("cluster "))
    return lines[first : lines.index("", first)]


def test_the_cluster(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert cluster_lines(monkeypatch, server, ask) == [
        "cluster  mx1.example.test: connected to 192.0.2.53:6379 (primary) since",
        "         2025-11-22 21:46:40, round trip 0.3 ms",
        "         asked 1,200   found 300 (25.0 %)   waits ended 290   late 7",
        "         stored 1,500   queue 2 (1.2 kB, 1 min 1 s)   dropped 5   ignored 13",
        "         records ignored: bad_mac 6, expired 7",
        "         peers: mx2.example.test, mx3.example.test (away since 2025-11-22",
        "         21:46:40)",
    ]


PROBLEM = "192.0.2.53:6379: no answer within 1 s"
CONDITION = {"kind": "cluster", "since": 1763848000.0, "text": f"cluster: {PROBLEM}", "remedy": "start it"}


@pytest.mark.parametrize("conditions", [[], [CONDITION]])
def test_a_cluster_that_cannot_be_used(
    conditions: list[Any], monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask
) -> None:
    """The problem is shown once: here, or as a condition."""
    down = {"connected": False, "problem": PROBLEM, "role": "", "peers": [], "ignored": {}, "conditions": conditions}
    text = " ".join(" ".join(cluster_lines(monkeypatch, server, ask, **down)).split())
    shown = "" if conditions else f": {PROBLEM}"
    assert f"mx1.example.test: not connected since 2025-11-22 21:46:40{shown} asked" in text
    assert text.endswith("peers: none seen yet")


def test_a_cluster_process_that_is_being_replaced(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert cluster_lines(monkeypatch, server, ask, running=False) == [
        "cluster  the cluster process is not running",
        "         asked 1,200   found 300 (25.0 %)   waits ended 290   late 7",
    ]


def test_no_cluster(server: Server, ask: Ask) -> None:
    server({"status": STATUS})
    assert "cluster" not in ask("status")[1]


HISTORY = {
    "running": True,
    "recording": True,
    "since": 1763848000.0,
    "sessions": 1234567,
    "lost": 0,
    "waiting": 0,
    "bytes": 3_400_000_000,
    "max_size": 4 << 30,
    "days": 30,
}
FULL = "less than 67.1 MB of the file system of /var/lib/fastscreen/history is free"


def history_lines(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask, *kinds: str, **changes: Any) -> list[str]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    conditions = [{"kind": kind, "since": 1763848000.0, "text": "x", "remedy": "y"} for kind in kinds]
    server({"status": {**STATUS, "history": {**HISTORY, **changes}, "conditions": conditions}})
    lines = ask("status")[1].splitlines()
    assert all(len(line) <= 80 for line in lines)
    first = next(number for number, line in enumerate(lines) if line.startswith("history "))
    return lines[first : lines.index("", first)]


RECORDED = "         recorded 1,234,567   lost 0   30 days   3.4 GB of 4.3 GB"
SUSPENDED = {"recording": False, "problem": FULL, "error": FULL, "lost": 7, "waiting": 16384, "set_aside": 1}
LOSSES = [
    "         recorded 1,234,567   lost 7   waiting 16,384   30 days",
    "         3.4 GB of 4.3 GB   damaged files 1",
]


@pytest.mark.parametrize(
    ("changes", "kinds", "lines"),
    [
        ({}, [], ["history  recording since 2025-11-22 21:46:40", RECORDED]),
        ({"running": False}, [], ["history  the recorder is not running"]),
        (
            SUSPENDED,
            [],
            [
                "history  suspended since 2025-11-22 21:46:40: less than 67.1 MB of the file",
                "         system of /var/lib/fastscreen/history is free",
                *LOSSES,
            ],
        ),
        (SUSPENDED, ["history"], ["history  suspended since 2025-11-22 21:46:40", *LOSSES]),
        (
            {"error": FULL, "error_time": 1763848000.0},
            [],
            [
                "history  recording since 2025-11-22 21:46:40",
                RECORDED,
                "         last error, 2025-11-22 21:46:40: less than 67.1 MB of the file system",
                "         of /var/lib/fastscreen/history is free",
            ],
        ),
    ],
)
def test_the_history(
    changes: dict[str, Any],
    kinds: list[str],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    ask: Ask,
) -> None:
    """A problem is shown once: here, or as a condition."""
    assert history_lines(monkeypatch, server, ask, *kinds, **changes) == lines


def test_no_history(server: Server, ask: Ask) -> None:
    server({"status": STATUS})
    assert "history" not in ask("status")[1]


@pytest.mark.parametrize("outcome", [{"ok": True, "time": None}, {"ok": False, "time": 1763851600.0}])
def test_no_reload_is_shown_before_the_first_or_where_a_condition_is(
    outcome: dict[str, Any], server: Server, ask: Ask
) -> None:
    server({"status": {**STATUS, "reload": {"text": "what happened", **outcome}}})
    assert "what happened" not in ask("status")[1]


def test_a_bypass_that_is_over_is_none(server: Server, ask: Ask) -> None:
    server({"status": {**STATUS, "bypass_until": STATUS["time"] - 1}})
    assert "BYPASS" not in ask("status")[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_red_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert format.red("x", Terminal()) == "\x1b[1;31mx\x1b[0m"
    assert format.red("x", io.StringIO()) == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert format.red("x", Terminal()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert format.red("x", Terminal()) == "x"


def test_watching_shows_rates_until_it_is_ended(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(2))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        past = next(looks) * 2
        return {**STATUS, "time": STATUS["time"] + past, "counts": {"connect": 100 + 25 * past}}

    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    server({"status": answer})
    code, printed, _ = ask("status", "--watch", "2.5")
    assert code == 130
    assert pauses == [2.5, 2.5]
    first, second = printed.split("\n\nmx.example.test", 1)
    assert "connect 100 " in first
    assert "connect 150 (25.0/s)" in second


def test_watching_as_json_is_one_object_a_line(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    server({"status": STATUS})
    assert json.loads(ask("status", "--watch", "--json")[1].rstrip("\n").split("\n")[0]) == STATUS


@pytest.mark.parametrize("pause", ["0", "-1", "x", "nan", "1e9"])
def test_a_pause_that_is_none(pause: str, ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("status", f"--watch={pause}")
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert format.span(seconds) == text


def test_sizes() -> None:
    assert [format.size(octets) for octets in (999, 1000, 3_210_000, 5e15)] == [
        "999 bytes",
        "1.0 kB",
        "3.2 MB",
        "5000.0 TB",
    ]


def test_conditions_fit_into_80_columns(server: Server, ask: Ask) -> None:
    """With start time and remedy, whole."""
    condition = {
        "kind": "config",
        "since": STATUS["time"] - 60,
        "text": "configuration not taken over: " + "long " * 40 + "end; the previous configuration stays in use",
        "remedy": "run `fastscreen check`, correct the file, then `fastscreen reload`, " + "and so on " * 9,
    }
    server({"status": {**STATUS, "conditions": [condition]}})
    _, printed, _ = ask("status")
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
    folded = " ".join(printed.split())
    assert f"CONFIG: {condition['text']} (since " in folded
    assert condition["remedy"].strip() in folded


MEMORY = {
    "running": True, "problem": "", "entries": 123_456, "max_entries": 1_000_000, "bytes": 8_000_000, "bad": 12,
    "good": 3456, "dropped": 7, "lost": 2, "systems": 500_000,
}  # fmt: skip


def memory_lines(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask, **changes: Any) -> list[str]:
    monkeypatch.setenv("TZ", "UTC")
    server({"status": {**STATUS, "memory": {**MEMORY, **changes}}})
    lines = ask("status")[1].splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("offenses"))
    end = next(at for at, line in enumerate(lines) if at > begin and not line.startswith(" "))
    return lines[begin:end]


def test_the_memory_of_offenses(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    lines = memory_lines(monkeypatch, server, ask)
    assert " ".join(" ".join(lines).split()) == (
        "offenses 123,456 entries of 1,000,000 8.0 MB bad 12 good 3,456 dropped 7 lost 2 AS ranges 500,000"
    )
    assert all(len(line) <= 80 for line in lines)


def test_a_memory_of_offenses_without_a_recorder(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert memory_lines(monkeypatch, server, ask, running=False) == ["offenses the recorder is not running"]


def test_a_memory_of_offenses_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert "No space" in memory_lines(monkeypatch, server, ask, problem="No space left on device")[-1]


FEEDBACK = {
    "log": "/var/log/mail.log", "running": True, "problem": "", "lines": 1_234_567, "accepted": 1_200_000,
    "rejected": 34, "spam": 5, "other": 6, "unknown": 78_000, "foreign": 9, "ambiguous": 0, "waiting": 10, "behind": 0,
    "skipped": 0, "slow": 0,
}  # fmt: skip


def feedback_text(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask, **changes: Any) -> str:
    monkeypatch.setenv("TZ", "UTC")
    server({"status": {**STATUS, "feedback": {**FEEDBACK, **changes}}})
    lines = ask("status")[1].splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("feedback"))
    end = next(at for at, line in enumerate(lines) if at > begin and not line.startswith(" "))
    assert all(len(line) <= 80 for line in lines)
    return " ".join(" ".join(lines[begin:end]).split())


RARE = {"foreign": 0, "ambiguous": 2, "behind": 3_000_000, "skipped": 4_000_000, "slow": 1}


@pytest.mark.parametrize(
    ("changes", "end"), [({}, "foreign 9"), (RARE, "ambiguous 2 slow 1 3.0 MB behind 4.0 MB skipped")]
)
def test_feedback(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask, changes: dict[str, Any], end: str) -> None:
    outcomes = "feedback accepted 1,200,000 rejected 34 spam 5 other 6 unknown 78,000 waiting 10 lines 1,234,567"
    assert feedback_text(monkeypatch, server, ask, **changes) == f"{outcomes} {end}"


def test_feedback_without_a_recorder(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert feedback_text(monkeypatch, server, ask, running=False) == "feedback the recorder is not running"


def test_feedback_of_a_log_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, server: Server, ask: Ask) -> None:
    assert feedback_text(monkeypatch, server, ask, problem="no such file").endswith("no such file")
